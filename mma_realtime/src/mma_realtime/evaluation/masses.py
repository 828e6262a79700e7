"""E2: how well the predictor tells masses, against the signal-to-noise ratio, and beside a grid of templates.

On the grid a matched filter tells the masses of the template that is loudest anywhere in the window. It knows the noise
curve, and the places where mergers lie; the signals' masses are none of the grid's, as they are none of training's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Complex64, Float, Float32, Int64
from scipy.fft import next_fast_len
from torch import Tensor

from mma_realtime.data.bank import AFTER, SEGMENT, SignalBank, make_noise_bank, make_signal_bank
from mma_realtime.data.draws import in_band, stream
from mma_realtime.data.simulated import SLACK, SimulatedBBH
from mma_realtime.errors import SearchError
from mma_realtime.evaluation.efficiency import AT_ONCE
from mma_realtime.gw.psd import DESIGN_CURVES, design_curve

SNRS = (6.0, 8.0, 10.0, 15.0, 20.0)
GRID_SNRS = (10.0, 20.0)
TEMPLATES = 2500  # as many as Deep Filtering has
WINDOWS = 300  # at each of these

Predictor = Callable[[Float32[Tensor, "batch detector time"]], Float32[Tensor, "batch 2"]]


def chirp_mass(masses: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """(m1 m2)^(3/5) / (m1 + m2)^(1/5), solar masses."""
    return masses.prod(1) ** 0.6 / masses.sum(1) ** 0.2


@torch.no_grad()
def mass_errors(
    predictor: Predictor, data: SimulatedBBH, signals: int = 2000, snrs: Sequence[float] = SNRS
) -> dict[str, float]:
    """Relative errors on windows with a signal, of masses that were not trained on.

    Returns:
        `chirp_mass_error/snr10`: median of |Mc_pred - Mc| / Mc; `mass_error/snr10`: mean of |m_pred - m| / m over both
        masses; `guess_chirp_mass_error`: the median error of always naming the median of the test part's chirp masses.
    """
    out: dict[str, float] = {}
    for snr in snrs:
        windows = data.test_windows(snr, signals)
        predicted = torch.cat([predictor(part) for part in windows.x.split(AT_ONCE)]).clamp_min(0.1)
        true = windows.masses
        error = (chirp_mass(predicted) - chirp_mass(true)).abs() / chirp_mass(true)
        out[f"chirp_mass_error/snr{snr:g}"] = float(error.median())
        out[f"mass_error/snr{snr:g}"] = float(((predicted - true).abs() / true).mean())
        truth = chirp_mass(true)
        out["guess_chirp_mass_error"] = float(((truth - truth.median()).abs() / truth).median())
    return out


@torch.no_grad()
def beside_grid(
    predictor: Predictor, data: SimulatedBBH, signals: int = WINDOWS, templates: int = TEMPLATES,
    snrs: Sequence[float] = GRID_SNRS,
) -> dict[str, float]:  # fmt: skip
    """The predictor and the grid on the same windows of one detector, noise and signals of one design curve.

    Args:
        signals: windows at each signal-to-noise ratio, of the test part's masses.
        templates: of the grid, of masses as training has them.

    Returns:
        `grid/network_error/snr10` and `grid/template_error/snr10`, medians of |Mc_told - Mc| / Mc, and
        `grid/template_over_network/snr10`, their ratio: above 1 the network is better.

    Raises:
        SearchError: two detectors.
    """
    if len(data.detectors) != 1:
        raise SearchError(f"masses beside a grid are of one detector's windows, not of {', '.join(data.detectors)}")
    curve = replace(design_curve(DESIGN_CURVES[0]), measured=True)  # as it is, not perturbed
    row = data.window - data.merger_range[0] + AFTER + SLACK
    recipe = (data.sample_rate, data.band, row, data.m_range, data.q_max, (curve,), data.detectors)
    grid = make_signal_bank(templates, data.run_seed, *recipe, part="train")
    asked = make_signal_bank(signals, data.run_seed, *recipe, part="test")
    masses, true = (torch.stack([bank.m1, bank.m2], 1) for bank in (grid, asked))
    truth, of_grid = chirp_mass(true), chirp_mass(masses)
    seconds = SEGMENT * math.ceil(signals / (SEGMENT // data.window))
    part = "test masses beside a grid"
    noise = make_noise_bank(seconds, data.run_seed, data.sample_rate, data.band, part)
    out: dict[str, float] = {}
    for snr in snrs:
        generator = stream(data.run_seed, f"mergers beside a grid at {snr:g}")
        x = _windows(noise, asked, snr, data, generator)
        predicted = torch.cat([predictor(part[:, None]) for part in x.split(AT_ONCE)]).double().clamp_min(0.1).cpu()
        loudest = of_grid[loudest_templates(x, grid, data)]
        network, template = (
            float(((told - truth).abs() / truth).median()) for told in (chirp_mass(predicted), loudest)
        )
        out |= {f"grid/network_error/snr{snr:g}": network, f"grid/template_error/snr{snr:g}": template}
        out[f"grid/template_over_network/snr{snr:g}"] = template / max(network, 1e-9)
    return out


def _windows(
    noise: Float32[Tensor, "row time"], bank: SignalBank, snr: float, data: SimulatedBBH, generator: torch.Generator
) -> Float32[Tensor, "signal time"]:
    """A window of every signal, its merger at an even draw of the range."""
    n, T = len(bank), data.samples
    low, high = (round(edge * data.sample_rate) for edge in data.merger_range)
    end = torch.randint(low, high + 1, (n,), generator=generator)
    return noise[:, : noise.shape[1] // T * T].reshape(-1, T)[:n] + snr * _shown(bank, end, T)


def _shown(bank: SignalBank, end: Int64[Tensor, " signal"], T: int) -> Float32[Tensor, "signal time"]:
    """What windows of T samples show of the signals, mergers so many samples before their ends."""
    signal = bank.values[:, 0]
    first = (bank.merger - (T - end))[:, None] + torch.arange(T)
    inside = (first >= 0) & (first < signal.shape[1])
    return torch.where(inside, signal.gather(1, first.clamp(0, signal.shape[1] - 1)), 0.0)


def loudest_templates(x: Float32[Tensor, "n time"], grid: SignalBank, data: SimulatedBBH) -> Int64[Tensor, " n"]:
    """Of each window the template with the largest |z| over phase and the merger's place within its range."""
    T = x.shape[1]
    low, high = (round(edge * data.sample_rate) for edge in data.merger_range)
    template = _shown(grid, torch.full((len(grid),), (low + high) // 2), T)
    size = next_fast_len(2 * T)
    kept = in_band(size, data.sample_rate, data.band).nonzero().squeeze(1)
    first, last = int(kept[0]), int(kept[-1]) + 1
    conjugate: Complex64[Tensor, "template freq"] = torch.fft.rfft(template, n=size)[:, first:last].conj()
    conjugate = conjugate / template.square().sum(1, keepdim=True).sqrt()
    spectrum = torch.fft.rfft(x, n=size)[:, first:last]
    lags = torch.arange((low + high) // 2 - high, (low + high) // 2 - low + 1) % size
    # z has no negative frequencies: multiplied down to begin at 0, its modulus is the same.
    out, product = [], torch.zeros(len(grid), size, dtype=torch.complex64)
    for each in spectrum:
        torch.mul(conjugate, each, out=product[:, : last - first])
        out.append(torch.fft.ifft(product)[:, lags].abs().amax(1).argmax())
    return torch.stack(out)
