"""T1, T2 and their relatives: order, invariance, where they are exact, and where the pooled one is wrong."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logsobolev_bounds.errors import BoundError
from logsobolev_bounds.mgf import (
    c_lipschitz,
    c_on_average,
    class_corrected,
    comonotone,
    log_c,
    lsi,
    on_average,
    psi,
)

from logsobolev_bounds import theory

GRID = torch.linspace(0, 1, 65, dtype=torch.float64)


def logistic(mean: float, std: float, points: int = 4001) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and g [1, N] of the logistic loss at equally likely margins: the quantiles of N(mean, std^2)."""
    p = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    t = mean + std * math.sqrt(2) * torch.erfinv(2 * p - 1)
    return torch.nn.functional.softplus(-t)[None], (std * torch.sigmoid(-t)).square()[None]


@settings(max_examples=25, deadline=None)
@given(mean=st.floats(-3, 3), std=st.floats(0.1, 4), end=st.floats(0.1, 8))
def test_the_order_of_the_bounds(mean: float, std: float, end: float) -> None:
    """0 <= psi <= T1 <= co-monotone, and T1 <= T2 up to the trapezoid rule's (step b)^2 / 12."""
    alphas = torch.linspace(0, end, 65, dtype=torch.float64)
    loss, g = logistic(mean, std)
    exact, t1 = psi(loss, alphas), lsi(loss, g, alphas)
    b, slack = loss.mean(1), 1 + 1e-9
    assert (exact >= 0).all()
    assert (exact <= t1 * slack + 1e-12).all()
    assert (t1 <= comonotone(g.mean(1), alphas) * slack).all()
    assert (t1 <= on_average(b, g.mean(1), alphas) * (slack + float(end / 64 * b) ** 2 / 12)).all()


