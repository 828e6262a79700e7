"""DIG: golden vectors of the authors' code, the identities of section 3, its edge cases."""

from __future__ import annotations

import copy
import logging
import warnings

import pytest
import torch
import torch.nn.functional as F
from diggan.gradient_gap import DIGRegularizer
from diggan.kernels.fused_diffaugment import draw
from diggan.regulariser import RegulariserError, When, discriminate
from diggan.training import Batch, Game, adam
from shared.errors import UserError
from torch import Tensor, nn

from diggan import nets

VARIANTS = ("official", "pair", "mean", "allpairs", "port")


class Golden2D(nn.Module):
    """The discriminator of dig_mlp2d.npz."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.p = nn.ParameterDict({name: nn.Parameter(values[name]) for name in ("W1", "W2", "W3", "b1", "b2")})

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(x @ self.p["W1"].T + self.p["b1"], 0.2)
        return F.leaky_relu(h @ self.p["W2"].T + self.p["b2"], 0.2) @ self.p["W3"].T


def same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def grads(value: Tensor, d: Golden2D) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, list(d.p.values()), allow_unused=True)
    return {name: torch.zeros(1).double() if g is None else g for name, g in zip(d.p, found)}


@pytest.mark.parametrize(("variant", "prefix"), [("official", ""), ("pair", "pair_"), ("mean", "mean_")])
def test_two_steps_are_the_authors(golden, variant: str, prefix: str) -> None:
    file = golden("dig_mlp2d")
    d, reg = Golden2D(file), DIGRegularizer(variant, 1.0)
    for step in ("s1", "s2"):
        value = reg(d, file[f"{step}_x_fake"], file[f"{step}_x_real"])
        same(value, file[f"{step}_penalty_{variant}"])
        for name, grad in grads(value, d).items():
            if f"{step}_{prefix}grad_{name}" in file:
                same(grad, file[f"{step}_{prefix}grad_{name}"].reshape(grad.shape))
        if variant == "official":
            same(reg.s_fake, file[f"{step}_ema_fake"])
            same(reg.s_real, file[f"{step}_ema_real"])


def test_the_port_is_what_the_second_code_base_computes(golden) -> None:
    file = golden("dig_mlp2d")
    d, reg = Golden2D(file), DIGRegularizer("port", 1.0)
    for step in ("port_s1", "port_s2", "port_s3"):
        value = reg(d, file[f"{step}_x_fake"], file[f"{step}_x_real"])
        same(value, file[f"{step}_penalty"])
        for name, grad in grads(value, d).items():
            expected = file[f"{step}_grad_{name}"]
            same(grad, expected if expected.shape == grad.shape else torch.zeros_like(grad))


@pytest.fixture
def case() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    d = nn.Sequential(nn.Linear(5, 8), nn.Softplus(), nn.Linear(8, 1)).double()
    return d, torch.randn(6, 5).double(), torch.randn(6, 5).double() + 1


def norms_of(d: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(d(x).sum(), x)[0].norm(dim=1)


def test_all_pairs_is_the_gap_of_means_and_both_variances(case) -> None:
    d, fake, real = case
    a, b = norms_of(d, fake), norms_of(d, real)
    value = DIGRegularizer("allpairs", 1.0)(d, fake, real)
    same(value, (a.mean() - b.mean()).square() + a.var(correction=0) + b.var(correction=0))
    same(value, (a[:, None] - b).square().mean())


def test_after_the_first_call_the_factor_is_half(case) -> None:
    """dR/dn_i = (s_i^F - s_i^R) / B."""
    reg = DIGRegularizer("official", 1.0)
    fake, real = torch.rand(4).double(), torch.rand(4).double()
    reg.gap(fake, real)
    new = torch.rand(4).double().requires_grad_()
    value = reg.gap(new, real)
    same(torch.autograd.grad(value, new)[0], (reg.s_fake - reg.s_real) / 4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_linear_critic_has_no_gap_and_no_gradient(variant: str) -> None:
    torch.manual_seed(0)
    d, reg = nn.Linear(5, 1).double(), DIGRegularizer(variant, 1.0)
    for _ in range(2):
        value = reg(d, torch.randn(6, 5).double(), torch.randn(6, 5).double())
        assert value.abs() < 1e-24
        grad = torch.autograd.grad(value, d.weight, allow_unused=True)[0]
        assert grad is None or grad.abs().max() < 1e-12


def test_norms_are_of_single_samples_and_of_the_logits_sum(case) -> None:
    """Not the norm of the mean gradient, and not smaller in a larger batch (traps 2 and 3)."""
    d, fake, real = case
    reg = DIGRegularizer("official", 1.0)
    reg(d, fake, real)
    same(reg.s_fake, norms_of(d, fake))
    reg = DIGRegularizer("official", 1.0)
    reg(d, fake.repeat(3, 1), real.repeat(3, 1))
    same(reg.s_fake[:6], norms_of(d, fake))


def test_permuting_the_batch_permutes_the_state(case) -> None:
    d, fake, real = case
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    plain, permuted = DIGRegularizer(weight=1.0), DIGRegularizer(weight=1.0)
    for _ in range(2):
        same(plain(d, fake, real), permuted(d, fake[order], real[order]))
        same(plain.s_real[order], permuted.s_real)


def test_several_networks_side_by_side_are_each_as_alone(case) -> None:
    d, fake, real = case
    for variant in VARIANTS:
        alone, together = DIGRegularizer(variant, 1.0), DIGRegularizer(variant, 1.0)
        for shift in (0.0, 0.3):
            one = alone(d, fake + shift, real)
            seen = discriminate(
                lambda x: d(x.flatten(0, 1)).view(2, -1), torch.stack([fake + shift, real]), torch.stack([real, fake]),
                regularisers=[together], force=True, axis=1,
            )  # fmt: skip
            assert seen.penalties[0].shape == (2,)
            same(seen.penalties[0][0], one)


def test_a_batch_of_another_size_starts_anew_and_says_so_once(case, caplog: pytest.LogCaptureFixture) -> None:
    d, fake, real = case
    reg = DIGRegularizer(weight=1.0)
    with caplog.at_level(logging.WARNING):
        for n in (6, 4, 6, 5):
            reg(d, fake[:n], real[:n])
            same(reg.s_fake, norms_of(d, fake[:n]))
    assert len(caplog.records) == 1
    assert "batch of 4 after one of 6" in caplog.text


def test_the_state_survives_a_checkpoint(case) -> None:
    d, fake, real = case
    for variant in ("official", "port"):
        first = DIGRegularizer(variant, 1.0)
        first(d, fake, real)
        second = DIGRegularizer(variant, 1.0)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        same(first(d, fake + 1, real), second(d, fake + 1, real))


def test_fakes_and_reals_of_unequal_number_are_refused(case) -> None:
    d, fake, real = case
    with pytest.raises(ValueError, match="5 fakes and 6 reals"):
        DIGRegularizer(weight=1.0)(d, fake[:5], real)


def test_a_critic_gives_one_logit_for_each_image(case) -> None:
    """Of a map of logits for each image the first so many would be taken for the batch's."""
    _, fake, real = case
    for d, found in ((nn.Linear(5, 3), 36), (nn.Sequential(nn.Flatten(0), nn.Linear(60, 1)), 1)):
        with pytest.raises(RegulariserError, match=f"D gives {found} numbers for 12 images"):
            DIGRegularizer(weight=1.0)(d.double(), fake, real)


