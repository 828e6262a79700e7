"""Conditioning (section 4): strain as it comes, whitened, band-limited and at the network's rate, a hop at a time.

A second of output is whitened by one filter, made of the PSD of the seconds before it, and divided by the median of
|x| / 0.6745 of whitened seconds before it. All of that depends on the GPS second alone and not on how the strain was
cut into hops, so the stream and the offline search are one code path: the latter pushes longer blocks.

    raw [.........segment..|.........]            periodograms end at even GPS seconds
                     [half| second |half]         -> whitened second, half a filter length behind the newest sample
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import scipy.fft
import torch
from jaxtyping import Bool, Float32, Float64, Int64

from mma_realtime.data.strain import Strain
from mma_realtime.data.strain_files import runs, span
from mma_realtime.data.strain_parts import HOLE
from mma_realtime.errors import SearchError
from mma_realtime.gw.units import GPS, Hertz, Seconds
from mma_realtime.gw.whiten import MEDIAN_OF_NORMAL, whitening_filter
from mma_realtime.search.periodograms import median_bias, median_of, periodogram, widened_lines

SHORTEST_PSD: Seconds = 8.0  # section 4
SCALE_SECONDS = 4  # a trailing scale is their median: longer lags behind a PSD that is still being learnt
SECONDS_AT_ONCE = 64  # of strain in memory, offline
MOST_SEGMENTS = 1024  # that a file's PSD is the median of
LINE_WIDTH = 1.5  # over the filter's length: Hz to either side that a line is widened to
BEYOND_THE_BAND: Hertz = 4.0  # of the PSD that is kept, on either side
REPEATED = 64  # samples that equal those some time before: not by chance, a buffer was sent again
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Whitened:
    """Whitened samples that follow each other.

    Args:
        start: of the first, in samples at the network's rate since the state's `gps_start`.
        values: unit variance in noise; 0 where not valid.
        valid: False where the filter reaches into a gap, or noise is not known yet.
    """

    start: int
    values: Float64[np.ndarray, "detector time"]
    valid: Bool[np.ndarray, "detector time"]


@dataclass
class ConditionerState:
    """All that conditioning remembers, for `detectors` from `gps_start` on.

    Args:
        consumed: samples of raw strain taken in.
        raw, ok: the last of them (strain x 1e21), and whether they may be used.
        periodograms: of the last segments without a gap (scaled strain, per Hz, in the band), the newest last.
        labels: second, since `gps_start`, at which each ends; -1: none yet.
        medians: scale of the last whitened seconds, the newest last; nan: none yet.
        second, second_valid: the whitened samples, not scaled, of the second that is not whole yet.
        made: filters by detector and labels, so that they are not made twice; need not be kept.
    """

    detectors: tuple[str, ...]
    gps_start: int
    consumed: int
    raw: Float64[np.ndarray, "detector history"]
    ok: Bool[np.ndarray, "detector history"]
    periodograms: Float32[np.ndarray, "detector segment freq"]
    labels: Int64[np.ndarray, "detector segment"]
    medians: Float64[np.ndarray, "detector second"]
    second: Float64[np.ndarray, "detector part"]
    second_valid: Bool[np.ndarray, "detector part"]
    made: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class Conditioner:
    """Args:
    sample_rate_in: Hz, of the strain.
    sample_rate: Hz, of the network; a divisor of it.
    band: Hz, what is kept.
    filter_length: s; half of it is the latency of conditioning.
    psd: `trailing`: of the seconds before each second; `file`: given by `fitted`.
    psd_seconds: s of valid strain behind a trailing PSD once there is so much. Measured on 6 measured curves of O3a
        (1 - SNR / optimal SNR of a net trained on ideal whitening; in brackets, of a filter that knows the whitening):
        8 s 0.019 (0.081), 16 s 0.0065 (0.025), 32 s 0.0031 (0.012), 64 s 0.0017 (0.006) with a filter of 1 s; with
        2 s 0.035, 0.012, 0.0057, 0.0029; with 0.5 s 0.010, 0.0038, 0.0022, 0.0015, but lines are left 5 times, not
        2.4 times, above the noise.
    psd_least: s that are enough to begin with, and after a hole longer than `HOLE`.
    segment: s of a periodogram, half overlapping: an even number.
    fixed_psd: scaled strain, per Hz, one-sided, at multiples of 1 / segment Hz.
    fixed_scale: that whitened strain is divided by.

    Raises:
        SearchError: values that do not fit each other.
    """

    sample_rate_in: int = 2048
    sample_rate: int = 1024
    band: tuple[Hertz, Hertz] = (20.0, 400.0)
    filter_length: Seconds = 1.0
    psd: Literal["trailing", "file"] = "trailing"
    psd_seconds: Seconds = 32.0
    psd_least: Seconds = SHORTEST_PSD
    segment: int = 4
    fixed_psd: Float64[np.ndarray, "detector freq"] | None = field(default=None, repr=False)
    fixed_scale: Float64[np.ndarray, " detector"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        low, high = self.band
        if self.sample_rate < 1 or self.sample_rate_in % self.sample_rate:
            raise SearchError(
                f"strain at {self.sample_rate_in} Hz is not brought to a network's {self.sample_rate} Hz: the rate of "
                "the strain has to be a whole multiple"
            )
        if not 0 < low < high <= self.sample_rate / 2:
            raise SearchError(f"the band {low:g}-{high:g} Hz does not fit below half of {self.sample_rate} Hz")
        if self.psd not in ("trailing", "file"):
            raise SearchError(f"psd is {self.psd!r}: use trailing or file")
        if self.segment < 2 or self.segment % 2 or not SHORTEST_PSD <= self.psd_least <= self.psd_seconds:
            raise SearchError(
                f"a PSD of {self.psd_least:g} to {self.psd_seconds:g} s in segments of {self.segment} s: at least "
                f"{SHORTEST_PSD:g} s, in segments of an even number of seconds, are needed"
            )
        taps = self.filter_length * self.sample_rate_in
        if taps != round(taps) or taps % 2 or not 0 < self.filter_length <= 2:
            raise SearchError(f"filter_length is {self.filter_length:g} s: use up to 2 s, an even number of samples")

    @property
    def half(self) -> int:
        """Raw samples that the filter reaches to either side."""
        return round(self.filter_length * self.sample_rate_in) // 2

    @property
    def edge(self) -> Seconds:
        """s by which whitened strain is behind raw strain."""
        return self.half / self.sample_rate_in

    @property
    def warm_up(self) -> Seconds:
        """s of valid strain, at most, before the first valid whitened sample."""
        if self.psd == "file":
            return self.edge
        return self.psd_least + self.segment / 2 + self.edge + 1

    @property
    def bins(self) -> slice:
        """Of the PSD at multiples of 1 / segment Hz, those that the filter looks at."""
        low, high = self.band
        nyquist = self.sample_rate_in * self.segment // 2
        first = max(1, math.floor((low - BEYOND_THE_BAND) * self.segment))
        return slice(first, min(nyquist, math.ceil((high + BEYOND_THE_BAND) * self.segment)) + 1)

    def segments_in(self, seconds: Seconds) -> int:
        """Half overlapping segments in so much strain."""
        return int((seconds - self.segment) // (self.segment // 2)) + 1

    @property
    def fingerprint(self) -> str:
        """Of everything that changes whitened strain."""
        settings = (self.sample_rate_in, self.sample_rate, self.band, self.filter_length, self.psd, self.psd_seconds)
        digest = hashlib.sha256(repr((*settings, self.psd_least, self.segment)).encode())
        for array in (self.fixed_psd, self.fixed_scale):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def start(self, detectors: tuple[str, ...], gps_start: GPS) -> ConditionerState:
        """The state before the first sample, at a whole GPS second.

        Raises:
            SearchError: not a whole second; `file` without the PSD of a file, or with that of other detectors.
        """
        if gps_start != math.floor(gps_start):
            raise SearchError(f"strain begins at GPS {gps_start}: a whole second is needed")
        if self.psd == "file" and (self.fixed_psd is None or len(self.fixed_psd) != len(detectors)):
            raise SearchError(f"the PSD of a file with {', '.join(detectors)} is needed first: see Conditioner.fitted")
        n, history = len(detectors), max(self.segment * self.sample_rate_in, self.sample_rate_in + 2 * self.half)
        kept = 0 if self.psd == "file" else self.segments_in(self.psd_seconds) + 1
        scales = 0 if self.psd == "file" else SCALE_SECONDS
        return ConditionerState(
            detectors=detectors,
            gps_start=int(gps_start),
            consumed=0,
            raw=np.zeros((n, history)),
            ok=np.zeros((n, history), bool),
            periodograms=np.zeros((n, kept, self.bins.stop - self.bins.start), np.float32),
            labels=np.full((n, kept), -1, np.int64),
            medians=np.full((n, scales), np.nan),
            second=np.zeros((n, 0)),
            second_valid=np.zeros((n, 0), bool),
        )

    def advance(
        self, state: ConditionerState, block: Float64[np.ndarray, "detector n"], ok: Bool[np.ndarray, "detector n"]
    ) -> tuple[ConditionerState, Whitened]:
        """Take in the next raw samples; give back what can be whitened now.

        Samples that repeat those a second or a fraction of it before are a stale buffer: a gap.

        Args:
            state: left as it is.
            block: strain x 1e21, any number of samples.
            ok: False where a sample must not be used.
        """
        fs, half, n0 = self.sample_rate_in, self.half, state.consumed
        raw = np.concatenate([state.raw, np.where(ok, block, 0.0)], axis=1)
        again = _repeated(raw, block.shape[1] + 1, fs)
        _tell_repeated(state, again, fs)
        ok = ok & ~again[:, 1:]
        ok = np.concatenate([state.ok, ok], axis=1)
        origin, n1 = n0 - state.raw.shape[1], n0 + block.shape[1]  # of `raw`, in samples since gps_start
        if self.psd == "trailing":
            periodograms, labels = self._periodograms(state, raw, ok, origin, n1)
        else:
            periodograms, labels = state.periodograms, state.labels
        new = replace(state, consumed=n1, raw=raw[:, n1 - n0 :].copy(), ok=ok[:, n1 - n0 :].copy())
        first, last = max(0, n0 - half), max(0, n1 - half)
        if last <= first:
            return self._keep(new, periodograms, labels), Whitened(
                -(-first // self.step), np.zeros((len(raw), 0)), np.zeros((len(raw), 0), bool)
            )
        seconds = np.arange(first // fs, (last - 1) // fs + 1)
        filters, known, made = self._filters(seconds, periodograms, labels, state.made)
        frames, inside = _frames(raw, ok, seconds * fs - half - origin, fs + 2 * half)
        valid = _eroded(inside, half) & known[..., None]
        values = _convolved(frames, filters) if valid.any() else np.zeros(valid.shape)
        values, valid = (x.reshape(len(raw), -1) for x in (values, valid))
        pick = np.arange(-(-first // self.step) * self.step, last, self.step) - seconds[0] * fs
        values, valid = values[:, pick], valid[:, pick]
        values = np.where(valid, values, 0.0)
        new = replace(self._keep(new, periodograms, labels), made=made)
        whitened = Whitened((int(pick[0]) + int(seconds[0]) * fs) // self.step if len(pick) else 0, values, valid)
        if self.psd == "file":
            assert self.fixed_scale is not None
            return new, replace(whitened, values=values / self.fixed_scale[:, None])
        return self._scaled(new, whitened, known, int(seconds[0]))

    @property
    def step(self) -> int:
        """Raw samples per sample of the network."""
        return self.sample_rate_in // self.sample_rate

    def _keep(self, state: ConditionerState, periodograms: np.ndarray, labels: np.ndarray) -> ConditionerState:
        """Of the periodograms, those that seconds to come can still need, in a state of constant size."""
        kept = state.labels.shape[1]
        rows = [_last(labels[d], kept) for d in range(len(labels))]
        return replace(
            state,
            periodograms=np.stack([periodograms[d, row] for d, row in enumerate(rows)]),
            labels=np.stack([labels[d, row] for d, row in enumerate(rows)]),
        )

    def _periodograms(
        self, state: ConditionerState, raw: np.ndarray, ok: np.ndarray, origin: int, n1: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Those kept and those of segments that end in the new samples, at multiples of half a segment of GPS time."""
        fs, stride = self.sample_rate_in, self.segment // 2
        ends = [b for b in range(state.consumed // fs + 1, n1 // fs + 1) if (state.gps_start + b) % stride == 0]
        if not ends:
            return state.periodograms, state.labels
        length = self.segment * fs
        starts = np.array([b * fs - length - origin for b in ends])
        frames = np.stack([raw[:, a : a + length] for a in starts], axis=1)
        whole = np.stack([ok[:, a : a + length].all(axis=1) for a in starts], axis=1)
        with np.errstate(over="ignore", invalid="ignore"):  # no filter is made of what is no number
            new = periodogram(frames, fs)[..., self.bins].astype(np.float32)
        labels = np.where(whole, np.array(ends), -1)
        return np.concatenate([state.periodograms, new], axis=1), np.concatenate([state.labels, labels], axis=1)

    def _filters(
        self,
        seconds: Int64[np.ndarray, " second"],
        periodograms: Float32[np.ndarray, "detector segment freq"],
        labels: Int64[np.ndarray, "detector segment"],
        before: dict[tuple[int, ...], np.ndarray],
    ) -> tuple[
        Float64[np.ndarray, "detector second taps"],
        Bool[np.ndarray, "detector second"],
        dict[tuple[int, ...], np.ndarray],
    ]:
        """The filter of each second, whether there is one, and those made here."""
        if self.fixed_psd is not None and self.psd == "file":
            taps = before[()] if () in before else self._taps(self.fixed_psd)
            shape = (len(taps), len(seconds))
            return np.broadcast_to(taps[:, None], (*shape, taps.shape[-1])), np.ones(shape, bool), {(): taps}
        most, least = self.segments_in(self.psd_seconds), self.segments_in(self.psd_least)
        known = np.zeros((len(labels), len(seconds)), bool)
        out = np.zeros((len(labels), len(seconds), 2 * self.half + 1))
        made: dict[tuple[int, ...], np.ndarray] = {}
        for d, mine in enumerate(labels):
            for i, second in enumerate(seconds):
                usable = np.flatnonzero((mine >= 0) & (mine <= second))[-most:]
                holes = np.flatnonzero(np.diff(mine[usable], append=second) > HOLE + self.segment)
                usable = usable[holes[-1] + 1 :] if len(holes) else usable
                if len(usable) < least:
                    continue
                key = (d, *mine[usable].tolist())
                if key not in made:
                    if key in before:
                        made[key] = before[key]
                    else:
                        psd = median_of(periodograms[d, usable]) / median_bias(len(usable))
                        if not (np.isfinite(psd) & (psd > 0)).all():
                            continue  # a filter of no noise would be infinite: this is no detector's strain
                        made[key] = self._taps(self._whole(psd))
                out[d, i], known[d, i] = made[key], True
        return out, known, made

    def _whole(self, psd: Float64[np.ndarray, " band"]) -> Float64[np.ndarray, " freq"]:
        """The PSD, its lines widened, on all frequencies: the filter is zero beyond the band, whatever stands there."""
        psd = widened_lines(psd, self.segment, LINE_WIDTH / self.filter_length)
        before, after = self.bins.start, self.sample_rate_in * self.segment // 2 + 1 - self.bins.stop
        return np.pad(psd, (before, after), mode="edge")

    def _taps(self, psd: Float64[np.ndarray, "... freq"]) -> Float64[np.ndarray, "... taps"]:
        # Not refined: lines are widened already, which keeps as much of a signal at a quarter of the time.
        taps = whitening_filter(
            torch.from_numpy(psd), self.sample_rate_in, *self.band, length=self.filter_length, refinements=0
        )
        return taps.numpy()

    def _scaled(
        self, state: ConditionerState, new: Whitened, known: Bool[np.ndarray, "detector second"], first: int
    ) -> tuple[ConditionerState, Whitened]:
        """Divide each second by the median scale of the seconds before it; a second is measured once it is whole.

        Where the noise of a second is not `known` (from second `first` on), neither is the scale any more.
        """
        rate, part = self.sample_rate, state.second.shape[1]
        values = np.concatenate([state.second, new.values], axis=1)
        valid = np.concatenate([state.second_valid, new.valid], axis=1)
        out, good = np.zeros_like(values), np.zeros_like(valid)
        medians = state.medians
        whole = values.shape[1] // rate
        for i in range(whole + 1):
            here = slice(i * rate, min((i + 1) * rate, values.shape[1]))
            some = ~np.isnan(medians).all(axis=1)
            scale = np.array([np.median(row[~np.isnan(row)]) if yes else 1.0 for row, yes in zip(medians, some)])
            out[:, here] = values[:, here] / scale[:, None]
            good[:, here] = valid[:, here] & some[:, None]
            if i < whole:
                median = np.median(np.abs(values[:, here]), axis=1) / MEDIAN_OF_NORMAL
                measured = valid[:, here].all(axis=1) & np.isfinite(median) & (median > 0)
                medians = medians.copy()
                medians[~known[:, (new.start - part) // rate + i - first]] = np.nan
                medians[measured] = np.concatenate([medians[measured, 1:], median[measured, None]], axis=1)
        rest = slice(whole * rate, None)
        state = replace(state, medians=medians, second=values[:, rest], second_valid=valid[:, rest])
        return state, Whitened(new.start, np.where(good, out, 0.0)[:, part:], good[:, part:])

    def fitted(self, strain: Strain) -> Conditioner:
        """This conditioner with the PSD and the scale of all of `strain` (section 4, offline).

        Raises:
            SearchError: another sample rate; a detector without enough seconds that follow each other.
        """
        check_rate(self, strain)
        fs, psds = strain.sample_rate, []
        for d, name in enumerate(strain.detectors):
            stretches = runs(strain.valid[d])  # segments from the first second of each on
            ends = np.concatenate(
                [np.arange(a + self.segment, b + 1, self.segment // 2) for a, b in stretches] or [np.zeros(0, int)]
            )
            if len(ends) < self.segments_in(SHORTEST_PSD):
                raise SearchError(
                    f"{strain.source}: {name} has no {SHORTEST_PSD:g} s of strain without a gap between GPS "
                    f"{strain.gps_start:.0f} and {strain.gps_start + strain.duration:.0f}: its noise is not known"
                )
            ends = ends[np.linspace(0, len(ends) - 1, min(len(ends), MOST_SEGMENTS)).round().astype(int)]
            frames = (strain.values[d, (b - self.segment) * fs : b * fs] for b in ends)
            with np.errstate(over="ignore", invalid="ignore"):
                power = np.stack([periodogram(frame, fs)[self.bins] for frame in frames])
            psds.append(np.median(power, axis=0) / median_bias(len(ends)))
        if not (np.isfinite(psds) & (np.stack(psds) > 0)).all():
            raise SearchError(
                f"{strain.source}, {span(strain.gps_start, strain.gps_end)}: the noise is zero, or no number, at some "
                "frequency: this is no detector's strain"
            )
        ones = np.ones(len(psds))
        fixed = np.stack([self._whole(psd) for psd in psds])
        unscaled = replace(self, psd="file", fixed_psd=fixed, fixed_scale=ones)
        whitened = list(unscaled.whitened(strain))
        scale = [
            np.median(np.abs(np.concatenate([part.values[d][part.valid[d]] for part in whitened]))) / MEDIAN_OF_NORMAL
            for d in range(len(psds))
        ]
        return replace(unscaled, fixed_scale=np.array(scale))

    def whitened(self, strain: Strain | Iterable[Strain]) -> Iterator[Whitened]:
        """All of `strain`, or of blocks of it that follow each other, whitened, a minute at a time.

        Raises:
            SearchError: another sample rate.
        """
        state: ConditionerState | None = None
        for block in [strain] if isinstance(strain, Strain) else strain:
            check_rate(self, block)
            if state is None:
                state = self.start(block.detectors, block.gps_start)
            fs = block.sample_rate
            for at in range(0, block.duration, SECONDS_AT_ONCE):
                part = slice(at, at + SECONDS_AT_ONCE)
                ok = np.repeat(block.valid[:, part], fs, axis=1)
                state, new = self.advance(state, block.values[:, at * fs : (at + SECONDS_AT_ONCE) * fs], ok)
                yield new


def check_rate(conditioner: Conditioner, strain: Strain) -> None:
    """Raises:
    SearchError: the strain has not the rate that the conditioner takes in.
    """
    if strain.sample_rate != conditioner.sample_rate_in:
        raise SearchError(
            f"{strain.source} is sampled at {strain.sample_rate} Hz, the search takes {conditioner.sample_rate_in} Hz: "
            f"read it with sample_rate={conditioner.sample_rate_in}"
        )


def _repeated(raw: Float64[np.ndarray, "detector n"], last: int, sample_rate: int) -> Bool[np.ndarray, "detector last"]:
    """Whether each of the `last` samples ends `REPEATED` that equal those 1, 1/2, ... or 1/16 s before them.

    Buffers are as long, or divide it, in all live streams; what of one is not seen yet is within a filter of the rest.
    """
    found = np.zeros((len(raw), last), bool)
    n = last + REPEATED
    for part in (1, 2, 4, 8, 16):
        lag = sample_rate // part
        now, before = raw[:, -n:], raw[:, -n - lag : -lag]
        if not (now[:, ::REPEATED] == before[:, ::REPEATED]).any():
            continue  # so many in a row would have one of these among them
        same = (now == before) & (now != 0)  # a gap is zero, and known
        count = np.cumsum(same, axis=1, dtype=np.int32)
        found |= count[:, REPEATED:] - count[:, :-REPEATED] == REPEATED
    return found


def _tell_repeated(state: ConditionerState, again: Bool[np.ndarray, "detector n"], sample_rate: int) -> None:
    for name, row in zip(state.detectors, again, strict=True):
        begin = np.flatnonzero(row[1:] & ~row[:-1])
        if len(begin):
            gps = state.gps_start + (state.consumed + begin[0] - REPEATED + 1) / sample_rate
            log.warning("%s: strain repeats itself from GPS %.2f on: a stale buffer, taken as a gap", name, gps)


def _last(labels: np.ndarray, kept: int) -> np.ndarray:
    """Places of the last `kept` periodograms that there are, after as many that there are not as fill up the row."""
    there = np.flatnonzero(labels >= 0)[-kept:] if kept else np.empty(0, np.int64)
    absent = np.flatnonzero(labels < 0)[: kept - len(there)]
    return np.concatenate([absent, there])


def _frames(raw: np.ndarray, ok: np.ndarray, starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of `raw` that begin at `starts`; what lies beyond its ends is zero and not ok."""
    before, after = max(0, -int(starts[0])), max(0, int(starts[-1]) + length - raw.shape[1])
    out = []
    for x in (raw, ok):
        x = np.pad(x, [(0, 0), (before, after)])
        out.append(np.stack([x[:, a + before : a + before + length] for a in starts], axis=1))
    return out[0], out[1]


def _convolved(frames: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """The part of the convolutions that no end of a frame touches."""
    n, taps = frames.shape[-1], filters.shape[-1]
    size = scipy.fft.next_fast_len(n, real=True)  # circular: what wraps round falls into the part left out
    spectrum = scipy.fft.rfft(frames, size, axis=-1)
    spectrum *= scipy.fft.rfft(filters, size, axis=-1)
    return scipy.fft.irfft(spectrum, size, axis=-1)[..., taps - 1 : n]


def _eroded(ok: np.ndarray, half: int) -> np.ndarray:
    """Where all samples within `half` are ok; shorter by `half` at both ends."""
    bad = np.cumsum(np.pad(~ok, [*[(0, 0)] * (ok.ndim - 1), (1, 0)]), axis=-1)
    return bad[..., 2 * half + 1 :] == bad[..., : -2 * half - 1]
