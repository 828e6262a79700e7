"""The bounds: golden values, monotonicity, and one line for every input without a bound."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logsobolev_bounds.bounds import classical
from logsobolev_bounds.errors import BoundError

from logsobolev_bounds import bounds

SCALAR = {
    "complexity_over_n": lambda r: bounds.complexity(r["kl"], r["n"], r["delta"]),
    "maurer_pinsker": lambda r: bounds.maurer_pinsker(r["emp_risk"], r["kl"], r["n"], r["delta"]),
    "quad": lambda r: bounds.quadratic(r["emp_risk"], r["kl"], r["n"], r["delta"]),
    "elbo": lambda r: bounds.elbo(r["emp_risk"], r["kl"], r["n"]),
    "lambda": lambda r: bounds.lambda_bound(r["emp_risk"], r["kl"], r["n"], r["delta"], r["lambda_param"]),
    "catoni": lambda r: bounds.catoni(r["emp_risk"], r["kl"], r["n"], r["delta"], r["catoni_lam"]),
    "hoeffding_alquier": lambda r: bounds.alquier_bounded(
        r["emp_risk"], r["kl"], r["n"], r["delta"], r["hoeffding_lam"], r["hoeffding_B"]
    ),
    "lsi": lambda r: bounds.pac_bayes_mgf(r["emp_risk"], r["kl"], r["lsi_C"], r["lsi_lam"], r["delta"]),
}
INVERSES = {
    "kl_inv_upper": (lambda r: bounds.seeger(r["emp_risk"], r["kl"], r["n"], r["delta"]), 1e-10),
    "kl_inv_lower": (lambda r: bounds.kl_inverse_lower(r["emp_risk"], r["complexity_over_n"]), 1e-10),
    "pbb_inv_kl": (lambda r: bounds.seeger(r["emp_risk"], r["kl"], r["n"], r["delta"]), 2e-5),
}
INPUTS = {"emp_risk", "kl", "n", "delta", "lambda_param", "catoni_lam", "hoeffding_B", "hoeffding_lam"}


def test_golden_scalars(golden) -> None:
    rows = golden("bounds.json")["scalar"]
    assert len(rows) == 17
    for row in rows:
        assert set(row) == {*SCALAR, *INVERSES, *INPUTS, "lsi_C", "lsi_lam"}
        for key, function in SCALAR.items():
            assert float(function(row)) == pytest.approx(row[key], rel=1e-9), key
        for key, (function, tolerance) in INVERSES.items():
            assert float(function(row)) == pytest.approx(row[key], rel=0, abs=tolerance), key


def test_golden_grids(golden) -> None:
    for row in golden("bounds.json")["grid"]:
        C, lams = (torch.tensor(row[key], dtype=torch.float64) for key in ("C", "lams"))
        found = bounds.lambda_grid(row["emp_risk"], row["kl"], C, lams, row["delta"])
        assert found.values.tolist() == pytest.approx(row["values"], rel=1e-12)
        assert float(found.best) == pytest.approx(row["best"], rel=1e-12)
        assert found.argmin == row["argmin"]
        assert found.lam == row["lams"][row["argmin"]]


def test_vectors_are_scalars_side_by_side(golden) -> None:
    rows = golden("bounds.json")["scalar"]
    q, kl, n, delta = (
        torch.tensor([row[k] for row in rows], dtype=torch.float64) for k in ("emp_risk", "kl", "n", "delta")
    )
    for name in ("maurer_pinsker", "seeger", "quadratic"):
        function = getattr(bounds, name)
        alone = [float(function(*it)) for it in zip(q.tolist(), kl.tolist(), n.tolist(), delta.tolist())]
        assert function(q, kl, n, delta).tolist() == alone


def test_the_optimal_lambda_of_the_bounded_loss() -> None:
    """The least over a fine grid of lambdas is the closed form."""
    q, kl, n, delta, B = 0.5, 300.0, 1200, 0.05, math.log(1e4)
    lams = torch.logspace(1, 4, 20_001, dtype=torch.float64)
    least = bounds.alquier_bounded(q, kl, n, delta, lams, B).min()
    assert float(least) == pytest.approx(float(bounds.alquier_optimal(q, kl, n, delta, B)), rel=1e-7)
    clipped = bounds.seeger_clipped(q, kl, n, delta, B)
    assert float(clipped) == pytest.approx(B * float(bounds.seeger(q / B, kl, n, delta)), rel=1e-12)
    assert float(bounds.seeger_clipped(B, kl, n, delta, B)) == pytest.approx(B)


RISK = st.floats(0, 1)
KL = st.floats(0, 1e5)
DELTA = st.floats(1e-6, 0.9)
ALL = {
    "maurer_pinsker": lambda q, kl, n, delta: bounds.maurer_pinsker(q, kl, n, delta),
    "seeger": lambda q, kl, n, delta: bounds.seeger(q, kl, n, delta),
    "quadratic": lambda q, kl, n, delta: bounds.quadratic(q, kl, n, delta),
    "lambda_bound": lambda q, kl, n, delta: bounds.lambda_bound(q, kl, n, delta, 0.7),
    "catoni": lambda q, kl, n, delta: bounds.catoni(q, kl, n, delta, 30.0),
    "alquier_bounded": lambda q, kl, n, delta: bounds.alquier_bounded(q, kl, n, delta, 30.0, 2.0),
    "alquier_optimal": lambda q, kl, n, delta: bounds.alquier_optimal(q, kl, n, delta, 2.0),
    "seeger_clipped": lambda q, kl, n, delta: bounds.seeger_clipped(q, kl, n, delta, 2.0),
    "pac_bayes_mgf": lambda q, kl, n, delta: bounds.pac_bayes_mgf(q, kl, 0.3, 30.0, delta),
}
SAME = 1 + 1e-12


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=50, deadline=None)
@given(q=RISK, kl=KL, more=st.floats(0, 100), n=st.integers(1, 10**6), larger=st.integers(0, 10**6), delta=DELTA)
def test_monotone(name: str, q: float, kl: float, more: float, n: int, larger: int, delta: float) -> None:
    """Up with KL, down with delta and n; Catoni at fixed lambda in n only while it is below 1."""
    bound = ALL[name]
    value = float(bound(q, kl, n, delta))
    assert value >= q / SAME
    assert float(bound(q, kl + more, n, delta)) >= value / SAME
    assert float(bound(q, kl, n, min(0.99, delta * 1.5))) <= value * SAME
    if name == "pac_bayes_mgf":
        assert float(bound(q, kl, n + larger, delta)) == value
    elif name != "catoni" or value < 1:
        assert float(bound(q, kl, n + larger, delta)) <= value * SAME


@settings(max_examples=50, deadline=None)
@given(q=RISK, kl=st.floats(0, 1e4), n=st.integers(8, 10**5), delta=DELTA)
def test_the_inverse_is_the_tightest_of_its_relaxations(q: float, kl: float, n: int, delta: float) -> None:
    seeger = float(bounds.seeger(q, kl, n, delta))
    for looser in (bounds.maurer_pinsker, bounds.quadratic):
        assert seeger <= float(looser(q, kl, n, delta)) + 1e-9
    for t in (0.1, 0.7, 1.9):
        assert seeger <= float(bounds.lambda_bound(q, kl, n, delta, t)) + 1e-9


def test_a_grid_pays_for_its_size() -> None:
    one = torch.tensor([1.0], dtype=torch.float64)
    single = bounds.lambda_grid(0.5, 10.0, 0.1 * one, 50 * one, 0.05)
    assert float(single.best) == float(bounds.pac_bayes_mgf(0.5, 10.0, 0.1, 50.0, 0.05))
    four = bounds.lambda_grid(0.5, 10.0, (0.1 * one).expand(4), (50 * one).expand(4), 0.05)
    assert float(four.best - single.best) == pytest.approx(math.log(4) / 50)
    assert float(bounds.pac_bayes_mgf(0.5, 1.0, math.inf, 2.0, 0.05)) == math.inf


WRONG = [
    (lambda: bounds.maurer_pinsker(0.1, 1.0, 0, 0.05), "n is 0: at least one example is needed"),
    (lambda: bounds.seeger(1.2, 1.0, 10, 0.05), "q is 1.2: it lies in [0, 1]; divide a loss in [0, B] by B"),
    (lambda: bounds.seeger(math.nan, 1.0, 10, 0.05), "q is nan: it lies in [0, 1]"),
    (lambda: bounds.quadratic(0.1, -1.0, 10, 0.05), "KL is -1: it is at least 0"),
    (lambda: bounds.quadratic(0.1, 1.0, 10, 1.0), "delta is 1: it is a probability of failure, in (0, 1)"),
    (lambda: bounds.quadratic(0.1, 1.0, 10, torch.tensor([0.1, 0.0])), "delta is 0: it is a probability"),
    (lambda: bounds.lambda_bound(0.1, 1.0, 10, 0.05, 2.0), "t is 2: it lies in (0, 2)"),
    (lambda: bounds.catoni(0.1, 1.0, 10, 0.05, 0.0), "lambda is 0: it is positive and finite"),
    (lambda: bounds.alquier_bounded(0.1, 1.0, 10, 0.05, -3.0, 1.0), "lambda is -3: it is positive and finite"),
    (lambda: bounds.alquier_bounded(3.0, 1.0, 10, 0.05, 3.0, 2.0), "q is 3, above B = 2: clip the loss at B"),
    (lambda: bounds.alquier_optimal(3.0, 1.0, 10, 0.05, 0.0), "B is 0: it is positive and finite"),
    (lambda: bounds.elbo(-0.1, 1.0, 10), "q is -0.1: it is at least 0"),
    (lambda: bounds.pac_bayes_mgf(0.1, 1.0, math.nan, 10, 0.05), "C is nan: it is a log-MGF"),
    (lambda: bounds.lambda_grid(0.1, 1.0, torch.zeros(0), torch.zeros(0), 0.05), "lambdas of shape [0] and C of [0]"),
    (lambda: bounds.lambda_grid(0.1, 1.0, torch.zeros(2), torch.ones(3), 0.05), "give one C for each of J >= 1"),
    (lambda: bounds.lambda_grid(0.1, 1.0, torch.zeros(2), torch.zeros(2), 0.05), "lambda is 0: it is positive"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_inputs_without_a_bound(call, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert isinstance(caught.value, BoundError)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_bound_is_public() -> None:
    defined = {name for name, it in vars(classical).items() if getattr(it, "__module__", "") == classical.__name__}
    assert {name for name in defined if not name.startswith("_")} <= set(bounds.__all__)
