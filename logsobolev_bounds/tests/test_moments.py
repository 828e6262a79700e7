"""psi, tilted moments, Herbst's identity and C: golden values, exactness, invariance, one line for wrong input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logsobolev_bounds.errors import BoundError, covariance_eigenvalues
from logsobolev_bounds.mgf import (
    class_corrected,
    comonotone,
    herbst,
    log_c,
    lsi,
    moments,
    on_average,
    psi,
    subgamma_fit,
    tilted,
)


def case(seed: int, K: int = 3, N: int = 40, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and squared gradients."""
    generator = torch.Generator().manual_seed(seed)
    loss = scale * torch.randn(K, N, generator=generator, dtype=torch.float64).square()
    return loss, torch.rand(K, N, generator=generator, dtype=torch.float64)


def close(a: torch.Tensor, b: torch.Tensor, rtol: float = 1e-10, atol: float = 0.0) -> None:
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def test_tilted_is_golden(golden) -> None:
    """Rows shifted by 300 and scaled by 80 among them."""
    file = golden("tilted.npz")
    loss, g, alphas, m = file["loss"], file["grad_sq"], file["alphas"], int(file["m"])
    log_M, G = tilted(loss, g, alphas)
    # ln M is 0 at alpha = 0, and there a rounding.
    close(log_M, file["log_M"], atol=1e-13)
    close(G, file["G"])
    close(psi(loss, alphas), file["psi"], atol=1e-12)
    bound = lsi(loss, g, alphas)
    close(bound, file["lsi"])
    assert alphas[0] == 0
    close(bound[:, 1:] / (alphas[1:] / 2), file["integral_trapz"][:, 1:])
    assert (file["integral_trapz"][:, 0] == 0).all()
    close(on_average(loss.mean(1), g.mean(1), alphas), file["on_average"])
    found = log_c(m * bound)
    close(found.C, file["C_mc"], atol=1e-12)
    close(found.ess, file["ess"])
    assert (found.unreliable == (file["ess"] < 10)).all()
    assert set(file) == {
        "loss", "grad_sq", "alphas", "m", "log_M", "G", "psi", "lsi", "integral_trapz", "on_average", "C_mc", "ess"
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), end=st.floats(1e-3, 20), shift=st.floats(-300, 300))
def test_psi(seed: int, end: float, shift: float) -> None:
    """Non-negative, 0 at 0, convex, and the same for a loss with a constant added."""
    loss, g = case(seed)
    alphas = torch.linspace(0, end, 33, dtype=torch.float64)
    value = psi(loss, alphas)
    assert (value >= 0).all()
    assert (value[:, 0] == 0).all()
    assert (value.diff(n=2) >= -1e-12 * (1 + value[:, 2:])).all()
    close(psi(loss + shift, alphas), value, rtol=1e-9, atol=1e-11)
    close(tilted(loss + shift, g, alphas)[1], tilted(loss, g, alphas)[1], rtol=1e-9)


def test_small_alphas_keep_their_digits() -> None:
    """psi = alpha^2 Var l / 2 to first order; a difference of ln M and alpha E l would have no digit left."""
    loss, _ = case(0)
    for shift in (0.0, 300.0):
        value = psi((loss + shift).float(), torch.tensor([1e-7], dtype=torch.float64))[:, 0]
        variance = (loss + shift).float().double().var(1, correction=0)
        close(value, 1e-14 * variance / 2, rtol=1e-5)


