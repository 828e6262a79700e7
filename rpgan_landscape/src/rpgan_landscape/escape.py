"""Who escapes and when: statistics of two-cluster runs (section 8 of the specification).

Iterations are numbered from 0. A run that never succeeds has the escape time infinity, and medians count it as such.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SHARE = 0.3  # of the fakes that has to lie in each cluster's window
LASTING = 50  # iterations for which it has to: JS often crosses both clusters on its way
COLLAPSED = 0.9  # of the fakes in one window


def escape_times(
    counts: Int[Tensor, "S iterations 2"], n: int = 100, share: float = SHARE, lasting: int = LASTING
) -> Float[Tensor, " S"]:
    """First iteration of the first `lasting` in a row with at least `share` of the n fakes in each window."""
    covered = (counts >= share * n - 1e-9).all(2)  # 0.3 x 100 is a little more than 30 in floating point
    size, iterations = covered.shape
    out = torch.full((size,), math.inf, dtype=torch.float64)
    if iterations < lasting:
        return out
    total = torch.nn.functional.pad(covered.long().cumsum(1), (1, 0))
    begins = total[:, lasting:] - total[:, :-lasting] == lasting
    found = begins.any(1)
    out[found] = begins.int().argmax(1)[found].double()
    return out


def collapsed(
    counts: Int[Tensor, "S iterations 2"], n: int = 100, share: float = COLLAPSED
) -> Bool[Tensor, "S iterations"]:
    """Iterations with at least `share` of the n fakes in one cluster's window."""
    return (counts >= share * n - 1e-9).any(2)


@dataclass(frozen=True)
class CollapsedWindow:
    """An uninterrupted stretch of collapsed iterations of one GAN (its place in the population)."""

    gan: int
    start: int
    length: int
    mean_d_loss: float
    last_d_loss: float


def collapsed_windows(
    counts: Int[Tensor, "S iterations 2"], d_loss: Float[Tensor, "S iterations"], n: int = 100, shortest: int = 100
) -> list[CollapsedWindow]:
    """Uninterrupted collapsed stretches of at least `shortest` iterations, with D's loss over them."""
    edges = torch.nn.functional.pad(collapsed(counts, n).int(), (1, 1)).diff(dim=1)
    out = []
    for (gan, start), (_, stop) in zip((edges == 1).nonzero().tolist(), (edges == -1).nonzero().tolist()):
        if stop - start >= shortest:
            values = d_loss[gan, start:stop].double()
            out.append(CollapsedWindow(gan, start, stop - start, values.mean().item(), values[-1].item()))
    return out


def quantile(times: Float[Tensor, " S"], q: float) -> float:
    """Linear interpolation between order statistics; infinite as soon as one of the two is."""
    ordered, place = times.double().sort().values.tolist(), q * (len(times) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low if low == high else low + (place - math.floor(place)) * (high - low)


@dataclass(frozen=True)
class Summary:
    """One row of section 8's table of escapes.

    Args:
        successes: of how many `seeds`.
        median, lower, upper: escape time, its quartiles (infinity: never).
        mean_collapsed, most_collapsed: collapsed iterations of a run.
        long_collapsed: runs with at least 200 of them.
    """

    seeds: int
    successes: int
    median: float
    lower: float
    upper: float
    mean_collapsed: float
    most_collapsed: int
    long_collapsed: int


def summarise(counts: Int[Tensor, "S iterations 2"], n: int = 100) -> Summary:
    """Escape and collapse over the GANs of one variant."""
    times, lost = escape_times(counts, n), collapsed(counts, n).sum(1)
    return Summary(
        seeds=len(times),
        successes=int(times.isfinite().sum()),
        median=quantile(times, 0.5),
        lower=quantile(times, 0.25),
        upper=quantile(times, 0.75),
        mean_collapsed=lost.double().mean().item(),
        most_collapsed=int(lost.max()),
        long_collapsed=int((lost >= 200).sum()),
    )
