"""Strain with a chirp in it, and a network by hand that finds it: nothing is trained in these tests."""

from __future__ import annotations

import numpy as np
import torch
from mma_realtime.data.strain import Strain
from mma_realtime.models import SearchNetwork
from mma_realtime.search.model_file import Recipe, SearchModel
from torch import Tensor, nn

FS, RATE, START = 2048, 1024, 1_000_000_000.0


def chirp(rate: int) -> np.ndarray:
    """0.25 s that rise from 40 to 240 Hz and end in the merger; unit energy at 1024 Hz."""
    t = np.arange(round(0.25 * rate)) / rate
    x = np.sin(2 * np.pi * (40 * t + 400 * t**2)) * np.hanning(len(t))
    return x / np.sqrt((x**2).sum() * RATE / rate)


class Template(SearchNetwork):
    """A matched filter as a network: the largest correlation with the chirp that ends in the window's last 0.25 s."""

    def __init__(self, input_length: int = 1024, channels: int = 1, outputs: int = 1) -> None:
        super().__init__(input_length, channels, outputs)
        self.template = nn.Parameter(torch.from_numpy(chirp(RATE)).float()[None, None])

    def forward(self, x: Tensor) -> Tensor:
        z = nn.functional.conv1d(x[..., -512:].sum(1, keepdim=True), self.template)
        return z.amax(-1) - 5.0


def template_model(detectors: object = "each", **settings: object) -> SearchModel:
    channels = 1 if detectors == "each" else 2
    recipe = Recipe("template", {"channels": channels}, detectors=detectors, **settings)  # type: ignore[arg-type]
    return SearchModel(recipe, [Template(channels=channels)])


def strain_with(*mergers: float, seconds: int = 40, seed: int = 0, amplitude: float = 9.0) -> Strain:
    """White noise whose whitened form is itself, and chirps that end `mergers` s after the start."""
    rng = np.random.default_rng(seed)
    # Unit variance in 20-400 Hz once whitened: the density is that of the noise, the chirp's SNR its amplitude.
    values = rng.normal(size=(2, seconds * FS))
    pulse = chirp(FS) * amplitude * np.sqrt(FS / RATE)
    for merger in mergers:
        end = round(merger * FS)
        values[:, end - len(pulse) : end] += pulse
    return Strain(("H1", "L1"), START, FS, values, np.ones((2, seconds), bool), "white noise")
