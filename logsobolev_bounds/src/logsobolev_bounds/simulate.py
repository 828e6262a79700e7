"""Whether bounds hold, by simulation where the true risk is known (claim C6, section 3.6).

    python -m logsobolev_bounds.simulate --setting all

Coverage: samples are drawn again and again, and it is counted how often a bound at confidence delta lies below the true
risk. Settings that meet the conditions must stay below delta; flat classes with the pooled bound, and label noise with
the input's gradient alone, must not, for there the log-Sobolev inequality misses entropy.

Exponent identity: E_S E_w exp(lambda (L_D - L_S) - C) is 1 with the exact C, and at most 1 with a bound on it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from shared.errors import one_line_errors

from logsobolev_bounds import theory
from logsobolev_bounds.errors import BoundError, confidence, positive, sample_size

SETTINGS = ("flat_classes", "label_noise", "logistic")
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

    Gibbs risks are by quadrature, over the posterior and, for the true one, over the margin.
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
    return _count("logistic", true, bounds, delta)


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

    The result does not depend on `chunk`, except for the rounding of sums.

    Raises:
        BoundError: fewer than 2 pairs, m < 1, lambda or sigma_p <= 0, a negative seed.
    """
    rng, _ = _checked(pairs, seed, m, 0.5, min(lams, default=0.0))
    if pairs < 2 or chunk < 1:
        raise BoundError(f"{pairs} pairs in chunks of {chunk}: a standard error needs 2 pairs, a chunk 1")
    known = [theory.prior_c_logistic(mu, sigma_p, m, lam) for lam in lams]
    sums = np.zeros((2, len(lams)))
    for start in range(0, pairs, chunk):
        draws = rng.standard_normal((min(chunk, pairs - start), 2 + m))
        w = sigma_p * draws[:, :2]
        # y x ~ N(mu, I), so the margins of w are N(w'mu, |w|^2).
        margins = (w @ np.array(mu))[:, None] + np.hypot(*w.T)[:, None] * draws[:, 2:]
        gap = _logistic_risk(w, mu) - np.logaddexp(0, -margins).mean(1)
        for j, (lam, at) in enumerate(zip(lams, known)):
            value = np.exp(lam * gap - at.C_exact)
            sums[:, j] += value.sum(), np.square(value).sum()
    mean = sums[0] / pairs
    error = np.sqrt(np.maximum(sums[1] / pairs - mean**2, 0) / (pairs - 1))
    found = []
    for j, (lam, at) in enumerate(zip(lams, known)):
        for name, expected in (("C_exact", 1.0), ("C_lsi", math.exp(at.C_exact - at.C_lsi))):
            found.append(Exponent(lam, name, float(mean[j]) * expected, float(error[j]) * expected, expected))
    return found


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
    """Every bound of a setting, or of `all`.

    Raises:
        BoundError: an unknown setting (the known are listed), or what the settings refuse.
    """
    simulations: dict[str, Callable[..., list[Coverage]]] = {
        "flat_classes": flat_classes,
        "label_noise": label_noise,
        "logistic": logistic,
    }
    if setting not in (*simulations, "all"):
        raise BoundError(f"unknown setting {setting!r}: there are {', '.join((*simulations, 'all'))}")
    chosen = simulations if setting == "all" else {setting: simulations[setting]}
    return [row for simulate in chosen.values() for row in simulate(replications, seed, delta=delta)]


class _Parser(argparse.ArgumentParser):
    """One line for a wrong argument, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise BoundError(message)


def main(argv: list[str] | None = None) -> int:
    """The command; 2 for input that is wrong, with one line that says how to mend it."""
    parser = _Parser(prog="python -m logsobolev_bounds.simulate", description="How often a bound lies below the risk.")
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
