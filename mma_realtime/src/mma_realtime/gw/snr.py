"""Signal-to-noise ratios (section 2): of signals, of filtered data, and of whitened series in a band.

Any scale of strain goes, as long as spectra are of the same: strain and Hz^-1, or strain x 1e21 and 1e42 Hz^-1.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex128, Float64
from torch import Tensor

from mma_realtime.errors import SearchError
from mma_realtime.gw.units import Hertz


def inverse_in_band(
    psd: Float64[Tensor, "*batch freq"], df: Hertz, f_low: Hertz, f_high: Hertz
) -> Float64[Tensor, "*batch freq"]:
    """1/S(f_k) where f_low <= f_k < f_high, else 0.

    Args:
        psd: one-sided, at f_k = k df.

    Raises:
        SearchError: the band is empty, or the density in it is not positive.
    """
    f = torch.arange(psd.shape[-1], dtype=torch.float64) * df
    inside = (f >= f_low) & (f < f_high)
    if not inside.any():
        raise SearchError(f"no frequency of 0 to {float(f[-1]):g} Hz lies in the band {f_low:g} to {f_high:g} Hz")
    if not (psd[..., inside] > 0).all():  # NaN is not positive
        raise SearchError(f"the noise's power is zero or undefined between {f_low:g} and {f_high:g} Hz: no data there?")
    return torch.where(inside, 1 / psd, 0.0)


def inner_product(
    a: Complex128[Tensor, "*batch freq"],
    b: Complex128[Tensor, "*batch freq"],
    psd: Float64[Tensor, "*batch freq"],
    df: Hertz,
    f_low: Hertz,
    f_high: Hertz,
) -> Float64[Tensor, "*batch"]:
    """<a|b> = 4 df Re sum conj(a) b / S over f_low <= f < f_high (section 2).

    Args:
        a, b: strain/Hz at 0, df, 2 df, ...
        psd: one-sided power spectral density (Hz^-1) there.
    """
    return 4 * df * ((a.conj() * b).real * inverse_in_band(psd, df, f_low, f_high)).sum(-1)


def optimal_snr(
    h: Complex128[Tensor, "*batch freq"], psd: Float64[Tensor, "*batch freq"], df: Hertz, f_low: Hertz, f_high: Hertz
) -> Float64[Tensor, "*batch"]:
    """sqrt(<h|h>): the mean SNR of a signal whose form is known."""
    return inner_product(h, h, psd, df, f_low, f_high).sqrt()


def matched_filter(
    data: Float64[Tensor, "*batch time"],
    template: Complex128[Tensor, "*batch freq"],
    psd: Float64[Tensor, "*batch freq"],
    sample_rate: float,
    f_low: Hertz,
    f_high: Hertz,
) -> Complex128[Tensor, "*batch time"]:
    """z(t) = 4 df sum_k d_k conj(h_k) / S_k e^(2 pi i f_k t) / sqrt(<h|h>), section 2: |z| is the SNR of a signal at t.

    In noise |z|^2 has mean 2. The series is periodic: templates wrap around its ends.

    Args:
        data: strain, an even number of samples.
        template: strain/Hz at the frequencies of the data's real FFT, its t = 0 where a signal's time is counted from.
        psd: one-sided (Hz^-1), at the same frequencies.
        sample_rate: Hz.
    """
    n = data.shape[-1]
    df = sample_rate / n
    weight = inverse_in_band(psd, df, f_low, f_high)
    product = torch.fft.rfft(data) / sample_rate * template.conj() * weight
    sigma = (4 * df * (template.abs().square() * weight).sum(-1, keepdim=True)).sqrt()
    return 4 * df * n * torch.fft.ifft(product, n) / sigma


def band_share(sample_rate: float, f_low: Hertz, f_high: Hertz) -> float:
    """B = (f_high - f_low) / (sample_rate / 2): the share of all frequencies that a band is."""
    return (f_high - f_low) / (sample_rate / 2)


def band_snr(
    whitened: Float64[Tensor, "*batch time"], sample_rate: float, f_low: Hertz, f_high: Hertz
) -> Float64[Tensor, "*batch"]:
    """Optimal SNR of a whitened, noise-free series in units of the noise's standard deviation: sqrt(B sum x^2).

    Noise of unit variance that fills only the band has the density 2/(sample_rate B), B times less than white noise
    has per variance: without B every SNR is stated 1/sqrt(B) times too large (trap 2).

    Args:
        whitened: limited to the band, scaled as `whiten` does.
        sample_rate: Hz.
    """
    return (band_share(sample_rate, f_low, f_high) * whitened.square().sum(-1)).sqrt()
