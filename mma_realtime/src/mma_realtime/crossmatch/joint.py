"""Joint false-alarm rates of a gravitational-wave candidate and an external event (section 10).

    temporal   FAR = (t_h - t_l) R_ext FAR_gw                      the external event is one of a known rate
    targeted   FAR = z (1 - ln(z / z_max)), z = (t_h - t_l) FAR_ext FAR_gw     both searches looked below threshold
    spatial    FAR / I, I = 4 pi * integral p_gw p_ext dOmega      1 for a partner that says nothing of the place

I is exact for two multi-order maps: it is summed over the finer of the two pixels, wherever each map has its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float64, Int64

from mma_realtime.errors import CrossMatchError
from mma_realtime.gw.units import GPS, Hertz, Seconds
from mma_realtime.sky.moc import N_DEEPEST, ranges

YEAR: Seconds = 365 * 86400.0


class Map(Protocol):
    """What an overlap needs of a multi-order map (`sky.skymap.SkyMap`)."""

    @property
    def uniq(self) -> Int64[np.ndarray, " n"]: ...
    @property
    def probdensity(self) -> Float64[np.ndarray, " n"]: ...


@dataclass(frozen=True)
class Window:
    """Where an external event may lie: from `low` to `high` seconds after the gravitational wave, both included."""

    low: Seconds
    high: Seconds

    @property
    def length(self) -> Seconds:
        return self.high - self.low

    def holds(self, gw: GPS, external: GPS) -> bool:
        return self.low <= external - gw <= self.high


GRB = Window(-1.0, 5.0)
SUBTHRESHOLD_GRB = Window(-60.0, 600.0)
NEUTRINO = Window(-500.0, 500.0)
OPTICAL = Window(0.0, 14 * 86400.0)

RATE_GRB: Hertz = 310 / YEAR  # gamma-ray bursts that satellites report
RATE_SUBTHRESHOLD_GRB: Hertz = (310 + 65) / YEAR


@dataclass(frozen=True)
class Thresholds:
    """Up to which rates (Hz) candidates of a targeted search take part."""

    gw: Hertz
    external: Hertz


TARGETED = {"Fermi": Thresholds(1 / 86400, 1e-4), "Swift": Thresholds(2 / 86400, 1e-3)}


def check_rate(rate: Hertz, what: str) -> None:
    """Raises:
    CrossMatchError: not a finite number above zero.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise CrossMatchError(f"{what} is {rate} Hz: a rate above zero is needed; an upper bound is one")


def temporal_far(window: Window, rate: Hertz, far_gw: Hertz) -> Hertz:
    """How often chance puts an external event of rate `rate` into the window of a candidate of rate `far_gw`."""
    check_rate(rate, "the external rate")
    check_rate(far_gw, "the candidate's false-alarm rate")
    return window.length * rate * far_gw


def targeted_far(window: Window, far_external: Hertz, far_gw: Hertz, thresholds: Thresholds) -> Hertz | None:
    """The same where both searches went below their thresholds; None where a notice lies above either of them."""
    check_rate(far_external, "the external false-alarm rate")
    check_rate(far_gw, "the candidate's false-alarm rate")
    if far_gw > thresholds.gw or far_external > thresholds.external:
        return None
    z, z_max = (window.length * a * b for a, b in ((far_external, far_gw), (thresholds.external, thresholds.gw)))
    return z * (1 - math.log(z / z_max))


def spatial_far(far: Hertz, overlap: float) -> Hertz:
    """A joint rate with the places taken in: `far` / `overlap`; infinite where the maps have nothing in common."""
    check_rate(far, "the joint false-alarm rate")
    if not overlap >= 0:
        raise CrossMatchError(f"an overlap of {overlap} is none: it is 0 or more")
    return far / overlap if overlap > 0 else math.inf


def overlap(a: Map, b: Map) -> float:
    """I = 4 pi * integral p_a p_b dOmega of two normalised multi-order maps.

    Raises:
        CrossMatchError: a map whose pixels overlap, or whose densities are not numbers, or does not add up to 1.
    """
    (starts_a, density_a), (starts_b, density_b) = steps(a), steps(b)
    starts = np.union1d(starts_a, starts_b)
    both = [
        density[np.searchsorted(own, starts, side="right") - 1]
        for own, density in ((starts_a, density_a), (starts_b, density_b))
    ]
    widths = np.diff(np.append(starts, N_DEEPEST)).astype(np.float64)
    return 4 * math.pi * float(np.dot(both[0] * both[1], widths)) * (4 * math.pi / N_DEEPEST)


def steps(m: Map) -> tuple[Int64[np.ndarray, " step"], Float64[np.ndarray, " step"]]:
    """A map as a step function of the nested index at level 29: where each step begins, and its density (1/sr).

    Pixels that the map does not have are steps of density 0.

    Raises:
        CrossMatchError: see `overlap`.
    """
    density = np.asarray(m.probdensity, dtype=np.float64)
    if not (np.isfinite(density).all() and (density >= 0).all()):
        raise CrossMatchError("a sky map has densities that are no numbers or below zero: it cannot be compared")
    first, end = ranges(np.asarray(m.uniq, dtype=np.int64))
    order = np.argsort(first)
    first, end, density = first[order], end[order], density[order]
    if (first[1:] < end[:-1]).any():
        raise CrossMatchError("a sky map has pixels that overlap: its UNIQ column is wrong")
    total = float(np.dot(density, (end - first).astype(np.float64))) * 4 * math.pi / N_DEEPEST
    if abs(total - 1) > 1e-3:
        raise CrossMatchError(
            f"a sky map adds up to {total:.6g}, not to 1: are its values probabilities instead of densities per "
            "steradian, or its pixels in ring order?"
        )
    gaps = end != np.append(first[1:], N_DEEPEST)
    starts = np.concatenate([[0] if len(first) == 0 or first[0] else [], first, end[gaps]]).astype(np.int64)
    values = np.concatenate([np.zeros(len(starts) - len(first) - gaps.sum()), density, np.zeros(gaps.sum())])
    keep = starts < N_DEEPEST
    order = np.argsort(starts[keep], kind="stable")
    return starts[keep][order], values[keep][order] / total


def point_overlap(density: float) -> float:
    """I for a partner whose place is known: 4 pi p_gw there.

    Args:
        density: of the map at that place (1/sr).
    """
    return 4 * math.pi * density
