"""Medians of escape times, and ratios of them, with 95 % bootstrap intervals over seeds.

A run that never escapes counts with an infinite time: a median is infinite where half of the runs never do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate, and the bounds of its interval."""

    value: float
    low: float
    high: float


def medians(times: Float[np.ndarray, " seeds"], rng: np.random.Generator) -> Float[np.ndarray, " resamples"]:
    """The median of each resample of the seeds: of an even number the lower middle, so that never stays never."""
    drawn = rng.integers(0, len(times), (RESAMPLES, len(times)))
    return np.sort(times[drawn], axis=1)[:, (len(times) - 1) // 2]


def _interval(value: float, resampled: Float[np.ndarray, " resamples"]) -> Interval:
    ordered = np.sort(resampled)  # inverse of the empirical distribution: infinite values sort like others
    tail = (1 - LEVEL) / 2
    low, high = (ordered[round(q * (len(ordered) - 1))] for q in (tail, 1 - tail))
    return Interval(value, float(low), float(high))


def median(times: Float[np.ndarray, " seeds"], seed: int = 0) -> Interval:
    """Median over seeds with its percentile bootstrap interval."""
    value = np.sort(times)[(len(times) - 1) // 2]
    return _interval(float(value), medians(times, np.random.default_rng(seed)))


def ratio(a: Float[np.ndarray, " seeds"], b: Float[np.ndarray, " seeds"], seed: int = 0) -> Interval:
    """median(a) / median(b), the two resampled independently. NaN where both are infinite."""
    rng = np.random.default_rng(seed)
    with np.errstate(invalid="ignore"):
        resampled = medians(a, rng) / medians(b, rng)
        value = median(a).value / median(b).value
    return _interval(value, resampled)


def survival_band(times: Float[np.ndarray, " seeds"], grid: Float[np.ndarray, " points"]) -> tuple[np.ndarray, ...]:
    """(share escaped by each time of `grid`, lower, upper): pointwise Wilson intervals of a share of the seeds."""
    n = len(times)
    share = (times[:, None] <= grid).mean(0)
    z = 1.959964
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return share, np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
