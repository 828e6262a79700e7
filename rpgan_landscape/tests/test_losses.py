"""Losses against reference numbers (provenance and tolerances: tests/golden/README.md) and their own definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rpgan_landscape.losses import LOSSES, Kind, LossError, Pairing, RelativisticLoss, named_loss
from shared.errors import UserError

GOLDEN = np.load(Path(__file__).parent / "golden" / "losses.npz", allow_pickle=False)
OURS = {
    "alexia_ls": "sep_ls", "alexia_wgan": "sep_w", "alexia_rs": "rp_logistic", "alexia_ra_s": "ra_logistic",
    "alexia_ra_ls": "ra_ls", "alexia_ra_hinge": "ra_hinge", "twocluster_js": "js", "twocluster_rs": "rs",
}  # fmt: skip
CASES = sorted({key.split(".")[0] for key in GOLDEN.files} - {"real", "fake"})


def logits(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    real, fake = (torch.from_numpy(GOLDEN[name]).to(dtype).requires_grad_() for name in ("real", "fake"))
    return real, fake


def both(loss: RelativisticLoss) -> dict[str, Any]:
    return {"d": loss.d_loss, "g": loss.g_loss}


def test_every_loss_has_reference_numbers_but_one() -> None:
    assert {OURS.get(case, case) for case in CASES} - {"js", "rs"} == set(LOSSES) - {"rp_ls"}


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-12), (torch.float32, 1e-5, 1e-6)])
@pytest.mark.parametrize("player", ["d", "g"])
@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, player: str, dtype: torch.dtype, rtol: float, atol: float) -> None:
    real, fake = logits(dtype)
    value = both(named_loss(OURS.get(case, case)))[player](real, fake)
    assert value.dtype is dtype
    assert value.item() == pytest.approx(GOLDEN[f"{case}.{player}.value"].item(), rel=rtol, abs=0)
    grads = torch.autograd.grad(value, [real, fake], allow_unused=True, materialize_grads=True)
    for x, name in zip(grads, ("grad_real", "grad_fake")):
        golden = torch.from_numpy(GOLDEN[f"{case}.{player}.{name}"]).reshape(x.shape)
        torch.testing.assert_close(x.double(), golden, rtol=0, atol=atol)


def test_rp_ls() -> None:
    r, f = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])
    loss = named_loss("rp_ls")
    assert loss.d_loss(r, f).item() == pytest.approx((0.5**2 + 5.0**2) / 2)
    assert loss.g_loss(r, f).item() == pytest.approx((2.5**2 + 3.0**2) / 2)


def test_softplus_is_exact_past_20() -> None:
    """PyTorch's own becomes the identity there, off by 2e-9."""
    gap = torch.tensor([21.0], dtype=torch.float64)
    exact = 21 + np.log1p(np.exp(-21.0))
    value = named_loss("rp_logistic").d_loss(-gap, torch.zeros(1, dtype=torch.float64))
    assert value.item() == pytest.approx(exact, rel=1e-15)
    assert F.softplus(gap).item() != pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_minimax_is_zero_sum(name: str) -> None:
    real, fake = logits()
    for halve in (False, True):
        loss = named_loss(name, "minimax", halve)
        assert loss.g_loss(real, fake).item() == -loss.d_loss(real, fake).item()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_halving_is_for_the_critic_of_a_separable_loss(name: str) -> None:
    real, fake = logits()
    whole, halved = named_loss(name), named_loss(name, halve_separable=True)
    part = 0.5 if name.startswith("sep") else 1.0
    assert halved.d_loss(real, fake).item() == part * whole.d_loss(real, fake).item()
    assert halved.g_loss(real, fake).item() == whole.g_loss(real, fake).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_sixteen_bits(name: str, dtype: torch.dtype) -> None:
    """As if the same numbers had come in float32: exp(12) alone would be infinite in float16."""
    real, fake = (4 * x.detach().to(dtype) for x in logits())
    real, fake = real.requires_grad_(), fake.requires_grad_()
    for player in ("d", "g"):
        value = both(named_loss(name))[player](real, fake)
        assert value.dtype is torch.float32
        assert value.item() == both(named_loss(name))[player](real.float(), fake.float()).item()
        grads = torch.autograd.grad(value, [real, fake], allow_unused=True, materialize_grads=True)
        assert all(g.dtype is dtype and g.isfinite().all() for g in grads)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_autocast_changes_nothing(name: str) -> None:
    real, fake = logits(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = named_loss(name).d_loss(real, fake)
    assert inside.item() == named_loss(name).d_loss(real, fake).item()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_shapes_do_not_broadcast(name: str) -> None:
    """(n, 1) reals and (n,) fakes are n pairs, not n^2."""
    real, fake = (x.detach() for x in logits())
    for player in ("d", "g"):
        call = both(named_loss(name))[player]
        assert call(real, fake[:, 0]).item() == call(real, fake).item()


def test_permutation() -> None:
    """Only paired losses notice in which order the fakes come."""
    real, fake = (x.detach() for x in logits())
    for name in LOSSES:
        loss = named_loss(name)
        moved = abs((loss.d_loss(real, fake.flip(0)) - loss.d_loss(real, fake)).item())
        assert (moved > 1e-3) == name.startswith("rp_"), name


@pytest.mark.parametrize("pairing", get_args(Pairing))
def test_unequal_lengths(pairing: Pairing) -> None:
    loss = RelativisticLoss("logistic", pairing)
    real, fake = torch.zeros(3), torch.zeros(5)
    if pairing in ("all_pairs", "average"):
        assert loss.d_loss(real, fake).item() == pytest.approx(np.log(2))
        assert loss.g_loss(real, fake).item() == pytest.approx(np.log(2))
        return
    with pytest.raises(ValueError, match=rf"3 real and 5 fake logits, and pairing '{pairing}' needs as many of both"):
        loss.d_loss(real, fake)


def test_the_generator_of_a_separable_loss_needs_no_reals() -> None:
    fake = torch.tensor([1.0, 2.0])
    assert named_loss("sep_hinge").g_loss(None, fake).item() == -1.5
    assert not named_loss("js").g_needs_real
    for loss in (named_loss("rs"), named_loss("js", "minimax")):
        assert loss.g_needs_real
        with pytest.raises(LossError, match="needs the real logits"):
            loss.g_loss(None, fake)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"unknown loss 'gan': use one of rp_logistic, .*allpairs_ls, js, ls, hinge"):
        named_loss("gan")
    with pytest.raises(ValueError, match="unknown kind 'bce': use one of logistic, hinge, ls, w"):
        RelativisticLoss("bce")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown pairing 'all': use one of separable, fixed, batch, all_pairs, av"):
        RelativisticLoss("ls", "all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown generator 'zero-sum': use one of nonsaturating, minimax"):
        RelativisticLoss("ls", "batch", "zero-sum")  # type: ignore[arg-type]
    for pairing in ("fixed", "batch", "all_pairs", "average"):
        with pytest.raises(ValueError, match="use pairing='separable'"):
            RelativisticLoss("w", pairing)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no fake logits: the batch is empty"):
        named_loss("rs").d_loss(torch.zeros(2), torch.zeros(0))


