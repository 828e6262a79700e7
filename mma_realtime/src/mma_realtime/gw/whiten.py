"""Whitening (section 4): the noise's power from the data, and a short symmetric filter that makes it flat in a band.

Everything is float64: below 20 Hz real strain has a wall 1e4 times larger than its noise at 100 Hz, and float32 would
leave its rounding errors in the band. Any scale of strain goes; spectra are one-sided and of the same scale.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.signal import welch
from torch import Tensor

from mma_realtime.errors import StrainError
from mma_realtime.gw.snr import inverse_in_band
from mma_realtime.gw.units import Hertz, Seconds

ROOM = 8  # filters' lengths in a block of `whiten`
MEDIAN_OF_NORMAL = 0.6745  # of |x| where x has unit variance
BEYOND: Hertz = 4.0  # the band's edges, the density is still looked at
WALL_POWER, WALL_HEIGHT = 7, 1e4  # below: amplitudes are taken to rise with the 7th power of 1/f, at most so much
TINY = torch.finfo(torch.float64).tiny
RAMP = 2.0  # over the filter's length: Hz that the response takes from 0 at an edge of the band to all


def welch_psd(
    x: Float64[Tensor, "*batch time"], sample_rate: int, segment: Seconds = 4.0, overlap: float = 0.5
) -> Float64[Tensor, "*batch freq"]:
    """One-sided power spectral density: the median of Hann periodograms, its bias corrected (section 4).

    Args:
        x: strain without gaps.
        sample_rate: Hz.
        segment: seconds of a periodogram; frequencies are multiples of 1/segment up to half the sample rate.
        overlap: share of a segment that the next one has in common with it.

    Returns:
        per Hz, in the square of the strain's scale.

    Raises:
        StrainError: shorter than a segment, or with values that are not finite.
    """
    n = round(segment * sample_rate)
    if x.shape[-1] < n:
        raise StrainError(f"{x.shape[-1] / sample_rate:g} s of strain: a noise curve needs at least {segment:g} s")
    if not x.isfinite().all():
        raise StrainError("strain has values that are not finite: cut them out as gaps before measuring its noise")
    _, power = welch(x.double().numpy(), sample_rate, "hann", n, round(n * overlap), average="median")
    return torch.as_tensor(np.ascontiguousarray(power))


def _guarded(psd: Tensor, f: Tensor, f_low: Hertz, f_high: Hertz) -> Tensor:
    """The density in the band and a little beyond; outside a wall below that no data has to show, and a plain above."""
    first = int(torch.searchsorted(f, max(f_low - BEYOND, float(f[1]))))
    last = int(torch.searchsorted(f, f_high + BEYOND, right=True)) - 1
    guarded = psd.clone()
    guarded[..., :first], guarded[..., last:] = psd[..., first, None], psd[..., last, None]
    below = f < f_low
    rising = guarded[..., below].flip(-1).cummax(-1).values.flip(-1)
    guarded[..., below] = rising * (f_low / f[below]).pow(2 * WALL_POWER).clamp(max=WALL_HEIGHT**2)
    return guarded


def whitening_filter(
    psd: Float64[Tensor, "*batch freq"],
    sample_rate: int,
    f_low: Hertz,
    f_high: Hertz,
    length: Seconds = 1.0,
    refinements: int = 4,
) -> Float64[Tensor, "*batch taps"]:
    """Symmetric taps of `length` seconds whose response is nearest to 1/sqrt(S) in the band and to zero outside.

    Noise of density S comes out with unit variance and flat between f_low and f_high, but for the 2/length Hz inside
    of each edge where the response rises from 0. The filter limits the band enough to decimate behind it.

    Cutting the ideal filter in time (section 4) fills the notches of spectral lines: calibration lines and mains are
    then 70 to 90 % of the variance of whitened real strain at 1 s. So the cut filter h, in a Blackman window W, is
    where a search for the least sum_k S_k |H_k - R_k|^2, R the ideal response, begins: the power that is not as it
    should be in the output. Its normal equations are Toeplitz, and steps of conjugate gradients with W (1/S) W as
    preconditioner are a few Fourier transforms each; four leave 5 to 15 % to the lines.

    Args:
        psd: one-sided, at even spacing from 0 to half the sample rate. Further than 4 Hz from the band it is not used.
        sample_rate: Hz.
        length: seconds; there are length x sample_rate + 1 taps, and half of that is lost at each end of the data.
        refinements: steps; 0 is the filter cut in time.

    Raises:
        SearchError: the band holds no frequency, or the density in it is not positive.
        StrainError: the filter is longer than the density resolves.
    """
    n, half = 2 * (psd.shape[-1] - 1), round(length * sample_rate / 2)
    if 2 * half + 1 > n:
        raise StrainError(f"a filter of {length:g} s needs a noise curve from segments longer than that")
    f = torch.arange(psd.shape[-1], dtype=torch.float64) * sample_rate / n
    inverse = inverse_in_band(psd, sample_rate / n, f_low, f_high)
    ramp = torch.minimum(f - f_low, f_high - f).div(RAMP / length).clamp(0, 1)
    ideal = inverse.sqrt() * (0.5 - 0.5 * (torch.pi * ramp).cos())
    window = torch.blackman_window(2 * half + 3, periodic=False, dtype=torch.float64)[1:-1]

    def taps_of(response: Tensor) -> Tensor:
        impulse = torch.fft.irfft(response, n)
        return torch.cat([impulse[..., -half:], impulse[..., : half + 1]], -1)

    def response_of(taps: Tensor) -> Tensor:
        gap = taps.new_zeros(*taps.shape[:-1], n - 2 * half - 1)
        return torch.fft.rfft(torch.cat([taps[..., half:], gap, taps[..., :half]], -1))

    taps = taps_of(ideal) * window
    if refinements:
        S = _guarded(psd, f, f_low, f_high)
        residual = taps_of(S * (ideal - response_of(taps)))
        direction, before = torch.zeros_like(taps), torch.full_like(taps[..., :1], torch.inf)
        for _ in range(refinements):
            preconditioned = window * taps_of(response_of(window * residual) / S)
            size = (residual * preconditioned).sum(-1, keepdim=True)
            direction = preconditioned + size / before * direction
            turned = taps_of(S * response_of(direction))
            step = size / (direction * turned).sum(-1, keepdim=True).clamp(min=TINY)
            taps, residual, before = taps + step * direction, residual - step * turned, size.clamp(min=TINY)
    power = response_of(taps).abs().square()
    variance = torch.where(inverse > 0, power * psd, 0.0).sum(-1, keepdim=True) * sample_rate / n
    return taps / variance.sqrt()


def whiten(
    x: Float64[Tensor, "*batch time"], taps: Float64[Tensor, "*batch taps"]
) -> Float64[Tensor, "*batch whitened"]:
    """The filtered series wherever the whole filter has data: sample k belongs to sample k + (taps - 1) / 2 of x.

    By overlap-save: blocks of fast Fourier transforms, each giving the samples that its ends do not reach.

    Raises:
        StrainError: less data than taps.
    """
    k, length = taps.shape[-1], x.shape[-1]
    if length < k:
        raise StrainError(f"{length} samples of strain are fewer than the {k} of the whitening filter: give more")
    out = length - k + 1
    block = 1 << (min(ROOM * k, length) - 1).bit_length()
    hop = block - k + 1
    blocks = -(-out // hop)
    padded = torch.nn.functional.pad(x.double(), (0, (blocks - 1) * hop + block - length))
    spectra = torch.fft.rfft(padded.unfold(-1, block, hop)) * torch.fft.rfft(taps, block)[..., None, :]
    return torch.fft.irfft(spectra, block)[..., k - 1 :].flatten(-2)[..., :out]


def robust_scale(x: Float[Tensor, "*batch time"]) -> Float[Tensor, "*batch 1"]:
    """Standard deviation of the noise in x by the median of |x|, which a signal or a glitch does not move."""
    return x.abs().median(-1, keepdim=True).values / MEDIAN_OF_NORMAL
