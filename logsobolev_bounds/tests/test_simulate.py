"""Coverage where the conditions hold, and none where they do not; the exponent identity; the command."""

from __future__ import annotations

import math

import numpy as np
import pytest
from logsobolev_bounds.errors import BoundError
from scipy.stats import binom, chi2

from logsobolev_bounds import simulate


def near(share: float, expected: float, replications: int) -> bool:
    return abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / replications)


def test_flat_classes_break_the_pooled_bound_only() -> None:
    """36.2% of samples, against 5% allowed: the binomial distribution says the same without a simulation."""
    pooled, corrected = simulate.flat_classes(20_000, seed=1)
    expected = float(binom.cdf(math.ceil(200 * (0.5 - math.log(20) / 200)) - 1, 200, 0.5))
    assert expected == pytest.approx(0.362, abs=5e-4)
    assert near(pooled.share, expected, 20_000)
    assert (pooled.valid, pooled.holds, corrected.valid, corrected.holds) == (False, False, True, True)
    assert corrected.share < 1e-3


def test_label_noise_breaks_the_noise_blind_bound_only() -> None:
    """39.4%, by the chi-square distribution."""
    blind, full = simulate.label_noise(20_000, seed=1)
    expected = float(chi2.cdf(200 - 2 * math.log(20), 200))
    assert expected == pytest.approx(0.394, abs=5e-4)
    assert near(blind.share, expected, 20_000)
    assert (blind.valid, blind.holds, full.valid, full.holds) == (False, False, True, True)
    assert full.violations == 0


def test_logistic_bounds_hold() -> None:
    rows = simulate.logistic(300, seed=0)
    assert len(rows) == 6
    assert all(row.valid and row.violations == 0 for row in rows)


def test_a_bound_holds_that_fails_no_more_often_than_it_said() -> None:
    """The verdict is against delta: almost half of the samples may fail at delta = 0.999."""
    found = simulate.flat_classes(2000, seed=0, delta=0.999)
    assert found[0].violations > 700
    assert found[0].holds


def test_exponent_identity() -> None:
    """1 with the exact C, at most 1 with T1's, both within 4 standard errors; in chunks as in one piece."""
    found = simulate.exponent_identity(20_000, seed=0)
    assert [it.bound for it in found] == ["C_exact", "C_lsi"] * 3
    for it in found:
        assert abs(it.mean - it.expected) < 4 * it.standard_error
        assert it.standard_error < 0.002
        assert it.expected <= 1
    expected = [it.expected for it in found if it.bound == "C_lsi"]
    assert expected == pytest.approx([0.99994, 0.99962, 0.99922], abs=5e-6)
    pieces = simulate.exponent_identity(20_000, seed=0, chunk=777)
    assert [it.mean for it in pieces] == pytest.approx([it.mean for it in found], rel=1e-12)
    # A wrong C shows: without one the mean is e^C, 12 and 25 thousandths above 1 at the larger lambdas.
    for it, C in zip(found[2::2], (0.0121, 0.0244)):
        assert abs(it.mean * math.exp(C) - 1) > 4 * it.standard_error


def test_the_risk_quadrature() -> None:
    w = 0.3 * np.random.default_rng(0).standard_normal((3, 2))
    margins = np.random.default_rng(1).standard_normal((400_000, 2)) + simulate.MU
    sampled = np.logaddexp(0, -(margins @ w.T)).mean(0)
    assert simulate._logistic_risk(w) == pytest.approx(sampled, abs=4 * 0.5 / 400_000**0.5)


def test_seeds_repeat() -> None:
    assert simulate.coverage("label_noise", 500, 3) == simulate.coverage("label_noise", 500, 3)
    assert simulate.coverage("label_noise", 500, 3) != simulate.coverage("label_noise", 500, 4)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--setting", "flat_classes", "--replications", "2000", "--seed", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = {line.split("│")[2].strip(): line for line in lines if line.startswith("│")}
    assert "violated" in row["pooled"]
    assert "not met" in row["pooled"]
    assert "holds" in row["class_corrected"]
    assert simulate.main(["--replications", "50"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*simulate.SETTINGS, "C_lipschitz, lambda 7.07", "500 pairs", "C_exact"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--setting", "flat"], "unknown setting 'flat': there are flat_classes, label_noise, logistic, all"),
        (["--replications", "0"], "0 replications: at least 1 is needed"),
        (["--replications", "x"], "argument --replications: invalid int value: 'x'"),
        (["--seed", "-1"], "seed is -1: it is 0 or more"),
        (["--delta", "1"], "delta is 1: it is a probability of failure, in (0, 1)"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        simulate.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_wrong_input() -> None:
    for call, message in (
        (lambda: simulate.flat_classes(10, m=0), "m is 0: at least one example is needed"),
        (lambda: simulate.label_noise(10, lam=-1.0), "lambda is -1: it is positive and finite"),
        (lambda: simulate.logistic(10, lams=()), "lambda is 0: it is positive and finite"),
        (lambda: simulate.exponent_identity(1), "1 pairs in chunks of 20000: a standard error needs 2 pairs"),
    ):
        with pytest.raises(BoundError) as caught:
            call()
        assert message in str(caught.value)
