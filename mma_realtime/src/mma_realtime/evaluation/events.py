"""E4: real events (or an injected one) in 32 s of strain: is the event above every time slide, and at the right time?

The search is blind: the loudest trigger of the stretch is taken, and only then compared with the published time. The
control is the same strain run backwards, in which nothing is to be found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mma_realtime.data.strain import Strain, time_reversed
from mma_realtime.errors import SearchError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.search.coherent import slides_of
from mma_realtime.search.coincidence import combine, find_triggers
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.scores import Scores, conditioner_for, score_strain
from mma_realtime.search.significance import Background, short_step

AROUND: Seconds = 0.6  # of whitened strain that is kept for the figure
ENOUGH: Seconds = 2000.0  # of slid livetime, for an event to stand above


@dataclass(frozen=True)
class Looked:
    """One look at a stretch.

    Args:
        statistic, gps: of the loudest trigger. scores: all. inclusive, exclusive: slides with and without its windows.
    """

    statistic: float
    gps: GPS
    per_detector: tuple[float, ...]
    scores: Scores
    inclusive: Background
    exclusive: Background


def look(model: SearchModel, strain: Strain) -> Looked:
    """Search a short stretch with the spectrum of all of it, and slide it against itself.

    Raises:
        SearchError: no trigger at all: the threshold is above everything.
    """
    conditioner = conditioner_for(model, strain.sample_rate).fitted(strain)
    scores = score_strain(model, strain, conditioner)
    series = combine(scores)
    finite = series[np.isfinite(series)]
    # Low enough that the loudest noise of the stretch is a trigger too, high enough that clusters stay apart.
    threshold = float(min(model.recipe.threshold, np.quantile(finite, 0.98)))
    triggers = find_triggers(scores, threshold, time_offset=model.recipe.time_offset)
    if not triggers:
        raise SearchError(f"{strain.source}: no trigger above {threshold:.3g}")
    best = max(triggers, key=lambda trigger: trigger.statistic)
    step = short_step(scores)
    correlated = step < scores.window + 1
    slides = [
        slides_of(model, strain, conditioner, scores, step, None, taken, threshold, correlated)
        for taken in ((), (best.gps,))
    ]
    return Looked(best.statistic, best.gps, best.per_detector, scores, *slides)


def event_metrics(
    model: SearchModel, strain: Strain, gps_event: GPS, name: str, reverse: bool = True
) -> dict[str, Any]:
    """What E4 reports of an event.

    Returns:
        under `events/<name>/`: `statistic`, `loudest_slide` (exclusive: without the event's own windows),
        `loudest_slide_inclusive`, `above_all` (1: above every slide, of both kinds), `above_2000_s` (1: and these are
        at least 2,000 s, without the event's own windows), `time_error` (s), `livetime`,
        `independent_livetime`, `far_per_hour` (an upper bound, where it is above all); `reversed_statistic`,
        `reversed_lower` (1: lower than the event's), `reversed_in_noise` (1: nothing in the reversed strain is above
        every slide of it); curves of scores and whitened strain.
    """
    found = look(model, strain)
    head = f"events/{name}/"
    above = found.statistic > max(found.exclusive.loudest, found.inclusive.loudest)
    out: dict[str, Any] = {
        f"{head}statistic": found.statistic,
        f"{head}loudest_slide": found.exclusive.loudest,
        f"{head}loudest_slide_inclusive": found.inclusive.loudest,
        f"{head}above_all": float(above),
        f"{head}above_2000_s": float(above and found.exclusive.livetime_s >= ENOUGH),
        f"{head}time_error": abs(found.gps - gps_event),
        f"{head}livetime": found.exclusive.livetime_s,
        f"{head}independent_livetime": found.exclusive.independent_livetime_s,
        f"{head}far_per_hour": 3600 * found.exclusive.far(found.statistic).value_hz,
    }
    if reverse:
        backwards = look(model, time_reversed(strain))
        out[f"{head}reversed_statistic"] = backwards.statistic
        out[f"{head}reversed_lower"] = float(backwards.statistic < found.statistic)
        out[f"{head}reversed_loudest_slide"] = backwards.exclusive.loudest
        out[f"{head}reversed_in_noise"] = float(backwards.statistic <= backwards.exclusive.loudest)
    series = combine(found.scores)
    valid = np.isfinite(series)
    out[f"curve/{head}time"] = np.round(found.scores.times[valid] - gps_event, 4).tolist()
    out[f"curve/{head}score"] = np.round(series[valid], 3).tolist()
    out |= {f"curve/{head}{k}": v for k, v in whitened_around(model, strain, gps_event).items()}
    edges = np.linspace(found.exclusive.statistics.min(initial=0.0), max(found.inclusive.loudest, found.statistic), 41)
    out[f"curve/{head}slide_edges"] = edges.round(4).tolist()
    out[f"curve/{head}slide_counts"] = np.histogram(found.exclusive.statistics, edges)[0].astype(float).tolist()
    return out


def whitened_around(model: SearchModel, strain: Strain, gps: GPS, around: Seconds = AROUND) -> dict[str, list[float]]:
    """Whitened strain of each detector, `around` seconds on both sides of `gps`, for a figure."""
    conditioner = conditioner_for(model, strain.sample_rate).fitted(strain)
    parts = list(conditioner.whitened(strain))
    values = np.concatenate([part.values for part in parts], axis=1)
    rate = model.recipe.sample_rate
    first = round((gps - around - strain.gps_start) * rate) - parts[0].start
    rows = values[:, max(0, first) : first + round(2 * around * rate)]
    return {f"whitened_{d}": np.round(row, 3).tolist() for d, row in zip(strain.detectors, rows, strict=True)}
