"""The other regularisers: each against its formula, LeCam against golden vectors, all in one pass."""

from __future__ import annotations

import pytest
import torch
from diggan.regulariser import Random, When, discriminate
from diggan.rivals import CR, DRAGAN, GP, R1, R2, LeCam, build, lecam
from shared.errors import UserError
from torch import Tensor, nn

from diggan import rivals


@pytest.fixture
def case() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    d = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Softplus(), nn.Linear(8, 1)).double()
    return d, torch.randn(6, 1, 4, 4).double(), torch.randn(6, 1, 4, 4).double() + 1


def norms_of(d: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(d(x).sum(), x)[0].flatten(1).norm(dim=1)


def same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_lecam_is_the_authors(golden) -> None:
    file = golden("losses_metrics")
    real, fake = (file[f"lecam_d_{part}"].flatten().requires_grad_() for part in ("real", "fake"))
    value = lecam(real, fake, file["lecam_anchor_real"], file["lecam_anchor_fake"])
    same(value, file["lecam_value"])
    for got, key in zip(torch.autograd.grad(value, [real, fake]), ("lecam_grad_real", "lecam_grad_fake")):
        same(got, file[key].flatten())


def test_lecam_anchors_copy_then_decay_and_take_the_batch_in_first(case) -> None:
    d, fake, real = case
    with torch.no_grad():
        d[-1].weight.neg_()  # so that reals have the larger logits
    reg = LeCam(start=3)
    assert (reg.weight, reg.decay) == (0.3, 0.9)
    anchors = []
    for t in range(1, 6):
        seen = discriminate(d, fake - 3 * t, real, regularisers=[reg], when=When(t))
        anchors.append(reg.anchor_fake.item())
        expected = (
            lecam(seen.real, seen.fake, reg.anchor_real, reg.anchor_fake) if t > 3 else torch.tensor(0.0).double()
        )
        same(seen.penalties[0], expected)
    means = [d(fake - 3 * t).mean().item() for t in range(1, 6)]
    expected = means[:2]
    for t in (3, 4, 5):
        expected.append(0.9 * expected[-1] + 0.1 * means[t - 1])
    assert anchors == pytest.approx(expected)
    assert seen.penalties[0] > 0
    other = LeCam(start=3)
    other.load_state_dict(reg.state_dict())
    assert other.anchor_fake == reg.anchor_fake


def test_lecam_by_itself_starts_when_it_is_told_to(case) -> None:
    d, fake, real = case
    with torch.no_grad():
        d[-1].weight.neg_()
    reg = LeCam(weight=1.0, start=2)
    values = [float(reg(d, fake, real, when=When(t))) for t in (1, 2, 3)]
    assert values[:2] == [0, 0]
    assert values[2] > 0


def test_r1_and_r2(case) -> None:
    d, fake, real = case
    same(R1(10.0)(d, fake, real), 10 * norms_of(d, real).square().mean())
    same(R2(10.0)(d, fake, real), 10 * norms_of(d, fake).square().mean())


def test_gp_is_at_mixes_of_real_and_fake(case) -> None:
    d, fake, real = case
    mix = torch.rand(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64).view(-1, 1, 1, 1)
    value = GP(10.0)(d, fake, real, random=Random([torch.Generator().manual_seed(3)]))
    same(value, 10 * (norms_of(d, mix * real + (1 - mix) * fake) - 1).square().mean())


def test_dragan_is_about_the_reals(case) -> None:
    d, fake, real = case
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(real.shape, generator=generator, dtype=torch.float64)
    a = torch.rand(6, generator=generator, dtype=torch.float64).view(-1, 1, 1, 1)
    value = DRAGAN(10.0)(d, fake, real, random=Random([torch.Generator().manual_seed(3)]))
    same(value, 10 * (norms_of(d, real + a * 0.5 * real.std() * noise) - 1).square().mean())
    other = DRAGAN(10.0)(d, fake + 5, real, random=Random([torch.Generator().manual_seed(3)]))
    same(other, value)


def test_cr_moves_reals_and_compares_them_with_themselves(case) -> None:
    d, fake, real = case
    reg = CR(10.0)
    moved = reg.add(fake, real, 0, Random([torch.Generator().manual_seed(3)]))
    same(
        reg(d, fake, real, random=Random([torch.Generator().manual_seed(3)])), 10 * (d(moved) - d(real)).square().mean()
    )
    # Every moved image is the real one, mirrored or not, shifted by at most one pixel (side 4) with zeros behind it.
    for a, b in zip(moved, real):
        padded = nn.functional.pad(b, (1, 1, 1, 1))
        shifted = [padded[:, i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
        assert any(torch.equal(a, s) or torch.equal(a, s.flip(-1)) for s in shifted)
    many = [CR(1.0).add(fake, real, 0, Random()) for _ in range(20)]
    assert any(not torch.equal(m, real) for m in many)
    straight = CR(1.0, flip=False).add(fake, torch.arange(16.0).view(1, 1, 4, 4), 0, Random())
    assert (straight[straight > 0].diff() > 0).all()


def test_rows_of_pixels_cannot_be_moved_without_their_shape() -> None:
    d, rows = nn.Linear(16, 1), torch.randn(4, 16)
    with pytest.raises(UserError, match=r"cr moves images, these are rows of 16 numbers: say image="):
        CR(1.0)(d, rows, rows)
    assert CR(1.0, image=(1, 4, 4))(d, rows, rows).isfinite()


def test_extra_inputs_carry_the_labels_of_the_reals() -> None:
    met = []

    def d(x: Tensor, y: Tensor) -> Tensor:
        met.append(y)
        return (x.flatten(1).sum(1) ** 2 * y)[:, None]

    fake, real = torch.randn(3, 4), torch.randn(3, 4)
    y_fake, y_real = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
    discriminate(d, fake, real, y_fake, y_real, regularisers=[GP(1.0)], force=True)
    assert [y.tolist() for y in met] == [[1, 2, 3, 4, 5, 6, 4, 5, 6]]


def test_all_share_one_pass_and_one_call_of_autograd(case, monkeypatch: pytest.MonkeyPatch) -> None:
    d, fake, real = case
    passes, calls = [], []
    d.register_forward_hook(lambda *_: passes.append(1))
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    regs = [build(name) for name in rivals.WEIGHTS if name != "none"]
    seen = discriminate(d, fake, real, regularisers=regs, force=True, random=Random([torch.Generator().manual_seed(3)]))
    assert (len(passes), len(calls)) == (1, 1)
    monkeypatch.undo()
    order = list(rivals.WEIGHTS)[1:]
    same(seen.penalties[order.index("r1")], norms_of(d, real).square().mean())
    same(seen.penalties[order.index("dig")], (norms_of(d, fake) - norms_of(d, real)).square().mean())
    # and what is cheap needs no gradient
    calls.clear()
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    discriminate(d, fake, real, regularisers=[LeCam(), CR(1.0)], force=True)
    assert not calls


def test_raw_gradients_with_extra_inputs(case) -> None:
    d, fake, real = case
    seen = discriminate(
        d, fake, real, regularisers=[R1(1.0), GP(1.0)], force=True, augment=lambda x: 2 * x, wrt="raw",
        random=Random([torch.Generator().manual_seed(3)]),
    )  # fmt: skip
    same(seen.penalties[0], (2 * norms_of(d, 2 * real)).square().mean())
    mix = torch.rand(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64).view(-1, 1, 1, 1)
    same(seen.penalties[1], (norms_of(d, 2 * (mix * real + (1 - mix) * fake)) - 1).square().mean())


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        UserError, match="unknown regulariser 'spectral': there are none, dig, lecam, r1, r2, gp, dragan, cr"
    ):
        build("spectral")
    assert build("none") is None
    with pytest.raises(UserError, match="decay is 1"):
        LeCam(decay=1)
