"""E1: how often a signal of a given strength is found, at a given false-alarm probability per window.

Beside the network stands the ideal matched filter: it is told the signal's own waveform, and has to find only its
phase and the place of its merger within the range in which mergers lie. No search can do better at that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from mma_realtime.data.simulated import SimulatedBBH, Windows
from mma_realtime.errors import SearchError
from mma_realtime.gw.snr import band_share

SNRS = (4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0)
FAPS = (1e-2, 1e-3)
AT_ONCE = 128  # windows: what a network makes of them stays in the cache; 1024 at once take 2.5 times as long
DRAWN_AT_ONCE = 1024  # windows of the ideal filter, whose draws come in such parts

Statistic = Callable[[Float32[Tensor, "batch detector time"]], Float32[Tensor, " batch"]]


@torch.no_grad()
def statistics(statistic: Statistic, windows: Windows) -> Float64[np.ndarray, " n"]:
    """The statistic of every window, in parts."""
    return torch.cat([statistic(part) for part in windows.x.split(AT_ONCE)]).double().cpu().numpy()


def threshold_at(noise: Float64[np.ndarray, " n"], fap: float) -> float:
    """The statistic that a share `fap` of the noise windows exceeds.

    Raises:
        SearchError: fewer than 10 windows would exceed it: such a threshold is chance.
    """
    if fap * len(noise) < 10:
        raise SearchError(
            f"{len(noise)} noise windows are too few for a false-alarm probability of {fap:g}: at least "
            f"{int(np.ceil(10 / fap))} are needed"
        )
    return float(np.sort(noise)[len(noise) - 1 - int(fap * len(noise))])


def name_of(fap: float, snr: float) -> str:
    """`fap1e-3/snr8`."""
    return f"fap1e{round(np.log10(fap))}/snr{snr:g}"


def efficiency(
    statistic: Statistic,
    data: SimulatedBBH,
    noise_windows: int = 50_000,
    signals: int = 2000,
    snrs: Sequence[float] = SNRS,
    faps: Sequence[float] = FAPS,
    prefix: str = "tpr",
) -> dict[str, float]:
    """Detection probability of windows with a signal, of masses that were not trained on.

    Args:
        statistic: of [batch, detector, time].
        data: whose test part is drawn from.
        noise_windows, signals: windows of noise alone, and at each signal-to-noise ratio.

    Returns:
        `<prefix>/fap1e-3/snr8` and so on, `threshold/fap1e-3`, and how many windows there were (`windows/noise`,
        `windows/signals` at each strength).
    """
    noise = statistics(statistic, data.noise_windows(noise_windows))
    thresholds = {fap: threshold_at(noise, fap) for fap in faps}
    out = {"windows/noise": float(noise_windows), "windows/signals": float(signals)}
    out |= {f"threshold/fap1e{round(np.log10(fap))}": threshold for fap, threshold in thresholds.items()}
    for snr in snrs:
        found = statistics(statistic, data.test_windows(snr, signals))
        for fap, threshold in thresholds.items():
            out[f"{prefix}/{name_of(fap, snr)}"] = float((found > threshold).mean())
    return out


def ideal_efficiency(
    data: SimulatedBBH,
    trials: int = 20_000,
    signals: int = 2000,
    snrs: Sequence[float] = SNRS,
    faps: Sequence[float] = FAPS,
    seed: int = 0,
) -> dict[str, float]:
    """The same for the matched filter that knows the waveform: the largest |z| over the places of the merger.

    Every trial has a signal of the test part of its own, in one window of white noise of the band; only what lies in
    the window counts, as for the network.

    Raises:
        SearchError: more than one detector.
    """
    if len(data.detectors) != 1:
        raise SearchError("the ideal matched filter is of one detector")
    generator = torch.Generator().manual_seed(seed)
    largest = {snr: [] for snr in (0.0, *snrs)}  # type: dict[float, list[Tensor]]
    bank = data.banks("test").signals
    for snr in largest:
        count = trials if snr == 0 else signals
        windows = data.noise_windows(count, part=f"ideal {snr:g}").x[:, 0]
        for part in windows.split(DRAWN_AT_ONCE):
            which = torch.randint(len(bank), (len(part),), generator=generator)
            largest[snr].append(_largest(part, bank.values[which, 0], bank.merger, snr, data, generator))
    values = {snr: torch.cat(parts).double().numpy() for snr, parts in largest.items()}
    out = {}
    for fap in faps:
        threshold = threshold_at(values[0.0], fap)
        out[f"ideal_threshold/fap1e{round(np.log10(fap))}"] = threshold
        for snr in snrs:
            out[f"ideal_tpr/{name_of(fap, snr)}"] = float((values[snr] > threshold).mean())
    return out


def share_of_ideal(
    found: Mapping[str, float], data: SimulatedBBH, trials: int, signals: int = 2000, snr: float = 8.0
) -> dict[str, float]:
    """What a network finds of what a known waveform finds, on windows of the same part: `ideal_share/fap1e-3/snr8`.

    Args:
        found: of `efficiency`, of one detector. trials, signals: of `ideal_efficiency`.
    """
    name = name_of(FAPS[-1], snr)
    ideal = ideal_efficiency(data, trials, signals, (snr,), FAPS[-1:], data.run_seed)
    return {f"ideal_share/{name}": found[f"tpr/{name}"] / ideal[f"ideal_tpr/{name}"]}


def _largest(
    noise: Float32[Tensor, "n time"],
    signal: Float32[Tensor, "n row"],
    merger: int | Tensor,
    snr: float,
    data: SimulatedBBH,
    generator: torch.Generator,
) -> Float32[Tensor, " n"]:
    """max over the merger's place of |z|, z normalised so that noise alone has |z|^2 of mean 2."""
    n, T = noise.shape
    low, high = (round(edge * data.sample_rate) for edge in data.merger_range)
    end = torch.randint(low, high + 1, (n,), generator=generator)  # samples before the window's end
    first = (torch.as_tensor(merger) - (T - end))[:, None] + torch.arange(T)
    inside = (first >= 0) & (first < signal.shape[1])
    shown = torch.where(inside, signal.gather(1, first.clamp(0, signal.shape[1] - 1)), 0.0)
    x = noise + snr * shown
    # The template with its merger at a fixed place, and its quadrature; a signal seen from there is moved by a lag.
    middle = (low + high) // 2
    place = T - middle
    first = (torch.as_tensor(merger) - place) + torch.arange(T).expand(n, T)
    inside = (first >= 0) & (first < signal.shape[1])
    template = torch.where(inside, signal.gather(1, first.clamp(0, signal.shape[1] - 1)), 0.0)
    size = 2 * T
    spectrum = torch.fft.rfft(template, n=size)
    power = template.square().sum(1, keepdim=True)
    product = torch.zeros(n, size, dtype=torch.complex64)
    product[:, : size // 2 + 1] = 2 * torch.fft.rfft(x, n=size) * spectrum.conj()  # analytic: both quadratures at once
    z = torch.fft.ifft(product) / power.sqrt()
    lags = torch.arange(middle - high, middle - low + 1) % size  # the places that there are, and no more
    # Noise that fills only the band has 1/B times the density of white noise of its variance.
    return z[:, lags].abs().amax(1) * band_share(data.sample_rate, *data.band) ** 0.5
