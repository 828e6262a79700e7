"""Coverage where the conditions hold, and none where they do not; the exponent identity; the command."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
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
    assert [row.valid for row in rows] == [True] * 8 + [False]
    assert all(row.holds for row in rows[:8])
    assert all(row.violations == 0 for row in rows[:6])  # too loose to fail: the last three can


def test_a_hypothesis_by_itself_needs_its_c() -> None:
    """As often as samples of another generator and a risk of ten million of them say: 1 %, none, and a quarter."""
    exact, lsi, without = (row for row in simulate.logistic(3000, seed=2) if row.bound.startswith("one w"))
    mean, std = 2.5, math.sqrt(5)
    generator = torch.Generator().manual_seed(0)
    margins = mean + std * torch.randn(10**7, generator=generator, dtype=torch.float64)
    loss = torch.nn.functional.softplus(-margins)
    empirical, risk = loss.view(-1, 50).mean(1), loss.mean()
    psi = (-loss).exp().mean().log() + risk  # alpha = lambda / m = 1
    for row, C in ((exact, psi), (without, 0.0)):
        share = (empirical + math.log(20) / 50 + C < risk).double().mean().item()
        assert near(row.share, share, 3000), (row, share)
    assert lsi.share <= exact.share < 0.05 < 0.15 < without.share
    assert exact.violations > 0
    assert (exact.holds, lsi.holds, without.holds) == (True, True, False)


def test_a_bound_holds_that_fails_no_more_often_than_it_said() -> None:
    """The verdict is against delta: almost half of the samples may fail at delta = 0.999."""
    found = simulate.flat_classes(2000, seed=0, delta=0.999)
    assert found[0].violations > 700
    assert found[0].holds


def test_exponent_identity() -> None:
    """1 with the exact C, less by a known factor with T1's, from pairs of their own; in chunks as in one piece."""
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
    ratios = [lsi.mean / exact.mean for exact, lsi in zip(found[::2], found[1::2])]
    assert all(abs(ratio - e) > 1e-6 for ratio, e in zip(ratios, expected))  # of other pairs: no copy of the first
    # Half the C of the inequality, as a wrong constant in it would give, is seen at the two larger lambdas.
    for it, C in zip(found[3::2], (0.0125, 0.0252)):
        assert it.mean * math.exp(C / 2) - 1 > 3 * it.standard_error
    # A wrong C shows: without one the mean is e^C, 12 and 25 thousandths above 1 at the larger lambdas.
    for it, C in zip(found[2::2], (0.0121, 0.0244)):
        assert abs(it.mean * math.exp(C) - 1) > 4 * it.standard_error


def test_the_variational_formula() -> None:
    """Equality at the posterior that the formula names, at no other; and what it needs of E_p e^f, by sampling."""
    for seed in range(3):
        found = simulate.donsker_varadhan(300, 50_000, seed)
        assert found.at_best == pytest.approx(0, abs=1e-12)
        assert found.least > 1e-5
        assert abs(found.monte_carlo_z) < 4
    wider = simulate.donsker_varadhan(300, 50_000, 0, n=7, d=1)
    assert (wider.at_best, wider.least > 0) == (pytest.approx(0, abs=1e-12), True)


def test_a_linear_model_is_sub_gamma() -> None:
    """Exactly, and below the closed bound that says so."""
    found = simulate.linear_model()
    assert 0 < found.c < simulate.SIGMA_P / math.sqrt(simulate.M)
    assert found.rms < 0.02
    assert found.slack > 1


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
    assert simulate.main(["--setting", "donsker_varadhan", "--replications", "50"]) == 0
    out = capsys.readouterr().out
    assert "at the best posterior" in out
    assert "met" not in out
    assert simulate.main(["--replications", "50"]) == 0
    out = capsys.readouterr().out
    assert all(
        name in out
        for name in (*simulate.SETTINGS[:3], "over 50 Gaussian", "C_lipschitz, lambda 7.07", "500 pairs", "C_exact")
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--setting", "flat"],
            "unknown setting 'flat': there are flat_classes, label_noise, logistic, donsker_varadhan, all",
        ),
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
        (lambda: simulate.donsker_varadhan(0), "0 replications: at least 1 is needed"),
        (lambda: simulate.donsker_varadhan(5, 1), "1 draws of 2 weights: a standard error needs 2 draws"),
        (lambda: simulate.exponent_identity(1), "1 pairs in chunks of 20000: a standard error needs 2 pairs"),
    ):
        with pytest.raises(BoundError) as caught:
            call()
        assert message in str(caught.value)