def test_an_affine_loss_meets_t1() -> None:
    """psi by quadrature is alpha^2 b'Sigma b / 2, and T1 says so whatever points it is given."""
    slope, mean, std = 0.7, 3.0, 1.3
    alphas = torch.linspace(0, 2, 65, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    at = theory.gaussian_margin(lambda t: 5 + slope * t, lambda t: 0 * t + slope, mean * one, std * one, alphas)
    expected = alphas.square() * (slope * std) ** 2 / 2
    torch.testing.assert_close(at.psi[0], expected, rtol=1e-10, atol=1e-14)
    loss = 5 + slope * (mean + std * torch.randn(1, 30, dtype=torch.float64))
    bound = lsi(loss, torch.full_like(loss, (slope * std) ** 2), alphas)
    torch.testing.assert_close(bound[0], at.psi[0], rtol=1e-10, atol=1e-14)


def test_t1_does_not_depend_on_coordinates() -> None:
    """x -> A x and Sigma -> A Sigma A' leave |Sigma^{1/2} grad|^2; the Euclidean norm would change."""
    generator = torch.Generator().manual_seed(0)
    x, w, A, root = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((50, 4), (3, 4), (4, 4), (4, 4))
    )
    sigma = root @ root.T

    def bound(x: torch.Tensor, w: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        t = w @ x.T
        quadratic_form = ((w @ sigma) * w).sum(1, keepdim=True)
        return lsi(torch.nn.functional.softplus(-t), torch.sigmoid(-t).square() * quadratic_form, GRID)

    there = bound(x @ A.T, w @ torch.linalg.inv(A), A @ sigma @ A.T)
    torch.testing.assert_close(there, bound(x, w, sigma), rtol=1e-9, atol=1e-15)
    assert not torch.allclose(bound(x @ A.T, w @ torch.linalg.inv(A), sigma), bound(x, w, sigma), rtol=1e-2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_c_grows_with_lambda(seed: int) -> None:
    """C(0) = 0, C_lsi non-decreasing; the exact C is convex too."""
    generator = torch.Generator().manual_seed(seed)
    loss = torch.randn(5, 30, generator=generator, dtype=torch.float64).square()
    g = torch.rand(5, 30, generator=generator, dtype=torch.float64)
    bound, exact = log_c(200 * lsi(loss, g, GRID)).C, log_c(200 * psi(loss, GRID)).C
    for C in (bound, exact):
        assert abs(float(C[0])) < 1e-14
        assert (C.diff() >= -1e-12).all()
    assert (exact.diff(n=2) >= -1e-9).all()


def test_on_average_without_loss_is_its_limit() -> None:
    zero, g = torch.zeros(1, dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    expected = GRID.square() * 0.15
    torch.testing.assert_close(on_average(zero, g, GRID)[0], expected)
    torch.testing.assert_close(on_average(zero + 1e-13, g, GRID)[0], expected)
    assert (on_average(b_w=zero + 1e6, g_w=0 * g, alphas=GRID) == 0).all()


def test_a_grid_in_float32_is_uniform_too() -> None:
    loss, g = logistic(0.0, 1.0, 50)
    single, double = (lsi(loss, g, torch.linspace(0, 3.3, 129, dtype=it)) for it in (torch.float32, torch.float64))
    torch.testing.assert_close(single, double, rtol=1e-5, atol=1e-7)


def test_c_on_average() -> None:
    lam, m, b, g = 30.0, 50, 0.8, 1.7
    expected = lam * g / (2 * b) * math.expm1(lam * b / m)
    assert float(c_on_average(b, g, lam, m)) == pytest.approx(expected, rel=1e-12)
    each = on_average(*torch.tensor([[b], [g], [lam / m]], dtype=torch.float64))
    assert float(m * each) == pytest.approx(expected, rel=1e-12)
    assert float(c_on_average(0.0, g, lam, m)) == pytest.approx(lam**2 * g / (2 * m), rel=1e-12)


def test_c_lipschitz() -> None:
    kappa = torch.tensor([2.0, 0.5], dtype=torch.float64)
    expected = -0.5 * sum(math.log(1 - 9 * 0.04 * k / 50) for k in (2.0, 0.5))
    assert float(c_lipschitz(kappa, 0.2, 3.0, 50)) == pytest.approx(expected, rel=1e-12)
    root = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    assert float(c_lipschitz(root @ kappa.diag() @ root.T, 0.2, 3.0, 50)) == pytest.approx(expected, rel=1e-12)
    lams = torch.tensor([1.0, 24.99, 25.0, 100.0], dtype=torch.float64)  # 25^2 * 0.04 * 2 = 50
    value = c_lipschitz(kappa, 0.2, lams, 50)
    assert value.isfinite().tolist() == [True, True, False, False]
    assert value[2:].tolist() == [math.inf, math.inf]


def test_class_corrected_is_golden(golden) -> None:
    file = golden("class_corrected.npz")
    assert set(file) == {"loss", "grad_sq", "y", "alphas", "bound"}
    found = class_corrected(file["loss"], file["grad_sq"], file["y"], file["alphas"])
    torch.testing.assert_close(found, file["bound"], rtol=1e-10, atol=1e-12)
    one = class_corrected(file["loss"], file["grad_sq"], torch.zeros_like(file["y"]), file["alphas"])
    torch.testing.assert_close(one, lsi(file["loss"], file["grad_sq"], file["alphas"]), rtol=1e-12, atol=1e-12)


def test_flat_classes_are_corrected_exactly() -> None:
    """A loss that is constant within a class has no gradient: the pooled T1 is 0, psi is not, the corrected is psi."""
    y = torch.tensor([0] * 5 + [1] * 3)
    loss = torch.stack([y.double(), 0.3 + 2 * y.double()])
    none = torch.zeros_like(loss)
    assert (lsi(loss, none, GRID) == 0).all()
    exact = psi(loss, GRID)
    assert (exact[:, -1] > 0.1).all()
    torch.testing.assert_close(class_corrected(loss, none, y, GRID), exact, rtol=1e-12, atol=1e-14)
    for row, (loss0, loss1) in enumerate(((0.0, 1.0), (0.3, 2.3))):
        at = theory.flat_classes(3 / 8, loss0, loss1, 1.0)
        assert float(exact[row, -1]) == pytest.approx(at.psi, rel=1e-12)


LOSS = torch.ones(2, 6)
SHORT = torch.linspace(0, 1, 16)
UNEVEN = torch.linspace(0, 1, 17) ** 2
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
WRONG = [
    (lambda: lsi(LOSS, LOSS, SHORT), "T is 16: the trapezoid rule needs at least 17 values of alpha"),
    (lambda: lsi(LOSS, LOSS, UNEVEN), "use a uniform grid"),
    (lambda: lsi(LOSS, LOSS, GRID + 0.1), "alphas start at 0.1: the integral goes from 0"),
    (lambda: lsi(LOSS, LOSS[:1], GRID), "the loss has shape [2, 6], g [1, 6]"),
    (lambda: lsi(LOSS[:0], LOSS[:0], GRID), "the loss has shape [0, 6]: at least one draw and one example"),
    (lambda: lsi(LOSS * math.nan, LOSS, GRID), "the loss is nan: every value is a finite number"),
    (lambda: on_average(torch.tensor([-1.0]), torch.ones(1), GRID), "b_w is -1: it is at least 0"),
    (lambda: on_average(torch.ones(1), torch.tensor([math.inf]), GRID), "g_w is inf: every value is a finite number"),
    (lambda: on_average(alphas=GRID), "b_w is not given: T2 takes each draw's mean loss b_w and mean squared gradient"),
    (lambda: on_average(torch.ones(1), None, GRID), "g_w is not given: T2 takes each draw's mean loss b_w"),
    (lambda: on_average(torch.ones(1), torch.ones(1)), "alphas is not given: T2 takes"),
    (lambda: comonotone(torch.tensor([-1.0]), GRID), "g is -1: it is at least 0"),
    (lambda: c_on_average(None, 1.0, 1.0, 10), "b is not given: the on-average bound is infinite without finite b"),
    (lambda: c_on_average(1.0, None, 1.0, 10), "g is not given: the on-average bound is infinite without finite b"),
    (lambda: c_on_average(math.inf, 1.0, 1.0, 10), "b is inf: the on-average bound is infinite without finite b and g"),
    (lambda: c_on_average(1.0, torch.tensor([1.0, math.nan]), 1.0, 10), "g is nan: the on-average bound is infinite"),
    (lambda: c_on_average(1.0, 1.0, 0.0, 10), "lambda is 0: it is positive and finite"),
    (lambda: c_on_average(1.0, 1.0, 1.0, 0), "m is 0: at least one example is needed"),
    (lambda: c_lipschitz(torch.ones(2), 0.0, 1.0, 10), "sigma_p is 0: it is positive and finite"),
    (lambda: c_lipschitz(torch.tensor([-1.0]), 1.0, 1.0, 10), "kappa is -1: it is at least 0"),
    (lambda: c_lipschitz(torch.tensor([[1.0, 1], [0, 1]]), 1.0, 1.0, 10), "Sigma is not symmetric"),
    (lambda: class_corrected(LOSS, LOSS, LABELS * 2, GRID), "class 1 has 0 examples: each class from 0 to the largest"),
    (lambda: class_corrected(LOSS, LOSS, torch.tensor([0, 0, 0, 0, 0, 1]), GRID), "class 1 has 1 examples"),
    (lambda: class_corrected(LOSS, LOSS, LABELS[:5], GRID), "labels of shape [5]"),
    (lambda: class_corrected(LOSS, LOSS, LABELS - 1, GRID), "give classes 0, 1, ..."),
    (lambda: class_corrected(LOSS, LOSS, LABELS.double(), GRID), "torch.float64"),
    (lambda: class_corrected(LOSS, LOSS, LABELS, SHORT), "T is 16"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_input(call, message: str) -> None:
    with pytest.raises(BoundError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
