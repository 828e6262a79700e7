"""What a bank finds in each detector, and what of it is coincident: the same template at the same time (section 7).

The statistic of the network is sqrt(sum of squared signal-to-noise ratios). Clusters are made here;
the background is that of `significance`, so that a bank and a network are measured alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
from jaxtyping import Bool, Float32, Float64, Int32

from mma_realtime.errors import NoSlideError, SearchError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.search.coincidence import CLUSTER_GAP, WINDOW_OF_COINCIDENCE, Trigger
from mma_realtime.search.significance import BEYOND_THE_WINDOW, Background, in_hops, slide_shifts

HOP: Seconds = 1 / 16  # of the grid that shifts lie on
WINDOW: Seconds = 1.0  # a template's answer to a transient is no longer than this


@dataclass(frozen=True, eq=False)
class Peaks:
    """Peaks of one detector, by template and then by time.

    Attributes:
        template: place in the bank.
        time: s from the stretch's start.
        snr: signal-to-noise ratio |z|.
    """

    template: Int32[np.ndarray, " peak"]
    time: Float64[np.ndarray, " peak"]
    snr: Float32[np.ndarray, " peak"]

    def __len__(self) -> int:
        return len(self.time)

    def where(self, keep: Bool[np.ndarray, " peak"]) -> Peaks:
        return Peaks(self.template[keep], self.time[keep], self.snr[keep])


@dataclass(frozen=True, eq=False)
class TemplateTriggers:
    """Of a stretch of strain.

    Attributes:
        detectors: their names.
        gps_start: of the stretch (GPS s).
        live: seconds that were searched.
        peaks: of each detector, louder than `threshold`.
        threshold: of |z| in one detector.
    """

    detectors: tuple[str, ...]
    gps_start: GPS
    live: Bool[np.ndarray, "detector second"]
    peaks: tuple[Peaks, ...]
    threshold: float

    @property
    def duration(self) -> int:
        return self.live.shape[1]

    @property
    def livetime(self) -> Seconds:
        """s in which every detector was searched."""
        return float(self.live.all(axis=0).sum())

    def without(self, gps: Sequence[GPS], margin: Seconds = WINDOW) -> TemplateTriggers:
        """As if the seconds within `margin` of these times had been a gap: for the exclusive background."""
        live, seconds = self.live.copy(), np.arange(self.duration)
        for t in gps:
            live[:, (seconds + 1 > t - margin - self.gps_start) & (seconds < t + margin - self.gps_start)] = False
        kept = [p.where(row[p.time.astype(int)]) for p, row in zip(self.peaks, live, strict=True)]
        return replace(self, live=live, peaks=tuple(kept))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Coincident peaks in order of time: places in both detectors' lists, and the network's statistic."""

    first: np.ndarray
    second: np.ndarray
    time: Float64[np.ndarray, " pair"]
    statistic: Float64[np.ndarray, " pair"]

    def clusters(self, gap: Seconds) -> list[slice]:
        """Stretches of pairs closer than `gap` to the next."""
        if not len(self.time):
            return []
        cuts = [0, *(np.flatnonzero(np.diff(self.time) >= gap) + 1).tolist(), len(self.time)]
        return [slice(a, b) for a, b in itertools.pairwise(cuts)]


def coincident_pairs(
    a: Peaks,
    b: Peaks,
    duration: Seconds,
    threshold: float,
    shift: Seconds = 0.0,
    window: Seconds = WINDOW_OF_COINCIDENCE,
) -> Pairs:
    """Peaks of one template within `window` of each other, and together at least `threshold`.

    Args:
        duration: of the stretch (s), round which `b` is shifted.
        threshold: of the network's statistic.
        shift: s by which `b` is late.
    """
    apart = duration + 2 * window + 1.0  # between two templates on one line of keys
    key_b = b.template * apart + b.time
    key_a = a.template * apart + (a.time - shift) % duration
    low = np.searchsorted(key_b, key_a - window, side="left")
    many = np.searchsorted(key_b, key_a + window, side="right") - low
    some = np.flatnonzero(many)
    first = np.repeat(some, many[some])
    within = np.arange(len(first)) - np.repeat(np.cumsum(many[some]) - many[some], many[some])
    second = low[first] + within
    statistic = np.hypot(a.snr[first].astype(np.float64), b.snr[second])
    loud = np.flatnonzero(statistic >= threshold)
    loud = loud[np.argsort(a.time[first[loud]], kind="stable")]
    return Pairs(first[loud], second[loud], a.time[first[loud]], statistic[loud])