def test_huge_losses_stay_finite() -> None:
    """Losses up to 1e4: e^{-1e4} is 0 in every format."""
    loss, g = case(1)
    loss = 1e4 * loss / loss.max() + 5000
    alphas = torch.linspace(0, 1, 17, dtype=torch.float64)
    log_M, G = tilted(loss, g, alphas)
    assert log_M.isfinite().all()
    assert ((g.amin(1) <= G.T) & (g.amax(1) >= G.T)).all()
    close(log_M[:, -1], -loss.amin(1), rtol=1e-2)
    close(psi(loss, alphas), log_M + alphas * loss.mean(1, keepdim=True), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_herbst_identity(scale: float) -> None:
    """psi is the integral of the entropy: an identity, whatever the distribution of the loss."""
    loss, _ = case(2, scale=scale)
    alphas = torch.linspace(0, 1, 17, dtype=torch.float64)
    close(herbst(loss, alphas), psi(loss, alphas), rtol=1e-8, atol=1e-13)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, g = case(3, K=7)
    alphas = torch.linspace(0, 2, 17, dtype=torch.float64)
    whole = (*tilted(loss, g, alphas), psi(loss, alphas))
    monkeypatch.setattr(moments, "_BLOCK", 2 * 40 * 17)
    for a, b in zip((*tilted(loss, g, alphas), psi(loss, alphas)), whole):
        close(a, b, rtol=1e-14, atol=1e-16)
    transposed = (loss.T.contiguous().T, g.T.contiguous().T)
    close(tilted(*transposed, alphas)[1], whole[1], rtol=1e-13)


def test_c_does_not_depend_on_order_or_parts() -> None:
    H = torch.randn(60, 5, dtype=torch.float64).square() * 3
    whole = log_c(H)
    shuffled = log_c(H[torch.randperm(60)])
    close(shuffled.C, whole.C, rtol=1e-12)
    close(shuffled.ess, whole.ess, rtol=1e-12)
    thirds = torch.stack([log_c(part).C for part in H.split(20)])
    close(log_c(thirds).C, whole.C, rtol=1e-12)


def test_arrays_are_taken_as_tensors_are() -> None:
    """As they come out of a file: NumPy's, or lists."""
    loss, g = torch.rand(2, 3, 20, dtype=torch.float64)
    y, alphas = torch.arange(20) % 3, torch.linspace(0, 1, 17, dtype=torch.float64)
    for function, values in (
        (psi, (loss, alphas)), (tilted, (loss, g, alphas)), (lsi, (loss, g, alphas)), (herbst, (loss, alphas)),
        (class_corrected, (loss, g, y, alphas)), (on_average, (loss.mean(1), g.mean(1), alphas)),
        (comonotone, (g.mean(1), alphas)), (log_c, (loss,)), (subgamma_fit, (alphas[1:], loss[0, :16])),
    ):  # fmt: skip
        for form in ([v.numpy() for v in values], [v.tolist() for v in values]):
            torch.testing.assert_close(function(*form), function(*values), rtol=0, atol=0)


def test_the_effective_sample_size() -> None:
    H = torch.zeros(50, 3, dtype=torch.float64)
    H[0, 1], H[0, 2] = 800.0, math.inf
    found = log_c(H)
    assert found.C.tolist() == pytest.approx([0.0, 800 - math.log(50), math.inf])
    assert found.ess.tolist() == pytest.approx([50.0, 1.0, 1.0])
    assert found.unreliable.tolist() == [False, True, True]


def test_the_power_is_inside() -> None:
    """C from m psi per draw differs from both wrong formulas, which are smaller by Jensen."""
    value, m = torch.tensor([[0.001], [0.03]], dtype=torch.float64), 50
    right = float(log_c(m * value).C)
    inner = float(m * log_c(value).C)
    outer = float((m * value).mean())
    assert right > 1.1 * inner > 1.1 * outer


def test_subgamma_is_golden(golden) -> None:
    file = golden("subgamma.npz")
    found = subgamma_fit(file["lam"], file["C"])
    assert found.v == pytest.approx(float(file["v"]), rel=1e-3)
    assert found.c == pytest.approx(float(file["c"]), rel=1e-3)
    assert found.rms < 1e-9


@settings(max_examples=25, deadline=None)
@given(v=st.floats(1e-6, 1e3), share=st.floats(-20, 0.999), top=st.floats(1e-2, 1e5))
def test_subgamma_recovers_its_constants(v: float, share: float, top: float) -> None:
    """c of either sign, up to close to 1 / max lambda."""
    lam = torch.linspace(0, top, 26, dtype=torch.float64)[1:]
    c = share / top
    found = subgamma_fit(lam, lam**2 * v / (2 * (1 - c * lam)))
    assert found.v == pytest.approx(v, rel=1e-3)
    assert found.c == pytest.approx(c, rel=1e-3, abs=1e-5 / top)
    assert found.c < 1 / top


def test_subgamma_reports_its_misfit() -> None:
    lam = torch.linspace(1, 10, 10, dtype=torch.float64)
    wiggle = 0.1 * torch.tensor([1.0, -1.0]).repeat(5)
    assert subgamma_fit(lam, lam**2 * wiggle.exp()).rms == pytest.approx(0.1, rel=0.1)


def test_what_a_residual_of_the_fit_means() -> None:
    """C1's 0.08 is a power of 1.9 instead of 2, where c is not negative; a straight line fits with c far below 0."""
    lam = torch.arange(1, 21, dtype=torch.float64) / 20
    spread = float(lam.log().std(correction=0))
    assert spread == pytest.approx(0.792, abs=5e-4)
    assert 0.1 * spread == pytest.approx(0.08, abs=1e-3)
    line = subgamma_fit(lam, lam)
    assert (line.rms < 1e-3, line.c < -100) == (True, True)
    assert subgamma_fit(lam, lam**1.9).c < 0 < subgamma_fit(lam, lam**2.1).c


def test_a_covariance_is_symmetric() -> None:
    assert covariance_eigenvalues(torch.diag(torch.tensor([3.0, -1e-9]))).tolist() == [0, 3]
    for sigma, message in (
        (torch.tensor([[1.0, 0.5], [0.2, 1.0]]), "Sigma is not symmetric: entries differ by 0.3"),
        (torch.diag(torch.tensor([1.0, -1e-3])), "Sigma has the eigenvalue -0.001: a covariance has none below 0"),
        (torch.zeros(2, 3), "Sigma has shape (2, 3): a covariance is a square matrix"),
        (torch.full((2, 2), math.nan), "Sigma has an entry that is not finite: nan"),
    ):
        with pytest.raises(BoundError) as caught:
            covariance_eigenvalues(sigma)
        assert message in str(caught.value)


ONE, GRID = torch.ones(2, 5), torch.linspace(0, 1, 17)
WRONG = [
    (lambda: psi(torch.zeros(0, 5), GRID), "the loss has shape [0, 5]: at least one draw and one example are needed"),
    (lambda: psi(torch.zeros(3, 0), GRID), "the loss has shape [3, 0]: at least one draw and one example"),
    (lambda: psi(torch.zeros(5), GRID), "the loss has shape [5]: give [draws, examples]"),
    (lambda: psi(torch.full((2, 5), math.nan), GRID), "the loss is nan: every value is a finite number"),
    (lambda: psi(torch.full((2, 5), math.inf), GRID), "the loss is inf: every value is a finite number"),
    (lambda: psi(ONE, -GRID), "alpha is -0.0625: it is at least 0"),
    (lambda: tilted(ONE, torch.ones(2, 4), GRID), "the loss has shape [2, 5], g [2, 4]: one g for each loss"),
    (lambda: tilted(ONE, -ONE, GRID), "g is -1: it is at least 0"),
    (lambda: tilted(ONE, ONE * math.nan, GRID), "g is nan: every value is a finite number"),
    (lambda: herbst(torch.zeros(0, 5), GRID), "at least one draw and one example are needed"),
    (lambda: log_c(torch.zeros(0, 3)), "H has shape [0, 3]: at least one draw is needed"),
    (lambda: log_c(torch.full((2, 3), math.nan)), "H is nan: it is m times a log-MGF"),
    (lambda: subgamma_fit(torch.ones(2), torch.ones(2)), "lambdas of shape [2], C [2]"),
    (lambda: subgamma_fit(torch.ones(3), torch.ones(4)), "lambdas of shape [3], C [4]"),
    (lambda: subgamma_fit(torch.zeros(3), torch.ones(3)), "lambda is 0: it is positive and finite"),
    (lambda: subgamma_fit(torch.ones(3), torch.zeros(3)), "C is 0: it is positive and finite"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_input(call, message: str) -> None:
    with pytest.raises(BoundError) as caught:
        call()
    assert message in str(caught.value)
