"""Banks of whitened signals and noise from which training windows are put together (section 3).

A signal is IMRPhenomD, whitened by a noise curve drawn for it, and scaled to unit optimal signal-to-noise ratio in the
band: of the whole signal, in all its detectors together. What is stored is the stretch that windows can show, a
second or two around the merger; light systems have been in the band for longer, and keep that loss in a window as in
a search. With several detectors each signal comes from its own direction and orientation: amplitudes, phases and
arrival times of its detectors belong together (section 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex64, Float32, Float64
from scipy.fft import next_fast_len
from torch import Tensor

from mma_realtime.data.draws import band_fraction, draw_masses, in_band, stream, uniform, whole
from mma_realtime.errors import SearchError
from mma_realtime.gw.constants import MTSUN_S, SCALE
from mma_realtime.gw.detectors import antenna_pattern, delay, detector
from mma_realtime.gw.psd import DESIGN_CURVES, NoiseCurve, design_curve, draw_curve
from mma_realtime.gw.waveforms import peak_time, phenomd_coefficients
from mma_realtime.gw.whiten import robust_scale, welch_psd, whiten, whitening_filter
from mma_realtime.kernels.waveform import waveform_fd
from mma_realtime.kernels.waveform.layout import AMPLITUDE, F_CUT, F_LOW, PHASE, TIME

AFTER = 0.3  # s of the ring-down, and of later arrivals, that a row keeps behind the merger
LEAD = 0.5  # s in which the start of a signal that is longer than its row fades in
POOL = 64  # curves, perturbed at random, that the signals of a bank share where none are measured
CHUNK = 512  # signals at a time: their spectra stay in a core's cache
SEGMENT = 32.0  # s of noise in a row
PSD_SECONDS = 16.0  # of noise before a row, from which the conditioned kind takes its spectrum
FILTER_SECONDS = 1.0


@dataclass(frozen=True)
class SignalBank:
    """Whitened signals of unit optimal signal-to-noise ratio in the band: B sum(values^2) = 1 if all of it is stored.

    Attributes:
        values: [signal, detector, time].
        merger: the sample in which the amplitude in time peaks, were all detectors where their mean arrival is.
        m1, m2: component masses (solar masses, detector frame), m1 >= m2.
        delay: arrival at each detector after the mean of the detectors' (s).
        share: of the squared signal-to-noise ratio that each detector has.
    """

    values: Float32[Tensor, "signal detector time"]
    merger: int
    m1: Float64[Tensor, " signal"]
    m2: Float64[Tensor, " signal"]
    delay: Float64[Tensor, "signal detector"]
    share: Float32[Tensor, "signal detector"]

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device) -> SignalBank:
        """With the signals on the device; masses and times stay."""
        return replace(self, values=self.values.to(device))


def make_signal_bank(
    n: int,
    seed: int,
    sample_rate: int = 1024,
    band: tuple[float, float] = (20.0, 400.0),
    duration: float = 1.25,
    m_range: tuple[float, float] = (5.0, 75.0),
    q_max: float = 10.0,
    curves: Sequence[NoiseCurve] = (),
    detectors: tuple[str, ...] = ("H1",),
    part: str = "train",
) -> SignalBank:
    """n whitened signals, the merger `AFTER` seconds before the end of each row.

    Args:
        n: signals.
        seed, part: the same pair gives the same bank; parts (`train`, `validation`, `test`) share no masses.
        sample_rate: Hz.
        band: f_low, f_high in Hz; f_low <= f < f_high is kept.
        duration: of a row (s).
        m_range: of both component masses (solar masses).
        q_max: largest mass ratio.
        curves: noise curves to draw from; measured ones are taken for the detector they bear the name of, where there
            are several detectors. Default: the design curves, perturbed.
        detectors: names; a single one stands for any.

    Raises:
        SearchError: a band beyond Nyquist or beyond a curve's table, an unknown detector or part, masses that there
            are not, a row too short to hold a merger.
    """
    samples = round(duration * sample_rate)
    merger = samples - round(AFTER * sample_rate)
    if merger <= 0:
        raise SearchError(f"rows of {duration:g} s end before the merger: make them longer than {AFTER:g} s")
    share_of_band = band_fraction(sample_rate, band)
    period = next_fast_len(samples + round(LEAD * sample_rate), real=True)
    f = torch.fft.rfftfreq(period, 1 / sample_rate, dtype=torch.float64)
    kept = in_band(period, sample_rate, band).nonzero().squeeze(1)
    first, f = int(kept[0]), f[kept]

    generator = stream(seed, f"signals {part}")
    m1, m2 = draw_masses(n, m_range, q_max, part, generator)
    pools = [one_over_asd(curves, name, f, len(detectors) > 1, generator) for name in detectors]
    draws = torch.rand(n, 6 + len(detectors), generator=generator, dtype=torch.float64)
    response, arrival = sky(detectors, draws)

    table = phenomd_coefficients(m1, m2)
    table[:, AMPLITUDE] *= SCALE
    table[:, TIME] = merger / sample_rate - peak_time(m1, m2)
    table[:, PHASE] += 2 * math.pi * draws[:, 0]
    table[:, F_LOW], table[:, F_CUT] = band[0], table[:, F_CUT].clamp(max=band[1])

    values = torch.empty(n, len(detectors), samples)
    share = torch.empty(n, len(detectors))
    for rows in torch.arange(n).split(CHUNK):
        h = waveform_fd(table[rows], f, dtype=torch.complex64)
        fade = fade_in(m1[rows], m2[rows], f, merger / sample_rate)
        spectrum = torch.zeros(len(rows), len(detectors), period // 2 + 1, dtype=torch.complex64)
        for d, pool in enumerate(pools):
            whitened = h * pool[whole(draws[rows, 6 + d], len(pool))]
            if len(detectors) > 1:
                whitened *= arriving(response[rows, d], arrival[rows, d], f)
            share[rows, d] = torch.view_as_real(whitened).square().sum((-1, -2))
            torch.mul(whitened, fade, out=spectrum[:, d, first : first + len(f)])
        # Parseval: sum over time of x^2 is 2 / period times the sum over the band of |X|^2.
        total = (share_of_band * 2 / period * share[rows].sum(1)).rsqrt()
        values[rows] = torch.fft.irfft(spectrum, period)[..., :samples] * total[:, None, None]
    return SignalBank(values, merger, m1, m2, arrival, share / share.sum(1, keepdim=True))


def sky(
    detectors: tuple[str, ...], draws: Float64[Tensor, "signal draws"]
) -> tuple[Tensor, Float64[Tensor, "signal detector"]]:
    """Complex responses, F+ (1 + cos^2 i)/2 - i Fx cos i, and arrivals after the detectors' mean (s).

    Directions and orientations are isotropic. A single detector takes all as it comes: its response is a size and a
    phase, and both are drawn anyway.
    """
    if len(detectors) == 1:
        return torch.ones(len(draws), 1), torch.zeros(len(draws), 1, dtype=torch.float64)
    ra, psi = 2 * math.pi * draws[:, 1], math.pi * draws[:, 3]
    dec, cos_i = uniform(draws[:, 2], -1, 1).asin(), uniform(draws[:, 4], -1, 1)
    response, arrival = [], []
    for name in detectors:
        plus, cross = antenna_pattern(detector(name), ra, dec, psi, 0.0)
        response.append(torch.complex(plus * (1 + cos_i**2) / 2, -cross * cos_i))
        arrival.append(delay(detector(name), ra, dec, 0.0))
    times = torch.stack(arrival, 1)
    return torch.stack(response, 1), times - times.mean(1, keepdim=True)


def arriving(
    response: Tensor, arrival: Float64[Tensor, " signal"], f: Float64[Tensor, " freq"]
) -> Complex64[Tensor, "signal freq"]:
    """response exp(-2 pi i f arrival): the same wave at another place, to the fraction of a sample."""
    angle = (-2 * math.pi * arrival[:, None] * f).float()
    return torch.polar(torch.ones_like(angle), angle) * response[:, None].to(torch.complex64)


def one_over_asd(
    curves: Sequence[NoiseCurve], name: str, f: Float64[Tensor, " freq"], own: bool, generator: torch.Generator
) -> Float32[Tensor, "curve freq"]:
    """Reciprocals of the amplitude densities (of strain times `SCALE`) that a detector's signals are whitened with."""
    pool = list(curves)
    if own and any(curve.name.startswith(name) for curve in pool):
        pool = [curve for curve in pool if curve.name.startswith(name)]
    if not pool:
        pool = [design_curve(curve) for curve in DESIGN_CURVES]
    if not all(curve.measured for curve in pool):
        pool = [draw_curve(pool, generator) for _ in range(POOL)]
    return torch.stack([1 / (SCALE * curve.asd(f)) for curve in pool]).float()


