"""Cases that are solved exactly: every key of their golden files, and the statements that they illustrate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from logsobolev_bounds.errors import BoundError
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from logsobolev_bounds import theory


def test_logistic_1d_is_golden(golden) -> None:
    rows = golden("logistic_1d.json")
    assert len(rows) == 25
    for row in rows:
        found = theory.logistic_1d(row["margin_mean"], row["margin_std"], row["alpha"])._asdict()
        assert set(row) == {*found, "margin_mean", "margin_std", "alpha"}
        for key, value in found.items():
            assert value == pytest.approx(row[key], rel=1e-7), key
        assert 0 <= found["psi"] <= found["lsi"] <= found["comonotone"] <= found["lipschitz"]
        assert found["lsi"] <= found["on_average"]


@pytest.mark.parametrize(("mean", "std"), [(0.0, 20.0), (-3.0, 50.0)])
def test_margins_far_wider_than_the_loss_bends(mean: float, std: float) -> None:
    """Against adaptive quadrature over both sides of the bend."""

    def expected(f: Callable[[float], float]) -> float:
        inner = {"epsabs": 0, "epsrel": 1e-12, "limit": 500, "points": [-20.0, 0.0, 20.0]}
        return float(quad(lambda t: f(t) * norm.pdf(t, mean, std), mean - 9.5 * std, mean + 9.5 * std, **inner)[0])

    found = theory.logistic_1d(mean, std, 0.7)
    assert found.risk == pytest.approx(expected(lambda t: np.logaddexp(0, -t)), rel=1e-9)
    assert found.grad_sq == pytest.approx(expected(lambda t: (std * expit(-t)) ** 2), rel=1e-9)
    log_m = math.log(expected(lambda t: np.exp(-0.7 * np.logaddexp(0, -t))))
    assert found.psi == pytest.approx(log_m + 0.7 * found.risk, rel=1e-9)


def test_quadratic_is_golden(golden) -> None:
    for row in golden("quadratic.json"):
        found = theory.quadratic(row["resid_var"], row["alpha"])._asdict()
        assert set(row) == {*found, "resid_var", "alpha"}
        for key, value in found.items():
            assert value == pytest.approx(row[key], rel=1e-9), key


def test_quadratic_by_quadrature() -> None:
    """The closed forms against the integrals that they are."""
    v, alpha = 0.7, 1.3
    one = torch.ones(1, dtype=torch.float64)
    s, w = theory.legendre(0, alpha, 1, 30)
    at = theory.gaussian_margin(
        lambda t: t.square() / 2, lambda t: t, 0 * one, math.sqrt(v) * one, torch.cat([s, alpha * one])
    )
    closed = theory.quadratic(v, alpha)
    assert float(at.risk) == pytest.approx(closed.risk, rel=1e-12)
    assert float(at.grad_sq) == pytest.approx(closed.grad_sq_full, rel=1e-12)
    assert float(at.psi[0, -1]) == pytest.approx(closed.psi, rel=1e-11)
    assert float(alpha / 2 * at.G[0, :-1] @ w) == pytest.approx(closed.lsi_full_noise, rel=1e-11)


@pytest.fixture(scope="module")
def prior_c(golden) -> list[tuple[dict, theory.PriorC]]:
    rows = golden("prior_C.json")
    return [(row, theory.prior_c_logistic(tuple(row["mu"]), row["sigma_p"], row["m"], row["lam"])) for row in rows]


def test_prior_c_is_golden(prior_c) -> None:
    assert len(prior_c) == 6
    for row, found in prior_c:
        assert set(row) == {*found._fields, "mu", "sigma_p", "m", "lam", "abs_diff_between_resolutions"}
        for key, value in found._asdict().items():
            # Infinite there: null.
            expected = math.inf if row[key] is None else row[key]
            assert value == pytest.approx(expected, rel=0, abs=1e-7), key
        # What the file itself knows: two resolutions of its quadrature agree to 6e-8.
        assert max(row["abs_diff_between_resolutions"]) < 1e-7


def test_the_on_average_bound_of_a_truncated_prior_grows_without_limit() -> None:
    """The specification's numbers, section 3.4; T1 of the whole prior stays at 0.6177."""
    lam = math.sqrt(50)
    found = {r: theory.prior_c_logistic_truncated((1.0, 0.5), 1.0, 50, lam, r) for r in (8, 10, 12)}
    assert {r: round(c) for r, c in found.items()} == {8: 21, 10: 55, 12: 120}
    whole = theory.prior_c_logistic((1.0, 0.5), 1.0, 50, lam)
    assert whole.C_lsi == pytest.approx(0.6177, abs=5e-5)
    # Truncated where nothing is cut off that counts, T2 of few examples lies above T1 and the exact C.
    few = theory.prior_c_logistic_truncated((1.0, 0.5), 0.3, 50, 2.0, 6)
    exact = theory.prior_c_logistic((1.0, 0.5), 0.3, 50, 2.0)
    assert exact.C_exact < exact.C_lsi < few < 1.2 * exact.C_lsi


