"""How far a search hears: sensitive distance against false-alarm rate (section 12, the metric of MLGWSC-1).

The rate here is the benchmark's own, (k - 1)/T at the k-th loudest event of the background, 0 at the loudest. Alerts
use `search.significance`, in which no rate is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from mma_realtime.data.mlgwsc import Events, chirp_mass
from mma_realtime.errors import SearchError
from mma_realtime.gw.units import Megaparsec, Seconds

MONTH = 30 * 86400.0  # s, the challenge's


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One value per event of the background, in order of rising statistic: what the search does with that threshold.

    Attributes:
        threshold: statistic of the event of the background.
        far: false-alarm rate, Hz.
        sensitive_volume: V = (4/3) pi d_max^3 sum_found M^(5/2) / (N M_max^(5/2)), Mpc^3, M the chirp mass.
        sensitive_volume_error: its standard deviation, Mpc^3, as the benchmark defines it.
        sensitive_distance: (3 V / 4 pi)^(1/3), Mpc.
        sensitive_distance_plain: the same with every injection counted alike, Mpc.
        sensitive_fraction: injections found, over sum (M_max / M)^(5/2).
        found: injections found.
        n_true_pos: events of the foreground within their tolerance of an injection, at any threshold.
        n_false_pos: the others.
        n_injections: N.
        duration: of the background, s.
    """

    threshold: Float64[np.ndarray, " n"]
    far: Float64[np.ndarray, " n"]
    sensitive_volume: Float64[np.ndarray, " n"]
    sensitive_volume_error: Float64[np.ndarray, " n"]
    sensitive_distance: Float64[np.ndarray, " n"]
    sensitive_distance_plain: Float64[np.ndarray, " n"]
    sensitive_fraction: Float64[np.ndarray, " n"]
    found: Int64[np.ndarray, " n"]
    n_true_pos: int
    n_false_pos: int
    n_injections: int
    duration: Seconds


def evaluate(
    injections: Mapping[str, Float64[np.ndarray, " n"]], foreground: Events, background: Events, duration: Seconds
) -> Evaluation:
    """The benchmark's evaluation.

    Args:
        injections: `tc` (GPS s), `distance` (Mpc), `mass1`, `mass2` (solar masses).
        foreground: events of the search on noise with injections.
        background: events of the search on noise.
        duration: of the background, s.

    Raises:
        SearchError: no injection, no event of the background, or a duration that is not positive.
    """
    tc, distance = (np.asarray(injections[key], dtype=np.float64) for key in ("tc", "distance"))
    mass = chirp_mass(*(np.asarray(injections[key], dtype=np.float64) for key in ("mass1", "mass2")))
    if not len(tc):
        raise SearchError("no injections: give the file that the foreground was made with")
    if not len(background.stat):
        raise SearchError("the background has no event: lower the threshold of the search until it has some")
    if not duration > 0:
        raise SearchError(f"a background of {duration:g} s: give its duration in seconds")
    nearest, near = match(tc, foreground)
    loudest = np.full(len(tc), -np.inf)
    np.maximum.at(loudest, nearest[near], np.asarray(foreground.stat)[near])

    threshold = np.sort(np.asarray(background.stat, dtype=np.float64))
    far = (len(threshold) - 1 - np.arange(len(threshold))) / duration
    # Sums over the injections whose loudest event is above each threshold (strictly): from the loudest downwards.
    order = np.argsort(loudest)
    first = np.searchsorted(loudest[order], threshold, side="right")
    relative = mass / mass.max()

    def over_found(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        return np.append(np.cumsum(values[order][::-1])[::-1], 0.0)[first]

    found = len(tc) - first
    d_max = distance.max()
    v_max = 4 / 3 * np.pi * d_max**3
    weights = (relative**-2.5).sum()  # W
    mean, square = over_found(relative**2.5) / weights, over_found(relative**5) / weights
    volume = v_max * over_found(relative**2.5) / len(tc)
    return Evaluation(
        threshold=threshold,
        far=far,
        sensitive_volume=volume,
        sensitive_volume_error=v_max / len(tc) * np.sqrt(weights * np.maximum(square - mean**2, 0.0)),
        sensitive_distance=np.cbrt(3 * volume / (4 * np.pi)),
        sensitive_distance_plain=d_max * np.cbrt(found / len(tc)),
        sensitive_fraction=found / weights,
        found=found.astype(np.int64),
        n_true_pos=int(near.sum()),
        n_false_pos=int((~near).sum()),
        n_injections=len(tc),
        duration=duration,
    )


def match(tc: Float64[np.ndarray, " n"], events: Events) -> tuple[Int64[np.ndarray, " m"], np.ndarray]:
    """The nearest injection of each event, and whether it is within the event's tolerance (closed).

    Args:
        tc: GPS s, in any order.
        events: of the foreground.
    """
    time = np.asarray(events.time, dtype=np.float64)
    order = np.argsort(tc, kind="stable")
    ordered = tc[order]
    after = np.searchsorted(ordered, time).clip(max=len(tc) - 1)
    before = (after - 1).clip(min=0)
    closer = np.where(np.abs(time - ordered[before]) <= np.abs(ordered[after] - time), before, after)
    return order[closer], np.abs(time - ordered[closer]) <= np.asarray(events.var)


def distance_at(evaluation: Evaluation, far_per_month: float) -> Megaparsec:
    """Sensitive distance at a false-alarm rate, with the lowest threshold that keeps it (Mpc).

    Args:
        evaluation: see `evaluate`.
        far_per_month: false alarms in 30 days.

    Raises:
        SearchError: the background is shorter than the time in which one such false alarm is expected, or has fewer
            events than such a rate gives: the search's own threshold cut them off.
    """
    needed = MONTH / far_per_month
    if evaluation.duration < needed:
        raise SearchError(
            f"livetime too short: {far_per_month:g} false alarms a month need a background of {needed:.0f} s, it has "
            f"{evaluation.duration:.0f} s: lengthen it by time slides, or ask for at least "
            f"{MONTH / evaluation.duration:.3g} a month"
        )
    if len(evaluation.far) <= far_per_month / MONTH * evaluation.duration:
        raise SearchError(
            f"background cut off: at {far_per_month:g} false alarms a month {evaluation.duration:.0f} s have "
            f"{far_per_month / MONTH * evaluation.duration:.0f} events, it has {len(evaluation.far)}: lower the "
            "threshold of the search, or ask for a lower rate"
        )
    allowed = evaluation.far <= far_per_month / MONTH
    return float(evaluation.sensitive_distance[np.argmax(allowed)])