def fade_in(
    m1: Float64[Tensor, " signal"], m2: Float64[Tensor, " signal"], f: Float64[Tensor, " freq"], before: float
) -> Float32[Tensor, "signal freq"]:
    """0 at the frequency of `before` + 0.8 LEAD seconds to the merger, 1 from that of `before` + 0.2 LEAD on.

    Frequency at a time before the merger to leading order: f = (5 M / (256 eta t))^{3/8} / (pi M). Without it what is
    earlier than the row would come round and lie over its end.
    """
    total = MTSUN_S * (m1 + m2)
    eta = m1 * m2 / (m1 + m2) ** 2

    def at(time: float) -> Tensor:
        return (5 * total / (256 * eta * time)) ** 0.375 / (math.pi * total)

    low, high = at(before + 0.8 * LEAD)[:, None], at(before + 0.2 * LEAD)[:, None]
    return torch.sin(0.5 * math.pi * ((f - low) / (high - low)).float().clamp(0, 1)).square()


def make_noise_bank(
    seconds: float,
    seed: int,
    sample_rate: int = 1024,
    band: tuple[float, float] = (20.0, 400.0),
    part: str = "train",
    conditioned: bool = False,
    curves: Sequence[NoiseCurve] = (),
) -> Float32[Tensor, "row time"]:
    """Noise of unit variance in the band, in independent rows of `SEGMENT` seconds.

    Args:
        seconds: in all, rounded up to whole rows.
        seed, part: the same pair gives the same bank.
        sample_rate: Hz.
        band: f_low, f_high in Hz.
        conditioned: coloured by a curve drawn for each row, then whitened by the spectrum estimated from the
            `PSD_SECONDS` before the row as in a search, so that errors of the estimate are part of the noise;
            otherwise white.
        curves: to draw from (default: the design curves, perturbed).

    Raises:
        SearchError: a band beyond Nyquist or beyond a curve's table.
    """
    band_fraction(sample_rate, band)
    length, rows = round(SEGMENT * sample_rate), math.ceil(seconds / SEGMENT)
    generator = stream(seed, f"noise {part}")
    if not conditioned:
        return band_noise(rows, length, in_band(length, sample_rate, band), generator)
    known = list(curves) or [design_curve(name) for name in DESIGN_CURVES]
    warm_up, edge = round(PSD_SECONDS * sample_rate), round(FILTER_SECONDS * sample_rate)
    whole_length = next_fast_len(warm_up + length + edge, real=True)
    f = torch.fft.rfftfreq(whole_length, 1 / sample_rate, dtype=torch.float64)
    out = torch.empty(rows, length)
    for row in range(rows):
        curve = draw_curve(known, generator)
        low, high = float(curve.f[0]), min(float(curve.f[-1]), sample_rate / 2)
        colour = 1 / curve.asd_in_band(f, low, high)
        colour = torch.where(colour > 0, SCALE / colour, 0.0)
        white = torch.fft.rfft(torch.randn(whole_length, generator=generator, dtype=torch.float64))
        strain = torch.fft.irfft(white * colour, whole_length)
        psd = welch_psd(strain[:warm_up], sample_rate)
        taps = whitening_filter(psd, sample_rate, *band, length=FILTER_SECONDS)
        quiet = whiten(strain[warm_up:], taps)[:length]
        out[row] = (quiet / robust_scale(quiet)).float()
    return out


def band_noise(rows: int, length: int, keep: Tensor, generator: torch.Generator) -> Float32[Tensor, "rows time"]:
    """White Gaussian noise in the kept bins of an rfft, of unit variance, without a seam between end and start."""
    bins = int(keep.sum())
    spectrum = torch.zeros(rows, length // 2 + 1, dtype=torch.complex64)
    # A real series of n samples from K bins of E|X|^2 = s^2 has the variance 2 K s^2 / n^2.
    spectrum[:, keep] = torch.randn(rows, bins, generator=generator, dtype=torch.complex64) * (
        length / math.sqrt(2 * bins)
    )
    return torch.fft.irfft(spectrum, length)
