"""From scores to triggers (section 7): coincidence, clusters, the time of an event, superevents and the refractory.

One class, `Clusterer`, serves the stream and the offline search: it is told which score comes next, so gaps, restarts
and the size of the hops change nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64

from mma_realtime.errors import SearchError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.search.series import Scores

WINDOW_OF_COINCIDENCE: Seconds = 0.015  # light travel time H1-L1, 10 ms, and 5 ms (section 7)
CLUSTER_GAP: Seconds = 0.35
PLATEAU = 0.3  # windows within 30 % of the maximum
MERGE: Seconds = 1.0
REFRACTORY: Seconds = 8.0


@dataclass(frozen=True)
class Trigger:
    """A cluster of windows above the threshold.

    Args:
        gps: time of the event, GPS s.
        statistic: the largest of the cluster.
        per_detector: statistic of each detector (of the network, for a coherent one) in that window.
        duration: s from the first to the last window above the threshold.
        n_windows: windows above the threshold.
        detectors: that took part.
        event: number of the superevent, from 1 in the order of their opening; 0: not yet in one.
        version: 1 opens the superevent; a louder trigger within 1 s of it is the next version.
    """

    gps: GPS
    statistic: float
    per_detector: tuple[float, ...]
    duration: Seconds
    n_windows: int
    detectors: tuple[str, ...]
    event: int = 0
    version: int = 1

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"per_detector": list(self.per_detector), "detectors": list(self.detectors)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Trigger:
        return cls(
            **content | {key: tuple(content[key]) for key in ("per_detector", "detectors")},
        )


def coincident_rows(
    scores: Scores, single_threshold: float = -math.inf, window: Seconds = WINDOW_OF_COINCIDENCE
) -> Float64[np.ndarray, "row time"]:
    """Statistic of each detector as it enters the sum: -inf where it is not valid or not above `single_threshold`.

    Where the hop is finer than `window`, every detector but the first stands for the largest of its windows that end
    within `window` of the first's; at 16 Hz that is the one window.
    """
    rows = np.where(scores.valid & (scores.values > single_threshold), scores.values, -np.inf).astype(np.float64)
    lags = math.floor(window / scores.hop + 1e-9)
    if lags and len(rows) > 1:
        for row in rows[1:]:
            padded = np.pad(row, lags, constant_values=-np.inf)
            row[:] = np.lib.stride_tricks.sliding_window_view(padded, 2 * lags + 1).max(axis=1)
    return rows


def combine(
    scores: Scores, single_threshold: float = -math.inf, window: Seconds = WINDOW_OF_COINCIDENCE
) -> Float64[np.ndarray, " time"]:
    """The network's statistic s = sum over detectors (section 7); -inf where a detector has none.

    Args:
        single_threshold: every detector has to be above it.
        window: s within which windows are aligned (only matters to hops shorter than it).
    """
    rows = coincident_rows(scores, single_threshold, window)
    # A row that a maximum filled over its own gap stays invalid there: a gap removes livetime in every detector.
    return np.where(scores.valid.all(axis=0), rows.sum(axis=0), -np.inf)


def _bounds(index: Int64[np.ndarray, " n"], join: int, longest: int | None) -> list[tuple[int, int]]:
    """Where in `index` (ascending, of windows above the threshold) the clusters begin and end."""
    cuts = [0, *(np.flatnonzero(np.diff(index) >= join) + 1).tolist(), len(index)]
    bounds: list[tuple[int, int]] = []
    for begin, end in pairwise(cuts):
        while longest is not None and begin < end and index[end - 1] - index[begin] >= longest:
            middle = begin + int(np.searchsorted(index[begin:end], index[begin] + longest))
            bounds.append((begin, middle))
            begin = middle
        if begin < end:
            bounds.append((begin, end))
    return bounds


def hops_apart(gap: Seconds, hop: Seconds) -> int:
    """The least number of hops between two windows that are not closer than `gap`."""
    return max(1, math.ceil(gap / hop - 1e-9))


def plateau_centre(index: Int64[np.ndarray, " n"], statistic: Float[np.ndarray, " n"], share: float = PLATEAU) -> float:
    """Centre, in hops, of the windows within `share` of the maximum: the loudest window alone jumps by its width."""
    largest = float(statistic.max())
    flat = index[statistic >= largest - share * abs(largest)]
    return (float(flat[0]) + float(flat[-1])) / 2


def clusters(
    series: Float64[np.ndarray, " time"], hop: Seconds, threshold: float, gap: Seconds = CLUSTER_GAP
) -> list[tuple[int, int]]:
    """First and last window of each cluster of `series` above `threshold`: gaps shorter than `gap` do not part it."""
    above = np.flatnonzero(series > threshold)
    return [(int(above[a]), int(above[b - 1])) for a, b in _bounds(above, hops_apart(gap, hop), None)]


@dataclass
class Superevents:
    """Which triggers are reported (section 7): several clusters of one event are one event.

    A trigger within `merge` of the superevent belongs to it, and is reported, as its next version, where it is louder.
    Later triggers within `refractory` open no superevent unless they are louder: a faint one never hides a loud one.
    Times only go forward: a trigger that is not later than the superevent's window is never a new one.
    """

    merge: Seconds = MERGE
    refractory: Seconds = REFRACTORY
    number: int = 0
    version: int = 0
    opened: GPS = -math.inf
    statistic: float = -math.inf

    def take(self, trigger: Trigger) -> Trigger | None:
        """The trigger with its event and version, or None where it is not to be reported."""
        if trigger.gps <= self.opened + self.refractory and trigger.statistic <= self.statistic:
            return None
        if trigger.gps <= self.opened + self.merge:
            if trigger.gps < self.opened - self.merge:
                return None
            self.version += 1
        else:
            self.number, self.version, self.opened = self.number + 1, 1, trigger.gps
        self.statistic = trigger.statistic
        return replace(trigger, event=self.number, version=self.version)


@dataclass
class Clusterer:
    """Clusters of a series of scores that comes in parts of any length; its attributes are its whole state.

    Args:
        detectors: that the rows stand for together.
        gps_start: GPS s at which window 0 ends.
        hop: s between windows.
        threshold: of the network's statistic.
        time_offset: s from the centre of the plateau (ends of windows) to the event; calibrated with the network.
        longest: s after which a cluster is closed although the statistic is still high.
    """

    detectors: tuple[str, ...]
    gps_start: GPS
    hop: Seconds
    threshold: float
    time_offset: Seconds = 0.0
    gap: Seconds = CLUSTER_GAP
    longest: Seconds = REFRACTORY
    single_threshold: float = -math.inf
    superevents: Superevents = field(default_factory=Superevents)
    next: int = 0
    index: Int64[np.ndarray, " n"] = field(default_factory=lambda: np.empty(0, np.int64))
    statistic: Float64[np.ndarray, " n"] = field(default_factory=lambda: np.empty(0))
    rows: Float64[np.ndarray, "row n"] = field(default_factory=lambda: np.empty((0, 0)))

    def push(self, scores: Scores) -> list[Trigger]:
        """Triggers whose clusters end with these scores, in the order of time.

        Raises:
            SearchError: the scores are not those that come next, or are not numbers.
        """
        start = round((scores.gps_start - self.gps_start) / self.hop)
        if start < self.next:
            raise SearchError(
                f"scores from GPS {scores.gps_start:.4f} come again: those up to "
                f"{self.gps_start + (self.next - 1) * self.hop:.4f} are already searched"
            )
        if scores.valid.any() and not np.isfinite(scores.values[scores.valid]).all():
            raise SearchError(
                f"the network's statistic is not a number near GPS {scores.gps_start:.1f}: no candidate is made of it"
            )
        series = combine(scores, self.single_threshold)
        above = np.flatnonzero(series > self.threshold)
        if self.rows.shape[0] != len(scores.values):
            self.rows = np.empty((len(scores.values), 0))
        self.index = np.concatenate([self.index, above + start])
        self.statistic = np.concatenate([self.statistic, series[above]])
        self.rows = np.concatenate([self.rows, scores.values[:, above].astype(np.float64)], axis=1)
        self.next = start + len(series)
        return self._close(last=False)

    def finish(self) -> list[Trigger]:
        """Triggers of what is still open: no more scores will come."""
        return self._close(last=True)

    def _close(self, last: bool) -> list[Trigger]:
        join, longest = hops_apart(self.gap, self.hop), hops_apart(self.longest, self.hop)
        out: list[Trigger] = []
        done = 0
        for begin, end in _bounds(self.index, join, longest):
            over = self.next - self.index[end - 1] >= join or self.next - self.index[begin] >= longest
            if not (last or over or end < len(self.index)):
                break
            trigger = self.superevents.take(self._trigger(begin, end))
            if trigger is not None:
                out.append(trigger)
            done = end
        self.index, self.statistic, self.rows = self.index[done:], self.statistic[done:], self.rows[:, done:]
        return out

    def _trigger(self, begin: int, end: int) -> Trigger:
        index, statistic = self.index[begin:end], self.statistic[begin:end]
        loudest = int(statistic.argmax())
        return Trigger(
            gps=self.gps_start + plateau_centre(index, statistic) * self.hop + self.time_offset,
            statistic=float(statistic[loudest]),
            per_detector=tuple(self.rows[:, begin + loudest].tolist()),
            duration=float(index[-1] - index[0]) * self.hop,
            n_windows=end - begin,
            detectors=self.detectors,
        )


def find_triggers(scores: Scores, threshold: float, **settings: Any) -> list[Trigger]:
    """All triggers of a stretch of scores; settings as of `Clusterer`."""
    clusterer = Clusterer(scores.detectors, scores.gps_start, scores.hop, threshold, **settings)
    return clusterer.push(scores) + clusterer.finish()