@pytest.mark.parametrize("kind", [k for k in get_args(Kind) if k != "w"])
def test_shuffled_pairs_are_all_pairs_in_expectation(kind: Kind) -> None:
    """The mean of the paired loss over all cyclic shifts of the fakes is the all-pairs loss (result B2)."""
    real, fake = (x.detach()[:, 0] for x in logits())
    paired = [RelativisticLoss(kind, "batch").d_loss(real, fake.roll(i)).item() for i in range(len(fake))]
    assert np.mean(paired) == pytest.approx(RelativisticLoss(kind, "all_pairs").d_loss(real, fake).item(), rel=1e-12)


def test_a_training_loop_of_ones_own() -> None:
    """A step of either player moves the logits as it should, through `torch.compile` as without."""
    torch.manual_seed(0)
    critic, x, y = torch.nn.Linear(2, 1), torch.randn(8, 2) + 2, torch.randn(8, 2).requires_grad_()
    loss = RelativisticLoss("logistic", "batch")
    compiled = torch.compile(loss.d_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(critic(x), critic(y)), loss.d_loss(critic(x), critic(y)))
    loss.g_loss(critic(x), critic(y)).backward()
    assert y.grad is not None
    with torch.no_grad():
        before, after = critic(y).mean(), critic(y - y.grad).mean()
    assert after > before
