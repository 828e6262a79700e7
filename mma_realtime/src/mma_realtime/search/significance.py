"""How sure a search is (section 7): the background from time slides, false-alarm rates and their upper bounds.

A slide shifts one detector's scores against the other's by more than any signal can explain; what is then coincident is
chance. FAR(s) = (N_b(>= s) + 1) / T_b, with T_b the time that the slides overlap: never zero, and where nothing in the
background is as loud, an upper bound. Zero lag is never a slide.

Slides closer than a window repeat nearly the same pairs: they sharpen a rate, and bound none. So the bound that a
p-value rests on is of the slides alone that are further apart, T_i: FAR(s) = N_b(>= s) / T_b + 1 / T_i.

Chance is counted in clusters, zero lag in superevents. Every superevent is a cluster (or part of one longer than 8 s),
but a cluster within 1 s of a louder one, or less than 8 s after it, is none of its own. So for the same windows
the background has at least as many counts, and a rate is never too low by that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from mma_realtime.errors import NoSlideError, SearchError
from mma_realtime.gw.units import GPS, Hertz, Seconds
from mma_realtime.kernels.slides import slide_hist
from mma_realtime.search.coincidence import CLUSTER_GAP, clusters, coincident_rows
from mma_realtime.search.series import Scores

BEYOND_THE_WINDOW: Seconds = 1.0  # a shift is at least the window and this (section 7)
LEAST_LIVETIME: Seconds = 2000.0  # of a short file's slides
SHORT_STEP: Seconds = 0.25  # of correlated slides
NEVER = -1e30  # the score of a window that a threshold of its own detector rules out


@dataclass(frozen=True)
class FalseAlarmRate:
    """Args:
    value_hz: false alarms per second.
    upper_limit: nothing in the background is as loud: the rate is lower than this, how much is not known.
    """

    value_hz: Hertz
    upper_limit: bool

    def p_value(self, livetime: Seconds) -> float:
        """Chance of at least one false alarm as loud in `livetime` s: 1 - exp(-FAR T)."""
        return -math.expm1(-self.value_hz * livetime)

    def __str__(self) -> str:
        return f"{'< ' if self.upper_limit else ''}1 per {duration_text(1 / self.value_hz)}"


def duration_text(seconds: Seconds) -> str:
    """`35 s`, `41 min`, `5.2 h`, `12 d`, `3.1 yr`."""
    for unit, length in (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86400.0)):
        if seconds < 120 * length if unit in ("s", "min") else seconds < 100 * length:
            break
    else:
        unit, length = "yr", 365.25 * 86400.0
    return f"{seconds / length:.3g} {unit}"


@dataclass(frozen=True)
class Background:
    """What chance alone gave.

    Args:
        statistics: the loudest window of every chance cluster above `threshold`, ascending.
        livetime_s: time that the slides overlap, summed over them.
        independent_livetime_s: of those slides only that are further apart than a window: the rest repeats pairs of
            windows that nearly are the same, and narrows no uncertainty.
        n_slides: number of slides.
        step: s between two slides.
        threshold: clusters are counted above it.
        loudest: the largest statistic in any slide, above the threshold or not.
    """

    statistics: Float64[np.ndarray, " cluster"]
    livetime_s: Seconds
    independent_livetime_s: Seconds
    n_slides: int
    step: Seconds
    threshold: float
    loudest: float

    @property
    def correlated(self) -> bool:
        return self.independent_livetime_s < self.livetime_s

    def count(self, statistic: float) -> int:
        """N_b(>= s): chance clusters at least as loud."""
        return len(self.statistics) - int(np.searchsorted(self.statistics, statistic, side="left"))

    def far(self, statistic: float) -> FalseAlarmRate:
        """FAR(s) = (N_b(>= s) + 1) / T_b, an upper bound where the background has nothing as loud.

        Raises:
            SearchError: the statistic is not a number, or below the threshold above which clusters were counted.
        """
        if not math.isfinite(statistic):
            raise SearchError(f"a statistic of {statistic} is no candidate: it has no false-alarm rate")
        if statistic < self.threshold:
            raise SearchError(
                f"a statistic of {statistic:.3g} is below the background's threshold {self.threshold:.3g}: "
                "make the slides with a lower threshold"
            )
        louder = self.count(statistic)
        return FalseAlarmRate((louder + 1) / self.livetime_s, louder == 0)

    def independent_far(self, statistic: float) -> FalseAlarmRate:
        """N_b(>= s) / T_b + 1 / T_i, T_i the independent livetime: no step, however short, lowers its bound.

        Raises:
            SearchError: as of `far`; no slide that is independent overlaps.
        """
        rate = self.far(statistic)
        if not self.independent_livetime_s:
            raise SearchError("no independent slide has livetime: add strain")
        louder = self.count(statistic)
        return FalseAlarmRate(louder / self.livetime_s + 1 / self.independent_livetime_s, rate.upper_limit)

    def threshold_at(self, far: Hertz) -> float:
        """The lowest statistic from which on the false-alarm rate is at most `far`.

        Where every cluster may count, it is the threshold above which they were counted: what is below has no rate.
        Where none may, it is just above the loudest cluster.

        Raises:
            SearchError: the livetime is too short for such a rate; says how much is needed.
        """
        self.require(far)
        allowed = math.floor(far * self.livetime_s * (1 + 1e-12)) - 1  # N_b + 1 <= FAR T_b
        if allowed >= len(self.statistics):
            return self.threshold
        return float(np.nextafter(self.statistics[len(self.statistics) - 1 - allowed], np.inf))

    def require(self, far: Hertz) -> None:
        """Raises:
        SearchError: no statistic can reach the rate `far` (Hz) with this livetime.
        """
        if far <= 0:
            raise SearchError(f"a false-alarm rate of {far:g} Hz cannot be reached: ask for one above zero")
        if self.livetime_s * far < 1 - 1e-12:
            needed = 1 / far
            raise SearchError(
                f"{self.livetime_s:,.0f} s of slid livetime are too short for a false-alarm rate of {far:.3g} Hz "
                f"(1 per {duration_text(needed)}): {needed:,.0f} s are needed, {needed / self.livetime_s:.3g} times as "
                "much; add slides or strain"
            )


def together(backgrounds: Sequence[Background]) -> Background:
    """The background of several stretches: clusters and livetimes add up.

    Raises:
        SearchError: none is given, or their thresholds differ.
    """
    if not backgrounds or len({each.threshold for each in backgrounds}) > 1:
        raise SearchError("backgrounds are added that were counted above one and the same threshold, at least one")
    return Background(
        np.sort(np.concatenate([each.statistics for each in backgrounds])),
        sum(each.livetime_s for each in backgrounds),
        sum(each.independent_livetime_s for each in backgrounds),
        sum(each.n_slides for each in backgrounds),
        min(each.step for each in backgrounds),
        backgrounds[0].threshold,
        max(each.loudest for each in backgrounds),
    )


def in_hops(seconds: Seconds, hop: Seconds, what: str) -> int:
    """Raises:
    SearchError: `seconds` is no whole number of hops.
    """
    hops = round(seconds / hop)
    if hops < 1 or abs(hops * hop - seconds) > 1e-6 * hop:
        raise SearchError(f"{what} is {seconds:g} s: it has to be a whole number of score hops of {hop:g} s")
    return hops


def check_apart(step: Seconds, min_shift: Seconds, apart: Seconds, correlated: bool) -> None:
    """Raises:
    SearchError: slides closer to each other, or to zero lag, than the window and 1 s.
    """
    if step < apart - 1e-9 and not correlated:
        raise SearchError(
            f"a slide step of {step:g} s is shorter than the window and 1 s ({apart:g} s): neighbouring slides would "
            "not be independent; use a longer step, or ask for correlated slides"
        )
    if min_shift < apart - 1e-9:
        raise SearchError(
            f"a smallest shift of {min_shift:g} s is shorter than the window and 1 s ({apart:g} s): such a slide still "
            "holds true coincidences; use a longer one"
        )


def on_one_circle(
    scores: Scores, on_source: Sequence[GPS], single_threshold: float
) -> tuple[Float64[np.ndarray, "row time"], Bool[np.ndarray, "row time"]]:
    """The stretch that is slid round, and what of it counts as livetime: not its invalid ends, nor `on_source`.

    A window that sees the event at t ends between t - 0.5 s (its filter reaches so far ahead) and half a second after
    the event has left it: those are taken out of both detectors.
    """
    rows = coincident_rows(scores, single_threshold)
    live = scores.valid.copy()
    for gps in on_source:
        live[:, (scores.times >= gps - 0.5) & (scores.times <= gps + scores.window + 0.5)] = False
    some = np.flatnonzero(scores.valid.any(axis=0))
    if not len(some):
        raise NoSlideError("no window has a score: the strain is shorter than its gaps and the start of the PSD allow")
    inside = slice(some[0], some[-1] + 1)
    return np.maximum(rows, NEVER)[:, inside], live[:, inside]


def slide_shifts(n: int, step: int, least: int, at_most: int | None) -> Int64[np.ndarray, " slide"]:
    """Shifts in hops on a circle of `n`: multiples of `step`, at least `least` from zero lag both ways round."""
    first = -(-least // step) * step
    return np.arange(first, n - least + 1, step)[:at_most]


def time_slides(
    scores: Scores,
    step: Seconds | None = None,
    min_shift: Seconds | None = None,
    max_slides: int | None = None,
    on_source: Sequence[GPS] = (),
    *,
    threshold: float = 0.0,
    single_threshold: float = -math.inf,
    gap: Seconds = CLUSTER_GAP,
    correlated: bool = False,
) -> Background:
    """The background of detectors' scores: the second shifted round against the first by k `step`, k = 1, 2, ...

    A third is shifted by twice as much, so that no two keep their true coincidences; each such pair has to be
    `min_shift` apart too.

    Gaps of either detector, wherever the shift puts them, take away livetime.

    Args:
        scores: of two detectors or more.
        step: s between slides; the window and 1 s where nothing is said.
        min_shift: s from zero lag, in both directions round the circle; the window and 1 s where nothing is said.
        max_slides: at most so many, those of the smallest shifts.
        on_source: GPS s of candidates whose own windows are taken out (the exclusive background).
        threshold: clusters are counted above it.
        correlated: allow a step shorter than the window and 1 s: neighbouring slides then pair nearly the same
            windows; `independent_livetime_s` says how much of the livetime does not.

    Raises:
        SearchError: one detector; a step or shift shorter than allowed, or no slide fits the stretch.
    """
    if len(scores.values) < 2:
        raise SearchError(
            f"time slides shift one detector's scores against another's: {len(scores.values)} row(s) of scores are "
            f"given ({', '.join(scores.detectors)}), at least two are needed"
        )
    apart = scores.window + BEYOND_THE_WINDOW
    step = apart if step is None else step
    min_shift = apart if min_shift is None else min_shift
    check_apart(step, min_shift, apart, correlated)
    rows, live = on_one_circle(scores, on_source, single_threshold)
    step_hops = in_hops(step, scores.hop, "the slide step")
    least = math.ceil(min_shift / scores.hop - 1e-9)
    shifts = slide_shifts(rows.shape[1], step_hops, least, None)
    for times in range(2, len(rows)):  # detectors so many rows apart are shifted so many times as far
        apart_now = times * shifts % rows.shape[1]
        shifts = shifts[(apart_now >= least) & (apart_now <= rows.shape[1] - least)]
    shifts = shifts[:max_slides]
    if not len(shifts):
        raise NoSlideError(
            f"{rows.shape[1] * scores.hop:.1f} s of scores from GPS {scores.gps_start:.1f} hold no slide: at least "
            f"{2 * min_shift:g} s are needed"
        )
    maxima, hops, loudest = _slid(rows, live, shifts, threshold, gap, scores.hop)
    livetimes = hops * scores.hop
    if not livetimes.sum():
        raise NoSlideError("the detectors never overlap in any slide: there is no livetime to count in")
    each = math.ceil(apart / step - 1e-9)
    return Background(
        maxima, float(livetimes.sum()), float(livetimes[::each].sum()), len(shifts), step, threshold, loudest
    )


def _slid(
    rows: Float64[np.ndarray, "row time"],
    live: Bool[np.ndarray, "row time"],
    shifts: Int64[np.ndarray, " slide"],
    threshold: float,
    gap: Seconds,
    hop: Seconds,
) -> tuple[Float64[np.ndarray, " cluster"], Int64[np.ndarray, " slide"], float]:
    """Maxima of the clusters, ascending; hops that count in each slide; the loudest sum. Row i is late by i shifts."""
    if len(rows) == 2:
        slides = slide_hist(
            torch.from_numpy(rows[0]),
            torch.from_numpy(rows[1]),
            torch.from_numpy(shifts),
            torch.tensor([threshold, torch.inf], dtype=torch.float64),
            threshold,
            gap / hop,
            torch.from_numpy(live[0]),
            torch.from_numpy(live[1]),
            maxima=True,
        )
        assert slides.maxima is not None
        return slides.maxima.numpy(), slides.valid_hops.numpy(), float(slides.loudest.max())
    maxima: list[float] = []
    hops, loudest = np.zeros(len(shifts), np.int64), -math.inf
    for slide, shift in enumerate(shifts.tolist()):
        late = [
            (np.roll(row, i * shift), np.roll(ok, i * shift))
            for i, (row, ok) in enumerate(zip(rows, live, strict=True))
        ]
        both = np.logical_and.reduce([ok for _, ok in late])
        series = np.where(both, sum(row for row, _ in late), -np.inf)
        maxima += [float(series[a : b + 1].max()) for a, b in clusters(series, hop, threshold, gap)]
        hops[slide], loudest = both.sum(), max(loudest, float(series.max()))
    return np.sort(maxima), hops, loudest


def short_step(scores: Scores, livetime: Seconds = LEAST_LIVETIME, max_slides: int | None = None) -> Seconds:
    """The slide step for a stretch of scores: independent slides where they give `livetime`, else correlated ones.

    0.25 s, or the longest finer step that reaches `livetime` with the windows of one candidate taken out.
    """
    apart = scores.window + BEYOND_THE_WINDOW
    stretch = float(scores.valid.all(axis=0).sum()) * scores.hop - 2 * (scores.window + 1.0)
    hops = [math.ceil(apart / scores.hop), *_halvings(SHORT_STEP, scores.hop)]
    for h in hops:
        slides = max(0.0, (stretch - 2 * apart) / (h * scores.hop))
        if min(slides, max_slides or math.inf) * stretch >= livetime:
            return h * scores.hop
    return hops[-1] * scores.hop


def _halvings(longest: Seconds, hop: Seconds) -> list[int]:
    hops = [max(1, round(longest / hop))]
    while hops[-1] > 1:
        hops.append(hops[-1] // 2)
    return hops
