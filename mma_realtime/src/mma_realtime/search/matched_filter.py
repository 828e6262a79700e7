"""The matched-filter search: the yardstick that networks are measured against (section 7).

strain -> whitened stretches (once per detector) -> per template: product, inverse FFT, peak of |z| per 1/16 s
       -> `template_triggers` (same template in both detectors, slides) -> the networks' triggers and evaluator.

z(t) = 4 df sum_k d_k conj(h_k) / S_k e^(2 pi i f_k t) / sigma (section 2) has no negative frequencies, so its values at
a rate of f_high - f_low determine it: the inverse FFT is made that short, not as long as the strain. A heavy template
ends far below f_high, and the transform is shorter still. Peaks between samples are found by a parabola through the
logarithm of |z|^2, exact for a Gaussian.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex64, Complex128, Float32, Float64, Int64
from torch import Tensor

from mma_realtime.data.strain import PSD_SECONDS, Strain
from mma_realtime.data.strain_files import runs
from mma_realtime.errors import SearchError
from mma_realtime.gw.constants import SCALE
from mma_realtime.gw.units import GPS, Hertz, Megaparsec, Seconds
from mma_realtime.gw.waveforms import chirp_time, peak_time, phenomd_coefficients
from mma_realtime.gw.whiten import welch_psd, whiten, whitening_filter
from mma_realtime.kernels.peaks import peak_reduce
from mma_realtime.kernels.waveform import layout, waveform_fd
from mma_realtime.search.bank import Bank
from mma_realtime.search.template_triggers import HOP, Peaks, TemplateTriggers

SEGMENT: Seconds = 256.0  # of strain in one FFT
LATE_TERMS = 1.25  # a signal lasts at most so much longer than its Newtonian chirp time
RINGDOWN: Seconds = 0.5  # after the merger
DISTANCE: Megaparsec = 400.0  # of templates
RATES = (256, 384, 512, 1024, 1536, 2048, 3072, 4096, 8192)  # Hz: of z; FFTs of 2^a or 3 2^a points
BATCH = 8  # templates in one inverse FFT
SHOULDER = 0.93  # of the threshold: what a sample may show of a peak beside it


@dataclass(frozen=True, eq=False)
class Piece:
    """Whitened strain of one detector in frequency, in the band only, weighted once more for filtering.

    Attributes:
        detector: place among the strain's detectors.
        second: of the strain, where the transform begins.
        used: seconds of the strain [first, last) in which z is used.
        data: 4 df d(f) W(f)^2, d scaled strain, W the whitening filter's response.
        noise: 4 df W(f)^4 S(f): the noise of z has variance sigma^2 = sum_k |h_k|^2 noise_k in each quadrature,
            spectral lines included that a short filter leaves.
        signal: 4 df W(f)^2: what the template itself would give is sum_k |h_k|^2 signal_k.
    """

    detector: int
    second: int
    used: tuple[int, int]
    data: Complex64[Tensor, f]
    noise: Float32[Tensor, f]
    signal: Float32[Tensor, f]


def band(seconds: Seconds, f_low: Hertz, f_high: Hertz) -> tuple[int, int]:
    """First and last + 1 bin, f_low <= f_k < f_high, of an FFT of so many seconds."""
    return math.ceil(f_low * seconds - 1e-9), math.ceil(f_high * seconds - 1e-9)


def template_series(
    bank: Bank, rows: slice, seconds: Seconds, f_low: Hertz, f_high: Hertz
) -> Complex64[Tensor, "template f"]:
    """h(f) of templates at 400 Mpc (scaled strain / Hz) in the band, conjugated; amplitudes peak at t = 0."""
    first, last = band(seconds, f_low, f_high)
    f = torch.arange(first, last, dtype=torch.float64) / seconds
    table = phenomd_coefficients(bank.m1[rows], bank.m2[rows], DISTANCE, f_low=f_low)
    table[:, layout.AMPLITUDE] *= SCALE
    table[:, layout.TIME] = -peak_time(bank.m1[rows], bank.m2[rows])
    return waveform_fd(table, f).conj().resolve_conj()


def snr_series(
    data: Complex64[Tensor, f],
    templates: Complex64[Tensor, "template f"],
    product: Complex64[Tensor, "template sample"],
) -> Complex64[Tensor, "template sample"]:
    """sum_k data_k templates_k e^(2 pi i k n / N) for every n, k from the band's first bin: |z| times sigma.

    Args:
        data: of a `Piece`; the first frequencies of the band, as many as templates have.
        templates: conjugated.
        product: room to work in; its width N is the number of samples of z, 0 beyond the templates' frequencies.
    """
    torch.mul(templates, data, out=product[:, : templates.shape[1]])
    return torch.fft.ifft(product, norm="forward")


def loud_bins(
    z: Complex64[Tensor, "template sample"], per_bin: int, threshold: Float32[Tensor, template]
) -> tuple[Int64[Tensor, bin], Int64[Tensor, bin], Int64[Tensor, bin]]:
    """Where the maximum of |z| in a bin of so many samples reaches its template's threshold.

    On a CPU the place of the maximum is looked for in those few bins only: that is a quarter of the time.

    Returns:
        template, bin, and sample of the maximum.
    """
    if z.is_cuda:
        power, sample, _ = peak_reduce(z, per_bin, math.inf)
        template, bins = torch.nonzero(power >= threshold.square()[:, None], as_tuple=True)
        return template, bins, sample[template, bins]
    size = torch.from_numpy(np.abs(z.numpy())).view(len(z), -1, per_bin)
    template, bins = torch.nonzero(size.amax(2) >= threshold[:, None], as_tuple=True)
    return template, bins, bins * per_bin + size[template, bins].argmax(1)


def enough(lost: Float32[Tensor, "edge template"], allowed: float) -> int:
    """The first edge above which no template of a batch has more than `allowed` of its SNR^2."""
    return int((lost.amax(1) <= allowed).to(torch.uint8).argmax())


@dataclass(frozen=True, eq=False)
class SnrSeries:
    """What a localiser needs of a candidate.

    Attributes:
        detectors: their names.
        snr: complex z of each detector, modulus the signal-to-noise ratio.
        sample_rate: Hz.
        toa: GPS s of each detector's middle sample.
        horizon: distance at which the template has SNR 1, optimally oriented (Mpc).
    """

    detectors: tuple[str, ...]
    snr: Complex128[Tensor, "detector sample"]
    sample_rate: int
    toa: tuple[GPS, ...]
    horizon: tuple[Megaparsec, ...]


class MatchedFilterSearch:
    """A bank, and how strain is filtered with it.

    Args:
        bank: templates; its band is the filter's.
        sample_rate: of the strain (Hz).
        segment: s of strain in one FFT; shorter strain takes a shorter one.
        threshold: of |z| in one detector.
        filter_length: s, of the whitening filter; half of it is lost at each edge.
        band_loss: share of SNR^2 that a template may lose where its transform is shortened; 0: never shortened below
            the band.
        psd: one-sided power density of scaled strain (per Hz) at even spacing from 0 to half the sample rate; where
            none is given, it is measured on the strain under each transform.

    Raises:
        SearchError: the band does not fit below half the sample rate, or a template does not fit the segment.
    """

    def __init__(
        self,
        bank: Bank,
        sample_rate: int = 2048,
        segment: Seconds = SEGMENT,
        threshold: float = 4.0,
        filter_length: Seconds = 1.0,
        band_loss: float = 1e-3,
        psd: Float64[Tensor, freq] | None = None,
    ) -> None:
        if not bank.f_high <= sample_rate / 2:
            raise SearchError(
                f"the bank's band ends at {bank.f_high:g} Hz, strain at {sample_rate} Hz holds up to "
                f"{sample_rate / 2:g} Hz: make a bank with a lower f_high"
            )
        longest = float(chirp_time(bank.m1, bank.m2, bank.f_low).max())
        self.before = math.ceil(LATE_TERMS * longest + filter_length)
        self.after = math.ceil(RINGDOWN + filter_length)
        if self.before + self.after > segment / 2:
            raise SearchError(
                f"the longest template lasts {longest:.1f} s from {bank.f_low:g} Hz, more than half of a segment of "
                f"{segment:g} s: use longer segments, or a bank of heavier systems or from a higher frequency on"
            )
        self.bank, self.sample_rate, self.segment, self.threshold = bank, sample_rate, segment, threshold
        self.filter_length, self.band_loss, self.psd = filter_length, band_loss, psd

    def weights(
        self, raw: Float64[Tensor, time], seconds: int
    ) -> tuple[Float64[Tensor, tap], Float64[Tensor, f], Float64[Tensor, f]]:
        """The whitening filter of noise like `raw`, its response W(f) and W(f)^2 S(f) in the band of a transform."""
        psd = welch_psd(raw, self.sample_rate) if self.psd is None else self.psd
        taps = whitening_filter(psd, self.sample_rate, self.bank.f_low, self.bank.f_high, self.filter_length)
        first, last = band(seconds, self.bank.f_low, self.bank.f_high)
        response = torch.fft.rfft(taps, n=seconds * self.sample_rate).abs()[first:last]
        f, grid = np.arange(first, last) / seconds, np.linspace(0, self.sample_rate / 2, len(psd))
        return taps, response, response.square() * torch.from_numpy(np.interp(f, grid, psd.numpy()))

    def seconds_of(self, longest: int) -> int:
        """s of the transform for gapless stretches of at most `longest` s: the segment, or a smaller power of 2."""
        needed = longest + self.before + self.after
        return min(round(self.segment), 1 << math.ceil(math.log2(needed)))

    def pieces(self, strain: Strain, seconds: int) -> Iterator[Piece]:
        """All gapless stretches of all detectors, whitened, cut and transformed.

        The noise of a piece is estimated from the strain under it. What lies beyond the ends of a stretch is 0: there a
        template finds less, never more.
        """
        rate, edge = self.sample_rate, math.ceil(self.filter_length / 2)
        advance = seconds - self.before - self.after
        first, last = band(seconds, self.bank.f_low, self.bank.f_high)
        for row in range(len(strain.detectors)):
            values = torch.from_numpy(strain.values[row])
            for begin, end in runs(strain.valid[row]):
                if end - begin < max(PSD_SECONDS, 2 * edge + 1):
                    continue
                for start in range(begin + edge, end - edge, advance):
                    stop = min(start + advance, end - edge)
                    a, b = max(begin, start - self.before - edge), min(end, stop + self.after + edge)
                    short = max(0, math.ceil(PSD_SECONDS) - (b - a))
                    a = max(begin, a - short)
                    raw = values[a * rate : b * rate]
                    taps, response, flat = self.weights(raw, seconds)
                    white = whiten(raw, taps)
                    lost = (len(raw) - len(white)) // 2
                    series = torch.zeros(seconds * rate, dtype=torch.float64)
                    at = a * rate + lost - (start - self.before) * rate
                    white = white[max(-at, 0) :][: len(series) - max(at, 0)]
                    series[max(at, 0) : max(at, 0) + len(white)] = white
                    spectrum = torch.fft.rfft(series)[first:last] * (response * (4 / seconds / rate))
                    weight = response.square() * (4 / seconds)
                    yield Piece(
                        row,
                        start - self.before,
                        (start, stop),
                        spectrum.to(torch.complex64),
                        (weight * flat).float(),
                        weight.float(),
                    )

    def triggers(self, strain: Strain, batch: int = BATCH) -> TemplateTriggers:
        """Peaks of every template in every detector.

        Raises:
            SearchError: the strain has another sample rate, or no stretch is long enough.
        """
        if strain.sample_rate != self.sample_rate:
            raise SearchError(
                f"{strain.source or 'strain'} is at {strain.sample_rate} Hz, the search at {self.sample_rate} Hz: read "
                "the strain at the search's rate"
            )
        longest = max((b - a for row in strain.valid for a, b in runs(row)), default=0)
        seconds = self.seconds_of(longest)
        pieces = list(self.pieces(strain, seconds))
        if not pieces:
            raise SearchError(
                f"{strain.source or 'strain'}: the longest gapless stretch is {longest} s, at least {PSD_SECONDS:g} s "
                "are needed"
            )
        live = np.zeros((len(strain.detectors), strain.duration), dtype=bool)
        for piece in pieces:
            live[piece.detector, slice(*piece.used)] = True
        found: list[list[Peaks]] = [[] for _ in strain.detectors]
        for detector, peaks in self._all_peaks(pieces, seconds, batch):
            found[detector].append(peaks)
        together = tuple(_ordered(each) for each in found)
        return TemplateTriggers(strain.detectors, strain.gps_start, live, together, self.threshold)

    def _all_peaks(self, pieces: list[Piece], seconds: int, batch: int) -> Iterator[tuple[int, Peaks]]:
        low, high = self.bank.f_low, self.bank.f_high
        rates = [r for r in RATES if r < high - low] + [next(r for r in RATES if r >= high - low)]
        if not self.band_loss:
            rates = rates[-1:]
        edges = [0, *(min(r * seconds, len(pieces[0].data)) for r in rates)]
        noise = torch.stack([piece.noise for piece in pieces], 1)
        rooms = {r: torch.zeros(batch, r * seconds, dtype=torch.complex64) for r in rates}
        widths = dict.fromkeys(rates, 0)
        for start in range(0, len(self.bank), batch):
            rows = slice(start, min(start + batch, len(self.bank)))
            templates = template_series(self.bank, rows, seconds, low, high)
            power = templates.abs().square()
            parts = torch.stack([power[:, a:b] @ noise[a:b] for a, b in itertools.pairwise(edges)])
            upto = parts.cumsum(0)  # sigma^2 up to each edge: [edge, template, piece]
            choice = enough((1 - upto / upto[-1]).amax(2), self.band_loss)
            rate, width = rates[choice], edges[choice + 1]
            product = rooms[rate][: len(templates)]
            if widths[rate] > width:
                product[:, width:] = 0
            widths[rate] = width
            short = templates[:, :width].contiguous()
            for number, piece in enumerate(pieces):
                z = snr_series(piece.data[:width], short, product)
                yield piece.detector, self._peaks(z, upto[choice, :, number].sqrt(), piece, rate, start)

    def _peaks(
        self,
        z: Complex64[Tensor, "template sample"],
        sigma: Float32[Tensor, template],
        piece: Piece,
        rate: int,
        row: int,
    ) -> Peaks:
        """Local maxima of |z| / sigma above the threshold, one per template and 1/16 s, between samples."""
        template, _, at = loud_bins(z, round(rate * HOP), SHOULDER * self.threshold * sigma)
        n = z.shape[1]
        near = torch.stack([z[template, (at + i).clamp(0, n - 1)] for i in (-1, 0, 1)]).abs().square().double()
        before, here, after = near.clamp(min=1e-30).log()
        top = (here >= before) & (here >= after) & (2 * here > before + after)
        offset = torch.where(top, (before - after) / (2 * (before - 2 * here + after)), 0.0)
        height = here - (before - after) * offset / 4
        snr = (height / 2).exp() / sigma[template]
        keep = top & (snr >= self.threshold)
        time = piece.second + (at + offset)[keep] / rate
        inside = (time >= piece.used[0]) & (time < piece.used[1])
        return Peaks(
            (template[keep] + row)[inside].int().numpy(), time[inside].numpy(), snr[keep][inside].float().numpy()
        )


def _ordered(parts: list[Peaks]) -> Peaks:
    """One list, by template and then by time."""
    if not parts:
        return Peaks(np.empty(0, np.int32), np.empty(0), np.empty(0, np.float32))
    template = np.concatenate([p.template for p in parts])
    time = np.concatenate([p.time for p in parts])
    snr = np.concatenate([p.snr for p in parts])
    order = np.lexsort((time, template))
    return Peaks(template[order], time[order], snr[order])


def snr_series_at(
    search: MatchedFilterSearch, strain: Strain, template: int, gps: GPS, half_width: Seconds = 0.1
) -> SnrSeries:
    """The complex SNR of one template around a candidate, in every detector that has strain there.

    Args:
        template: place in the bank.
        gps: of the middle, to the nearest sample (GPS s).
        half_width: s on either side.

    Raises:
        SearchError: no detector has strain on both sides.
    """
    rate = search.sample_rate
    seconds = search.seconds_of(strain.duration)
    middle, half = round((gps - strain.gps_start) * rate), round(half_width * rate)
    h = template_series(search.bank, slice(template, template + 1), seconds, search.bank.f_low, search.bank.f_high)[0]
    power = h.abs().square().double()
    first, last = band(seconds, search.bank.f_low, search.bank.f_high)
    names, series, horizons = [], [], []
    for piece in search.pieces(strain, seconds):
        if not piece.used[0] * rate <= middle - half or not middle + half < piece.used[1] * rate:
            continue
        spectrum = torch.zeros(seconds * rate, dtype=torch.complex128)
        spectrum[first:last] = piece.data.to(torch.complex128) * h
        sigma = float((power * piece.noise).sum().sqrt())
        at = middle - piece.second * rate
        names.append(strain.detectors[piece.detector])
        series.append(torch.fft.ifft(spectrum, norm="forward")[at - half : at + half + 1] / sigma)
        horizons.append(DISTANCE * float((power * piece.signal).sum()) / sigma)
    if not names:
        raise SearchError(
            f"no detector of {strain.source or 'the strain'} has strain without gaps {half_width:g} s around "
            f"GPS {gps:.4f}"
        )
    toa = strain.gps_start + middle / rate
    return SnrSeries(tuple(names), torch.stack(series), rate, (toa,) * len(names), tuple(horizons))
