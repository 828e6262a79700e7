"""The ideal search for experiment E1: the template is known, the window is the network's (section 12).

For each window the statistic is the maximum of |z| over the times that a merger may have. No search can do better on
these windows without knowing the time; a bank, which has to try many templates, does worse.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from mma_realtime.errors import SearchError
from mma_realtime.gw.snr import band_share
from mma_realtime.gw.units import Hertz


def known_template_statistic(
    x: Float32[Tensor, "batch time"],
    template: Float32[Tensor, "batch long"],
    sample_rate: int,
    band: tuple[Hertz, Hertz],
    lags: range | None = None,
) -> Float32[Tensor, batch]:
    """The largest |z| of each window against its own template, over the places of the template in the window.

    Args:
        x: whitened windows, unit variance of noise that fills the band.
        template: whitened, of optimal SNR 1 when it is in the window whole; any length.
        sample_rate: Hz.
        band: that the noise fills (Hz).
        lags: samples by which the template is late that are tried; all that overlap where nothing is said.
    """
    n = x.shape[1] + template.shape[1]
    z = torch.fft.fft(x, n) * torch.fft.fft(template, n).conj()
    z[:, n // 2 + 1 :] = 0  # with the quadrature: twice the positive frequencies
    z[:, 1 : (n + 1) // 2] *= 2
    size = torch.fft.ifft(z).abs() * band_share(sample_rate, *band)
    if lags is not None:
        size = size[:, torch.as_tensor(list(lags)) % n]
    return size.amax(1)


def detection_curve(
    noise: Float32[Tensor, window], signals: Sequence[Float32[Tensor, window]], fap: float
) -> Float64[Tensor, snr]:
    """Share of signals above the threshold that a share `fap` of noise windows exceeds.

    Args:
        noise: statistics of windows without a signal.
        signals: statistics of windows with one, one list per SNR.
        fap: false-alarm probability per window.

    Raises:
        SearchError: too few noise windows for such a probability.
    """
    if len(noise) * fap < 10:
        raise SearchError(
            f"{len(noise)} noise windows are too few for a false-alarm probability of {fap:g}: at least "
            f"{10 / fap:.0f} are needed"
        )
    threshold = noise.double().sort().values[len(noise) - 1 - int(fap * len(noise))]
    return torch.stack([(s.double() > threshold).double().mean() for s in signals])