@pytest.mark.parametrize("radius", [0.0, -1.0, math.inf, math.nan])
def test_a_prior_is_truncated_at_a_positive_radius(radius: float) -> None:
    with pytest.raises(ValueError, match="radius"):
        theory.prior_c_logistic_truncated((1.0, 0.5), 1.0, 50, 2.0, radius)


def test_the_exact_prior_c_of_many_lambdas_is_that_of_each(golden) -> None:
    rows = [row for row in golden("prior_C.json") if (row["sigma_p"], row["m"]) == (0.3, 50)]
    lams = torch.tensor([row["lam"] for row in rows], dtype=torch.float64)
    assert len(lams) > 1
    found = theory.prior_c_logistic_exact(tuple(rows[0]["mu"]), 0.3, 50, lams)
    assert found.tolist() == pytest.approx([row["C_exact"] for row in rows], rel=0, abs=1e-7)


def test_prior_c_is_between_its_wrong_formulas_and_its_bounds(prior_c) -> None:
    """The power inside is more than Jensen's inequality leaves, in every row by more than the quadrature's error."""
    for _, found in prior_c:
        assert found.wrong_mean_of_exponent < found.wrong_inner_expectation < found.C_exact - 1e-6
        assert found.C_exact < found.C_lsi < found.C_lipschitz


def test_prior_c_grows_with_lambda_and_is_convex() -> None:
    lams = [0.5, 2.0, 3.5, 5.0]
    found = [theory.prior_c_logistic((1.0, 0.5), 0.3, 50, lam) for lam in lams]
    for key in ("C_exact", "C_lsi", "C_lipschitz"):
        values = torch.tensor([getattr(it, key) for it in found])
        assert (values.diff() > 0).all()
    assert (torch.tensor([it.C_exact for it in found], dtype=torch.float64).diff(n=2) > 0).all()


def test_linear_regression_is_golden(golden) -> None:
    row, data = golden("linreg.json"), golden("linreg_data.npz")
    X, y, w_true = (data[key] for key in ("X", "y", "w_true"))
    assert (tuple(X.shape), float(w_true.norm())) == ((row["n"], row["d"]), pytest.approx(row["w_norm"], rel=1e-12))
    found = theory.linear_regression(X, y, w_true, row["sigma_prior"], row["sigma_lik"], row["noise"])
    assert set(row) == {*found._fields, "d", "n", "w_norm", "sigma_prior", "sigma_lik", "noise", "C"}
    for key, value in found._asdict().items():
        assert value == pytest.approx(row[key], rel=1e-8), key
    assert row["n"] * found.gibbs_nll + found.kl == pytest.approx(-found.log_marginal, rel=1e-12)


def test_linear_regression_c_is_golden(golden) -> None:
    row = golden("linreg.json")
    fixed = (row["d"], row["w_norm"], row["sigma_prior"], row["sigma_lik"], row["noise"])
    for case in row["C"]:
        found = theory.linear_regression_c(*fixed, case["m"], case["lam"])
        assert set(case) == {*found._fields, "m", "lam"}
        for key, value in found._asdict().items():
            assert value == pytest.approx(case[key], rel=1e-7), key
        assert found.wrong_inner_expectation < found.C_exact < found.C_lsi_truncated


def test_counterexamples_are_golden(golden) -> None:
    """Where psi is positive and the bound with the input's gradient alone is 0."""
    kinds = set()
    for row in golden("counterexamples.json"):
        kinds.add(row["kind"])
        if row["kind"] == "flat_classes":
            found = theory.flat_classes(row["pi"], row["loss0"], row["loss1"], row["alpha"])._asdict()
            assert set(row) == {*found, "kind", "pi", "loss0", "loss1", "alpha"}
        else:
            found = theory.label_noise(row["noise_var"], row["alpha"])._asdict()
            assert set(row) == {*found, "kind", "noise_var", "alpha"}
        for key, value in found.items():
            assert value == pytest.approx(row[key], rel=1e-12), key
        assert found["psi"] > 0
    assert kinds == {"flat_classes", "label_noise_at_w_star"}