def test_labels_come_for_both_halves(case) -> None:
    d, fake, real = case
    for labels in ({"y_fake": torch.zeros(6)}, {"y_real": torch.zeros(6)}):
        with pytest.raises(RegulariserError, match="labels of the fakes and of the reals: give both, or neither"):
            DIGRegularizer(weight=1.0)(lambda x, y: d(x), fake, real, **labels)


class StyleDiscriminator(nn.Module):
    """StyleGAN2's form at 16 x 16: scaled weights, blurred strides, residuals over sqrt(2), scaled leaky ReLUs."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        shapes = ((width, 1, 1, 1), (width, width, 3, 3), (width, width, 3, 3), (width, width, 1, 1), (1, width * 64))
        self.weights = nn.ParameterList(torch.randn(shape) for shape in shapes)
        self.register_buffer("blur", torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8] * 2)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        grey, first, down, skip, last = (w / w[0].numel() ** 0.5 for w in self.weights)

        def blurred(x: Tensor, pad: int) -> Tensor:
            return F.conv2d(F.pad(x, [pad] * 4), self.blur.expand(x.shape[1], -1, -1, -1), groups=x.shape[1])

        def act(x: Tensor) -> Tensor:
            return F.leaky_relu(x, 0.2) * 2**0.5

        x = act(F.conv2d(x, grey))
        h = act(F.conv2d(x, first, padding=1))
        h = F.conv2d(blurred(h, 2), down, stride=2)
        x = (act(h) + F.conv2d(blurred(x, 1), skip, stride=2)) / 2**0.5
        return x.flatten(1) @ last.T


def test_a_stylegan2_type_critic() -> None:
    """Its norms are those of single images, and the penalty by itself closes their gap."""
    torch.manual_seed(0)
    d, reg = StyleDiscriminator(), DIGRegularizer("pair", 1.0)
    fake, real = torch.randn(6, 1, 16, 16) / 4, torch.randn(6, 1, 16, 16)
    alone = torch.stack([norms_of_images(d, x[None])[0] for x in (*fake, *real)])
    torch.testing.assert_close(norms_of_images(d, torch.cat([fake, real])), alone)
    opt = torch.optim.Adam(d.parameters(), 1e-2, betas=(0.0, 0.99))
    values = []
    for _ in range(40):
        opt.zero_grad()
        value = reg(d, fake, real)
        value.backward()
        opt.step()
        values.append(value.item())
    torch.testing.assert_close(values[0], (alone[:6] - alone[6:]).square().mean().item())
    assert values[-1] < 0.1 * values[0]


def norms_of_images(d: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(d(x).sum(), x)[0].flatten(1).norm(dim=1)


def test_a_dead_critic_gives_zero_not_nan() -> None:
    """All gradients zero: norms are 0, and so is what reaches the parameters."""
    d = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        d[0].bias.fill_(-100)
    value = DIGRegularizer(weight=1.0)(d, torch.randn(5, 3), torch.randn(5, 3))
    value.backward()
    assert value == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in d.parameters())


def test_batch_normalisation_in_the_critic_is_warned_of() -> None:
    d = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    with pytest.warns(UserWarning, match="batch normalisation"):
        DIGRegularizer(weight=1.0)(d, torch.randn(5, 3), torch.randn(5, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DIGRegularizer(weight=1.0)(nn.Linear(3, 1), torch.randn(5, 3), torch.randn(5, 3))


def test_mixed_precision_does_not_touch_the_penalty() -> None:
    torch.manual_seed(0)
    d = nn.Sequential(nn.Linear(5, 8), nn.Softplus(), nn.Linear(8, 1))
    fake, real = torch.randn(6, 5), torch.randn(6, 5)
    plain = DIGRegularizer(weight=1.0)(d, fake, real)
    with torch.autocast("cpu", torch.bfloat16):
        assert d(fake).dtype is torch.bfloat16  # what would have been
        assert torch.equal(DIGRegularizer(weight=1.0)(d, fake, real), plain)
        for dtype in (torch.bfloat16, torch.float16):  # images that mixed precision has made already
            little_fake, little_real = fake.to(dtype), real.to(dtype)
            expected = DIGRegularizer(weight=1.0)(d, little_fake.float(), little_real.float())
            for mixed in ((little_fake, little_real), (little_fake.float(), little_real)):
                assert torch.equal(DIGRegularizer(weight=1.0)(d, *mixed), expected)


def test_the_package_itself_has_it() -> None:
    import diggan

    assert diggan.DIGRegularizer is DIGRegularizer
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        diggan.nothing  # noqa: B018


def test_schedules() -> None:
    first, fourth = DIGRegularizer(weight=1.0), DIGRegularizer(weight=1.0, every=4)
    steps = [When(t, s) for t in range(1, 10) for s in range(2)]
    assert [w for w in steps if first.due(w)] == [When(t, 0) for t in range(1, 10)]
    assert [w for w in steps if fourth.due(w)] == [When(t, s) for t in (1, 5, 9) for s in range(2)]
    assert not any(DIGRegularizer(weight=0.0).due(w) for w in steps)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"variant": "best"}, "unknown variant 'best': there are official, pair, mean, allpairs, port"),
        ({"weight": -1}, "weight is -1"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"weight": float("inf")}, "weight is inf"),
        ({"weight": "auto"}, "weight is 'auto'"),
        ({"smoothing": 1}, "smoothing is 1"),
        ({"every": 0}, "every is 0"),
        ({"every": "always"}, "every is 'always'"),
        ({"grad_wrt": "latent"}, "unknown grad_wrt 'latent': there are augmented, raw"),
    ],
)
def test_bad_settings(settings: dict, says: str) -> None:
    with pytest.raises(RegulariserError, match=says) as caught:
        DIGRegularizer(**settings)
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, ValueError)


def test_the_regulariser_says_by_what_gradients_are(case) -> None:
    d, fake, real = case
    for wrt, factor in (("augmented", 1), ("raw", 2)):
        reg = DIGRegularizer(weight=1.0, grad_wrt=wrt)
        discriminate(d, fake, real, regularisers=[reg], force=True, augment=lambda x: 2 * x)
        same(reg.s_fake, factor * norms_of(d, 2 * fake))


def test_raw_gradients_see_through_the_augmentation(case) -> None:
    """D(2x) has twice the gradient by x that D has by its input."""
    d, fake, real = case
    for wrt, factor in (("augmented", 1), ("raw", 2)):
        reg = DIGRegularizer(weight=1.0)
        discriminate(d, fake, real, regularisers=[reg], force=True, augment=lambda x: 2 * x, wrt=wrt)
        same(reg.s_fake, factor * norms_of(d, 2 * fake))


def test_a_game_leaves_the_choice_of_gradients_to_its_regularisers() -> None:
    found = {}
    for wrt in ("augmented", "raw"):
        torch.manual_seed(0)
        g, d = nets.build("mlp64", 8)
        reg = DIGRegularizer(weight=1.0, grad_wrt=wrt)
        draws = [draw("cutout", n, 8, 8, torch.Generator().manual_seed(1)) for n in (8, 4)]
        batch = Batch(torch.rand(1, 4, 1, 8, 8), None, torch.randn(2, 4, 32), None, draws)
        Game(g, d, [reg], policy="cutout").iterate(batch, adam(g, 1e-3), adam(d, 1e-3))
        found[wrt] = reg.s_real
    assert (found["raw"] < found["augmented"]).all()  # what lies under the hole has no gradient
