"""E5 and E6: an hour of the challenge's kind. How far the search sees at a false-alarm rate, and whether that rate is
the one it has.

The background is slid noise without injections; the foreground the same noise with them. Thresholds come from the
background alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.stats import poisson

from mma_realtime.data.mlgwsc import Events
from mma_realtime.errors import SearchError
from mma_realtime.gw.units import Seconds
from mma_realtime.search.coincidence import CLUSTER_GAP, Trigger, clusters, combine, find_triggers
from mma_realtime.search.evaluator import MONTH, distance_at, evaluate, match
from mma_realtime.search.scores import Scores
from mma_realtime.search.significance import Background

FARS = (1000.0, 100.0, 10.0, 1.0)  # false alarms a month
TOLERANCE: Seconds = 0.3  # of an event's time
CALIBRATED_AT: tuple[Seconds, ...] = (2000.0, 200.0, 60.0)  # one chance cluster in so many seconds
ASKED: tuple[Seconds, ...] = CALIBRATED_AT[:2]  # of them, those that claims count
MOST_SLIDES = 2000  # 2 s apart, an hour has 1,800 of them, in all two and a half months
MOST_COHERENT = 200  # of networks that look again in every slide


def base_threshold(scores: Scores, one_per: Seconds = 20.0) -> float:
    """A statistic that about one window in `one_per` seconds of these scores exceeds: clusters are counted above it."""
    series = combine(scores)
    series = series[np.isfinite(series)]
    if not len(series):
        raise SearchError("no window has a score in both detectors: nothing can be calibrated on it")
    return float(np.quantile(series, 1 - scores.hop / one_per))


def sensitive_distances(
    triggers: Sequence[Trigger],
    injections: Mapping[str, Float64[np.ndarray, " n"]],
    chance: Background,
    calibrated: float,
    fars: Sequence[float] = FARS,
    suffix: str = "",
) -> dict[str, Any]:
    """Sensitive distance (Mpc) at each rate that the background reaches, and its curve.

    Args:
        calibrated: the statistic above which the search itself tells of a trigger. `triggers` go further down, so that
            rates of many a month can be measured, and some of them are chance that lies beside a signal.

    Returns:
        `distance<suffix>/1000` ..., `found<suffix>/1000` (share of the injections), curves `far` and `distance`; of the
        triggers nearest to an injection within 1 s `timing<suffix>/near` (how many), `/within` (share of them that lie
        within 0.3 s of it), `/median` (s); `/near_calibrated`, `/within_calibrated` and
        `/median_calibrated`: of those above `calibrated`. No share of none.
    """
    times = np.array([trigger.gps for trigger in triggers])
    stats = np.array([trigger.statistic for trigger in triggers])
    events = Events(times, stats, np.full(len(times), TOLERANCE))
    noise = chance.statistics
    evaluation = evaluate(
        injections, events, Events(np.zeros(len(noise)), noise, np.full(len(noise), TOLERANCE)), chance.livetime_s
    )
    out: dict[str, Any] = {}
    for far in fars:
        if evaluation.duration < MONTH / far:
            continue  # the slides are too few for such a rate: not reported, never extrapolated
        if len(noise) <= far / MONTH * evaluation.duration:
            continue  # the background's own threshold cuts it off: what is below has no rate
        out[f"distance{suffix}/{far:g}"] = distance_at(evaluation, far)
        at = int(np.argmax(evaluation.far <= far / MONTH))
        out[f"found{suffix}/{far:g}"] = float(evaluation.found[at]) / evaluation.n_injections
    nearest, _ = match(np.asarray(injections["tc"]), events)
    apart = np.abs(times - np.asarray(injections["tc"])[nearest])
    for which, near in (("", apart[apart < 1]), ("_calibrated", apart[(apart < 1) & (stats > calibrated)])):
        out[f"timing{suffix}/near{which}"] = float(len(near))
        if len(near):
            out[f"timing{suffix}/within{which}"] = float((near <= TOLERANCE).mean())
            out[f"timing{suffix}/median{which}"] = float(np.median(near))
    most = (len(noise) - 0.5) * MONTH / evaluation.duration
    grid = np.geomspace(MONTH / evaluation.duration, max(MONTH / evaluation.duration, min(3000, most)), 40)
    grid = grid[len(noise) > grid / MONTH * evaluation.duration]
    curve = [distance_at(evaluation, far) for far in grid]
    return out | {f"curve/far{suffix}": grid.tolist(), f"curve/distance{suffix}": curve}


def calibration(scores: Scores, chance: Background) -> dict[str, float]:
    """E6 of a series of scores: see `calibration_of`."""
    series = combine(scores)
    peaks = [series[a : b + 1].max() for a, b in clusters(series, scores.hop, chance.threshold, CLUSTER_GAP)]
    return calibration_of(np.array(peaks), scores.livetime, chance)


def calibration_of(peaks: Float64[np.ndarray, " n"], live: Seconds, chance: Background) -> dict[str, float]:
    """E6: clusters of noise at zero lag, counted, against what the slides predict.

    Args:
        peaks: statistic of each cluster of noise. live: s in which they were found.

    Returns:
        for each rate, one in `n` seconds: `calibration/measured_n` (0: the background's own threshold cuts it off),
        and where it is measured `count_n`, `expected_n`, `inside_n` (1: within the Poisson 99 % interval). Of the two
        rates in `ASKED`: `calibration/measured` and `calibration/inside`, how many are. `calibration/ratio`: counted
        over expected, of the most frequent rate that is measured.
    """
    out: dict[str, float] = {}
    for seconds in CALIBRATED_AT:
        name, threshold = f"{seconds:g}", chance.threshold_at(1 / seconds)
        out[f"calibration/measured_{name}"] = float(threshold > chance.threshold)
        if threshold <= chance.threshold:
            continue
        expected = chance.count(threshold) / chance.livetime_s * live
        count = int((peaks >= threshold).sum())
        low, high = poisson.interval(0.99, expected)
        out |= {f"calibration/count_{name}": float(count), f"calibration/expected_{name}": expected}
        out[f"calibration/inside_{name}"] = float(low <= count <= high)
        out["calibration/ratio"] = count / expected if expected else float("nan")
    for what in ("measured", "inside"):
        out[f"calibration/{what}"] = sum(out.get(f"calibration/{what}_{seconds:g}", 0.0) for seconds in ASKED)
    return out


def set_seeds(run_seed: int, count: int) -> list[int]:
    """Seeds of the sets that a run is measured on: each training seed has its own, searches of one seed share them."""
    return [100_000 + 100 * run_seed + number for number in range(count)]


def over_sets(sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over sets, number by number; a curve's is that of its points. What one set lacks has no mean."""
    out: dict[str, Any] = {}
    for key in sets[0]:
        values = [one[key] for one in sets if key in one]
        if len(values) < len(sets):
            continue
        if isinstance(values[0], list):
            shortest = min(map(len, values))
            out[key] = np.mean([v[:shortest] for v in values], axis=0).tolist()
        else:
            out[key] = float(np.mean(values))
    return out


def triggers_of(scores: Scores, threshold: float, time_offset: Seconds) -> list[Trigger]:
    """Of the foreground."""
    return find_triggers(scores, threshold, time_offset=time_offset)
