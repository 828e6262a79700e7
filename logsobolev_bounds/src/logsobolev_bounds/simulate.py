"""Whether bounds hold, by simulation where the true risk is known (claim C6, section 3.6).

    python -m logsobolev_bounds.simulate --setting all

Coverage: samples are drawn again and again, and it is counted how often a bound at confidence delta lies below the true
risk. Settings that meet the conditions must stay below delta; flat classes with the pooled bound, and label noise with
the input's gradient alone, must not, for there the log-Sobolev inequality misses entropy.

Exponent identity: E_S E_w exp(lambda (L_D - L_S) - C) is 1 with the exact C, and at most 1 with a bound on it.

Variational formula (Donsker and Varadhan), on which every PAC-Bayes bound rests: E_q f <= KL(q || p) + ln E_p e^f, with
equality where q has the density e^f / E_p e^f by p.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from shared.errors import one_line_errors

from logsobolev_bounds import theory
from logsobolev_bounds.errors import BoundError, OneLineParser, confidence, positive, sample_size
from logsobolev_bounds.mgf import c_lipschitz, subgamma_fit
from logsobolev_bounds.synthetic import SyntheticLinReg

SETTINGS = ("flat_classes", "label_noise", "logistic", "donsker_varadhan")
BOLD = (2.0, 1.0)  # weights whose loss varies so much that C matters
MU, SIGMA_P, M = (1.0, 0.5), 0.3, 50  # of the logistic model in two dimensions
LAMBDAS = (2.0, 5.0, math.sqrt(M))


@dataclass(frozen=True)
class Coverage:
    """How often a bound lay below the true risk; `valid` says whether its conditions hold in the setting."""

    setting: str
    bound: str
    valid: bool
    violations: int
    replications: int
    delta: float

    @property
    def share(self) -> float:
        return self.violations / self.replications

    @property
    def holds(self) -> bool:
        """False where the share is above delta by more than 3 standard errors of a share of delta."""
        return self.share <= self.delta + 3 * math.sqrt(self.delta * (1 - self.delta) / self.replications)


class Exponent(NamedTuple):
    """Mean of exp(lambda (L_D - L_S) - C) over pairs (S, w), its standard error, and what it should be."""

    lam: float
    bound: str
    mean: float
    standard_error: float
    expected: float


def _count(
    setting: str, risk: float | np.ndarray, bounds: dict[str, tuple[bool, np.ndarray]], delta: float
) -> list[Coverage]:
    return [
        Coverage(setting, name, valid, int((value < risk).sum()), len(value), delta)
        for name, (valid, value) in bounds.items()
    ]


def flat_classes(
    replications: int = 2000,
    seed: int = 0,
    m: int = 200,
    delta: float = 0.05,
    pi: float = 0.5,
    lam: float | None = None,
) -> list[Coverage]:
    """One hypothesis whose loss is 0 on one class and 1 on the other: no input gradient, so the pooled C is 0.

    Args:
        pi: probability of the class with loss 1.
        lam: lambda, m unless given.

    Raises (as the other settings):
        BoundError: fewer than 1 replication, m < 1, delta outside (0, 1), lambda <= 0, a negative seed.
    """
    rng, lam = _checked(replications, seed, m, delta, float(m) if lam is None else lam)
    empirical = rng.binomial(m, pi, replications) / m
    at = theory.flat_classes(pi, 0.0, 1.0, lam / m)
    plain = empirical + math.log(1 / delta) / lam
    bounds = {
        "pooled": (False, plain + m * at.lsi_pooled / lam),
        "class_corrected": (True, plain + m * at.lsi_class_corrected / lam),
    }
    return _count("flat_classes", pi, bounds, delta)


def label_noise(
    replications: int = 2000,
    seed: int = 0,
    m: int = 200,
    delta: float = 0.05,
    noise_var: float = 1.0,
    lam: float | None = None,
) -> list[Coverage]:
    """Quadratic loss at the true weights: its input gradient is 0, its noise is not."""
    rng, lam = _checked(replications, seed, m, delta, float(m) if lam is None else lam)
    empirical = noise_var * rng.chisquare(m, replications) / (2 * m)
    at = theory.label_noise(noise_var, lam / m)
    plain = empirical + math.log(1 / delta) / lam
    bounds = {
        "input gradient only": (False, plain + m * at.lsi_input_gradient_only / lam),
        "full noise": (True, plain + m * at.lsi_full_noise / lam),
    }
    return _count("label_noise", noise_var / 2, bounds, delta)


def logistic(
    replications: int = 2000, seed: int = 0, m: int = M, delta: float = 0.05, lams: Sequence[float] = LAMBDAS[1:]
) -> list[Coverage]:
    """Logistic loss in two dimensions, y x ~ N(mu, I), and a Gaussian posterior around half the sample's mean of y x.

    Gibbs risks are by quadrature, over the posterior and, for the true one, over the margin. These bounds are so loose
    that no sample violates them. So one hypothesis by itself is there, too: a prior that is a point, lambda = m, no
    divergence; its bounds are sharp enough to be violated now and then, and without C often.
    """
    rng, _ = _checked(replications, seed, m, delta, min(lams, default=0.0))
    nodes, weights = _hermite(10)
    offsets = 0.2 * np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)  # posterior deviation 0.2
    pair = np.outer(weights, weights).ravel()
    empirical, true, kl = np.empty(replications), np.empty(replications), np.empty(replications)
    for i in range(replications):
        yx = np.array(MU) + rng.standard_normal((m, 2))
        mean = yx.mean(0) / 2
        w = mean + offsets
        empirical[i] = pair @ np.logaddexp(0, -w @ yx.T).mean(1)
        true[i] = pair @ _logistic_risk(w)
        kl[i] = 2 * (math.log(SIGMA_P / 0.2) - 0.5) + (2 * 0.2**2 + mean @ mean) / (2 * SIGMA_P**2)
    bounds = {}
    for lam in lams:
        at = theory.prior_c_logistic(MU, SIGMA_P, m, lam)
        for name in ("C_exact", "C_lsi", "C_lipschitz"):
            value = empirical + (kl + math.log(1 / delta) + getattr(at, name)) / lam
            bounds[f"{name}, lambda {lam:.3g}"] = (True, value)
    mean, std = float(np.dot(BOLD, MU)), math.hypot(*BOLD)
    one = theory.logistic_1d(mean, std, 1.0)
    losses = np.logaddexp(0, -(mean + std * rng.standard_normal((replications, m)))).mean(1) + math.log(1 / delta) / m
    alone = {
        "one w, psi exact": (True, losses + one.psi),
        "one w, lsi": (True, losses + one.lsi),
        "one w, C left out": (False, losses),
    }
    return _count("logistic", true, bounds, delta) + _count("logistic", one.risk, alone, delta)


def exponent_identity(
    pairs: int = 200_000,
    seed: int = 0,
    lams: Sequence[float] = LAMBDAS,
    mu: tuple[float, float] = MU,
    sigma_p: float = SIGMA_P,
    m: int = M,
    chunk: int = 20_000,
) -> list[Exponent]:
    """E_S E_w exp(lambda (L_D - L_S) - C) for the logistic model, from independent pairs (S, w); L_D by quadrature.

    The exact C and the one by the log-Sobolev inequality have pairs of their own: one is no copy of the other. The
    result does not depend on `chunk`, except for the rounding of sums.

    Raises:
        BoundError: fewer than 2 pairs, m < 1, lambda or sigma_p <= 0, a negative seed.
    """
    rng, _ = _checked(pairs, seed, m, 0.5, min(lams, default=0.0))
    if pairs < 2 or chunk < 1:
        raise BoundError(f"{pairs} pairs in chunks of {chunk}: a standard error needs 2 pairs, a chunk 1")
    known = [theory.prior_c_logistic(mu, sigma_p, m, lam) for lam in lams]
    exact = _exponents(rng, [(lam, at.C_exact) for lam, at in zip(lams, known)], pairs, mu, sigma_p, m, chunk)
    other = np.random.default_rng((seed, 1))
    bound = _exponents(other, [(lam, at.C_lsi) for lam, at in zip(lams, known)], pairs, mu, sigma_p, m, chunk)
    found = []
    for lam, at, *means in zip(lams, known, exact, bound):
        found.append(Exponent(lam, "C_exact", *means[0], 1.0))
        found.append(Exponent(lam, "C_lsi", *means[1], math.exp(at.C_exact - at.C_lsi)))
    return found


def _exponents(
    rng: np.random.Generator, cases: Sequence[tuple[float, float]], pairs: int, mu: tuple[float, float],
    sigma_p: float, m: int, chunk: int,
) -> list[tuple[float, float]]:  # fmt: skip
    """Mean and standard error of exp(lambda (L_D - L_S) - C) for each (lambda, C), all over the same pairs."""
    sums = np.zeros((2, len(cases)))
    for start in range(0, pairs, chunk):
        draws = rng.standard_normal((min(chunk, pairs - start), 2 + m))
        w = sigma_p * draws[:, :2]
        # y x ~ N(mu, I), so the margins of w are N(w'mu, |w|^2).
        margins = (w @ np.array(mu))[:, None] + np.hypot(*w.T)[:, None] * draws[:, 2:]
        gap = _logistic_risk(w, mu) - np.logaddexp(0, -margins).mean(1)
        for j, (lam, C) in enumerate(cases):
            value = np.exp(lam * gap - C)
            sums[:, j] += value.sum(), np.square(value).sum()
    mean = sums[0] / pairs
    error = np.sqrt(np.maximum(sums[1] / pairs - mean**2, 0) / (pairs - 1))
    return list(zip(mean.tolist(), error.tolist()))


class Variational(NamedTuple):
    """How far E_q f lies below KL(q || p) + ln E_p e^f.

    Args:
        at_best: at the posterior with the density e^f / E_p e^f, where it is 0 but for rounding.
        least: over random Gaussian posteriors; negative would contradict the formula.
        monte_carlo_z: ln E_p e^f from draws of p less its value, in standard errors.
    """

    at_best: float
    least: float
    monte_carlo_z: float


def donsker_varadhan(
    posteriors: int = 1000, draws: int = 100_000, seed: int = 0, n: int = 10, d: int = 2
) -> Variational:
    """The variational formula for f(w) = -n L_S(w), the log-likelihood of a linear regression on a drawn sample.

    ln E_p e^f is the log marginal likelihood, which comes from the examples' n x n covariance and not from weights.

    Raises:
        BoundError: fewer than 1 posterior or 2 draws, n or d < 1, a negative seed.
    """
    rng, _ = _checked(posteriors, seed, n, 0.5, 1.0)
    if draws < 2 or d < 1:
        raise BoundError(f"{draws} draws of {d} weights: a standard error needs 2 draws, a model 1 weight")
    scale, noise = 0.8, 0.9  # deviations of the prior and of the likelihood
    recipe = SyntheticLinReg(tuple(rng.standard_normal(d).tolist()), noise)
    examples, answers = recipe.sample(n, seed)
    known = theory.linear_regression(examples, answers, torch.tensor(recipe.w), scale, noise, noise)
    X, y, log_z = examples.numpy(), answers.numpy(), known.log_marginal
    constant = n * math.log(2 * math.pi * noise**2) / 2

    def gap(mean: np.ndarray, cov: np.ndarray) -> float:
        f = -(np.square(y - X @ mean).sum() + np.einsum("ij,jk,ik->", X, cov, X)) / (2 * noise**2) - constant
        kl = (np.trace(cov) + mean @ mean) / scale**2 - d - np.linalg.slogdet(cov / scale**2)[1]
        return float(kl / 2 + log_z - f)

    best_cov = np.linalg.inv(X.T @ X / noise**2 + np.eye(d) / scale**2)
    best = best_cov @ X.T @ y / noise**2
    gaps = []
    for _ in range(posteriors):
        root = rng.standard_normal((d, d)) * rng.uniform(0.01, 1)
        gaps.append(
            gap(best + rng.uniform(0, 1) * rng.standard_normal(d), best_cov * rng.uniform(0.2, 1) + root @ root.T)
        )
    w = scale * rng.standard_normal((draws, d))
    likelihood = np.exp(-np.square(y - w @ X.T).sum(1) / (2 * noise**2) - constant - log_z)
    z = (likelihood.mean() - 1) / (likelihood.std(ddof=1) / math.sqrt(draws))
    return Variational(gap(best, best_cov), min(gaps), float(z))


class LinearModel(NamedTuple):
    """The binary linear model's C against lambda: its sub-gamma fit, and how far its closed bound lies above it.

    Args:
        v, c, rms: of the fit. slack: the least of ln(C_lipschitz / C_exact) over lambda, at least 0 if it is a bound.
    """

    v: float
    c: float
    rms: float
    slack: float


def linear_model(points: int = 8, largest: float = 0.9) -> LinearModel:
    """Whether C of a linear model with logistic loss is sub-gamma: exact, by quadrature (section 3.5).

    Args:
        points: lambdas, evenly up to `largest` of sqrt(m) / sigma_p, where the closed bound ends.
    """
    lams = largest * math.sqrt(M) / SIGMA_P * torch.arange(1, points + 1, dtype=torch.float64) / points
    exact = theory.prior_c_logistic_exact(MU, SIGMA_P, M, lams)
    fit, closed = subgamma_fit(lams, exact), c_lipschitz(torch.ones(2), SIGMA_P, lams, M)
    return LinearModel(fit.v, fit.c, fit.rms, float((closed / exact).log().min()))


def _hermite(order: int) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Gauss-Hermite nodes of a standard normal variable, and weights of sum 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    return nodes, weights / weights.sum()


def _logistic_risk(w: Float[np.ndarray, "W 2"], mu: tuple[float, float] = MU) -> Float[np.ndarray, " W"]:
    """L_D of the logistic loss; 40 nodes give 2e-9 up to |w| = 2, where 6 sigma_p end."""
    nodes, weights = _hermite(40)
    risk: np.ndarray = np.logaddexp(0, -((w @ np.array(mu))[:, None] + np.hypot(*w.T)[:, None] * nodes)) @ weights
    return risk


def _checked(replications: int, seed: int, m: int, delta: float, lam: float) -> tuple[np.random.Generator, float]:
    if replications < 1:
        raise BoundError(f"{replications} replications: at least 1 is needed")
    if seed < 0:
        raise BoundError(f"seed is {seed}: it is 0 or more")
    sample_size("m", m), confidence("delta", delta)
    return np.random.default_rng(seed), float(positive("lambda", lam))


def coverage(setting: str, replications: int = 2000, seed: int = 0, delta: float = 0.05) -> list[Coverage]:
    """Every bound of a setting, or of `all`; `donsker_varadhan` has none.

    Raises:
        BoundError: an unknown setting (the known are listed), or what the settings refuse.
    """
    simulations: dict[str, Callable[..., list[Coverage]]] = {
        "flat_classes": flat_classes,
        "label_noise": label_noise,
        "logistic": logistic,
    }
    if setting not in (*SETTINGS, "all"):
        raise BoundError(f"unknown setting {setting!r}: there are {', '.join((*SETTINGS, 'all'))}")
    chosen = [simulate for name, simulate in simulations.items() if setting in (name, "all")]
    return [row for simulate in chosen for row in simulate(replications, seed, delta=delta)]


def main(argv: list[str] | None = None) -> int:
    """The command; 2 for input that is wrong, with one line that says how to mend it."""
    parser = OneLineParser(
        prog="python -m logsobolev_bounds.simulate", description="How often a bound lies below the risk."
    )
    parser.add_argument("--setting", default="all", metavar="|".join((*SETTINGS, "all")), help="what is simulated")
    parser.add_argument("--replications", type=int, default=2000, help="samples drawn (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: 0)")
    parser.add_argument("--delta", type=float, default=0.05, help="confidence of every bound (default: 0.05)")
    with one_line_errors():
        options = parser.parse_args(argv)
        found = coverage(options.setting, options.replications, options.seed, options.delta)
        console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
        table = Table(
            "setting", "bound", "conditions", title=f"{options.replications:,} samples, delta {options.delta}"
        )
        for column in ("below the risk", "verdict"):
            table.add_column(column, justify="right")
        for row in found:
            table.add_row(
                row.setting, row.bound, "met" if row.valid else "not met", f"{100 * row.share:.2f}%",
                "holds" if row.holds else "violated",
            )  # fmt: skip
        if found:
            console.print(table)
        if options.setting in ("donsker_varadhan", "all"):
            formula = donsker_varadhan(options.replications, seed=options.seed)
            table = Table(title=f"KL + ln E_p e^f - E_q f over {options.replications:,} Gaussian posteriors", box=None)
            table.add_row("at the best posterior", f"{formula.at_best:.1e}")
            table.add_row("least of the others", f"{formula.least:.5f}")
            table.add_row("ln E_p e^f by sampling, standard errors off", f"{formula.monte_carlo_z:.2f}")
            console.print(table)
        if options.setting in ("logistic", "all"):
            pairs = max(2, 10 * options.replications)
            table = Table("lambda", "C", title=f"E exp(lambda (L_D - L_S) - C), {pairs:,} pairs of sample and weights")
            for column in ("mean", "standard error", "expected"):
                table.add_column(column, justify="right")
            for it in exponent_identity(pairs, options.seed):
                table.add_row(
                    f"{it.lam:.3g}", it.bound, f"{it.mean:.5f}", f"{it.standard_error:.5f}", f"{it.expected:.5f}"
                )
            console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