def _two(triggers: TemplateTriggers) -> tuple[Peaks, Peaks]:
    if len(triggers.detectors) != 2:
        raise SearchError(
            f"a coincidence is of two detectors: {len(triggers.detectors)} given ({', '.join(triggers.detectors)})"
        )
    return triggers.peaks[0], triggers.peaks[1]


def network_triggers(
    triggers: TemplateTriggers, threshold: float, window: Seconds = WINDOW_OF_COINCIDENCE, gap: Seconds = CLUSTER_GAP
) -> list[Trigger]:
    """The loudest coincident template of every cluster of two detectors' peaks.

    Args:
        threshold: of sqrt(rho_1^2 + rho_2^2).
        window: s within which two detectors see the same wave.
        gap: s between clusters.

    Raises:
        SearchError: not two detectors.
    """
    a, b = _two(triggers)
    pairs = coincident_pairs(a, b, triggers.duration, threshold, 0.0, window)
    out = []
    for part in pairs.clusters(gap):
        loudest = part.start + int(pairs.statistic[part].argmax())
        i, j = int(pairs.first[loudest]), int(pairs.second[loudest])
        weight = float(a.snr[i]) ** 2 / float(pairs.statistic[loudest]) ** 2
        out.append(
            Trigger(
                gps=triggers.gps_start + weight * float(a.time[i]) + (1 - weight) * float(b.time[j]),
                statistic=float(pairs.statistic[loudest]),
                per_detector=(float(a.snr[i]), float(b.snr[j])),
                duration=float(pairs.time[part.stop - 1] - pairs.time[part.start]),
                n_windows=part.stop - part.start,
                detectors=triggers.detectors,
            )
        )
    return out


def slid_background(
    triggers: TemplateTriggers,
    threshold: float,
    step: Seconds | None = None,
    max_slides: int | None = None,
    on_source: Sequence[GPS] = (),
    *,
    correlated: bool = False,
    window: Seconds = WINDOW_OF_COINCIDENCE,
    gap: Seconds = CLUSTER_GAP,
) -> Background:
    """Chance coincidences of the second detector shifted round against the first by k `step`, k = 1, 2, ...

    Args:
        threshold: of the network's statistic.
        step: s between slides; the window of a transient and 1 s where nothing is said.
        max_slides: at most so many, those of the smallest shifts.
        on_source: GPS s of candidates that are taken out (the exclusive background).
        correlated: allow a shorter step; `independent_livetime_s` says what is independent.
        window: s of a coincidence.
        gap: s between clusters.

    Raises:
        SearchError: not two detectors, a step that is too short, or no slide fits.
    """
    a, b = _two(triggers)
    apart = WINDOW + BEYOND_THE_WINDOW
    step = apart if step is None else step
    if step < apart - 1e-9 and not correlated:
        raise SearchError(
            f"a slide step of {step:g} s is shorter than {apart:g} s: neighbouring slides would not be independent; "
            "use a longer step, or ask for correlated slides"
        )
    if on_source:
        triggers = triggers.without(on_source)
        a, b = _two(triggers)
    per_second = round(1 / HOP)
    hops = in_hops(step, HOP, "the slide step")
    shifts = slide_shifts(triggers.duration * per_second, hops, math.ceil(apart / HOP), max_slides)
    if not len(shifts):
        raise NoSlideError(
            f"{triggers.duration} s from GPS {triggers.gps_start:.1f} hold no slide: more than "
            f"{2 * apart:g} s are needed"
        )
    live = scipy.fft.rfft(np.repeat(triggers.live, per_second, axis=1).astype(np.float64), axis=1)
    overlap = scipy.fft.irfft(live[0] * live[1].conj(), triggers.duration * per_second)  # sum_t live1[t] live2[t - k]
    livetimes = np.rint(overlap)[shifts] * HOP
    if not livetimes.sum():
        raise NoSlideError("the detectors never overlap in any slide: there is no livetime to count in")
    found: list[float] = []
    for shift in shifts.tolist():
        pairs = coincident_pairs(a, b, triggers.duration, threshold, shift * HOP, window)
        found += [float(pairs.statistic[part].max()) for part in pairs.clusters(gap)]
    each = math.ceil(apart / step - 1e-9)
    statistics = np.sort(np.array(found, dtype=np.float64))
    return Background(
        statistics,
        float(livetimes.sum()),
        float(livetimes[::each].sum()),
        len(shifts),
        step,
        threshold,
        float(statistics[-1]) if len(statistics) else -math.inf,
    )