def test_relu_prior_is_golden(golden) -> None:
    for row in golden("relu_prior.json"):
        found = theory.relu_prior_grad_sq(row["d"], row["h"], row["hidden_layers"], row["sigma_p"])
        assert found == pytest.approx(row["E_sq_grad_one_logit"], rel=1e-12)
        assert theory.critical_sigma(row["h"]) == pytest.approx(row["critical_sigma"], rel=1e-12)
        assert set(row) == {"d", "h", "hidden_layers", "sigma_p", "E_sq_grad_one_logit", "critical_sigma"}
        assert theory.relu_prior_loss_grad_sq(
            row["d"], row["h"], row["hidden_layers"], row["sigma_p"], 10
        ) == pytest.approx(0.9 * found)


@pytest.mark.parametrize(("d", "h", "layers", "sigma_p"), [(64, 64, 0, 0.1), (64, 64, 3, 0.1), (30, 20, 2, 0.5)])
def test_relu_prior_by_simulation(d: int, h: int, layers: int, sigma_p: float) -> None:
    """Within 4 standard errors; by autograd, which knows nothing of the formula."""
    generator = torch.Generator().manual_seed(0)
    sizes = [d, *[h] * layers]
    values = []
    for _ in range(200):
        x = torch.randn(d, generator=generator).requires_grad_()
        a = x
        for i, o in itertools.pairwise(sizes):
            a = torch.relu(a @ (sigma_p * torch.randn(i, o, generator=generator)))
        logit = a @ (sigma_p * torch.randn(sizes[-1], generator=generator))
        values.append(torch.autograd.grad(logit, x)[0].square().sum())
    found = torch.stack(values).double()
    error = float(found.std() / len(found) ** 0.5)
    assert abs(float(found.mean()) - theory.relu_prior_grad_sq(d, h, layers, sigma_p)) < 4 * error


def test_the_critical_sigma_keeps_the_gradient() -> None:
    at = [theory.relu_prior_grad_sq(64, 50, layers, theory.critical_sigma(50)) for layers in (0, 5, 20)]
    assert at == pytest.approx([at[0]] * 3)
    assert theory.relu_prior_grad_sq(64, 50, 5, 0.1) < theory.relu_prior_grad_sq(64, 50, 4, 0.1)
    assert theory.relu_prior_grad_sq(64, 50, 5, 0.3) > theory.relu_prior_grad_sq(64, 50, 4, 0.3)


X = torch.ones(4, 2)
WRONG = [
    (lambda: theory.logistic_1d(0.0, 0.0, 1.0), "margin_std is 0: it is positive and finite"),
    (lambda: theory.logistic_1d(0.0, 1.0, -1.0), "alpha is -1: it is positive and finite"),
    (lambda: theory.quadratic(0.0, 1.0), "resid_var is 0: it is positive and finite"),
    (lambda: theory.prior_c_logistic((1.0, 0.5), 0.0, 50, 2.0), "sigma_p is 0: it is positive and finite"),
    (lambda: theory.prior_c_logistic((1.0, 0.5), 0.3, 0, 2.0), "m is 0: at least one example is needed"),
    (lambda: theory.linear_regression(X, torch.ones(3), torch.ones(2), 1, 1, 1), "give [n, d], [n] and [d]"),
    (lambda: theory.linear_regression(X * math.nan, torch.ones(4), torch.ones(2), 1, 1, 1), "X is nan: every value"),
    (lambda: theory.linear_regression_c(20, 0.5, 0.1, 1.4, 0.3, 120, 0.0), "lambda is 0: it is positive and finite"),
    (lambda: theory.flat_classes(1.5, 0.0, 1.0, 1.0), "pi is 1.5: it lies in [0, 1]"),
    (lambda: theory.relu_prior_grad_sq(0, 5, 1, 0.1), "d = 0, h = 5, 1 hidden layers: sizes are at least 1"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_input(call, message: str) -> None:
    with pytest.raises(BoundError) as caught:
        call()
    assert message in str(caught.value)
