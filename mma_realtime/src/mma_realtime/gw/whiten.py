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


def whitening_filter(
    psd: Float64[Tensor, "*batch freq"], sample_rate: int, f_low: Hertz, f_high: Hertz, length: Seconds = 1.0
) -> Float64[Tensor, "*batch taps"]:
    """Taps of 1/sqrt(S) in the band, zero outside, cut to `length` seconds in time by a Blackman window; symmetric.

    Noise of density S comes out with unit variance and flat between f_low and f_high, but for the 2/length Hz inside
    of each edge where the response rises from 0: edges that are no steeper than the window resolves keep the window's
    side lobes, and the wall below the band with them, out (of real strain 1e-5 of the power is left there; a Hann
    window leaves ten times as much). The filter limits the band enough to decimate behind it.

    Args:
        psd: one-sided, at even spacing from 0 to half the sample rate.
        sample_rate: Hz.
        length: seconds; there are length x sample_rate + 1 taps, and half of that is lost at each end of the data.

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
    response = inverse.sqrt() * (0.5 - 0.5 * (torch.pi * ramp).cos())
    impulse = torch.fft.irfft(response, n)
    taps = torch.cat([impulse[..., -half:], impulse[..., : half + 1]], -1)
    taps = taps * torch.blackman_window(2 * half + 3, periodic=False, dtype=torch.float64)[1:-1]
    power = torch.fft.rfft(taps, n).abs().square()
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
