"""GlitchNet: what kind of transient is in a window, from a map of its power in time and frequency (section 5).

The map has 64 columns of time and 64 rows of frequency, geometrically spaced, each row taken from the one of a few
short-time Fourier transforms whose window fits Q cycles of it best: so low rows are fine in frequency and high rows
fine in time, as a constant-Q transform has them.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from mma_realtime.errors import SearchError
from mma_realtime.gw.units import Hertz

SIZE = 64
CLASSES = 6


class ConstantQMap(nn.Module):
    """Magnitudes on a 64 x 64 grid of time and log-frequency.

    Args:
        input_length: samples, a multiple of 64.
        sample_rate: Hz.
        band: lowest and highest row, Hz.
        q: cycles that a row's window holds, about.

    Raises:
        SearchError: a length that is no multiple of 64, or a band outside (0, sample_rate / 2].
    """

    def __init__(
        self,
        input_length: int = 1024,
        sample_rate: int = 1024,
        band: tuple[Hertz, Hertz] = (20.0, 400.0),
        q: float = 8.0,
    ) -> None:
        super().__init__()
        if input_length % SIZE:
            raise SearchError(f"input_length is {input_length}: the map needs a multiple of {SIZE}")
        if not 0 < band[0] < band[1] <= sample_rate / 2:
            raise SearchError(f"band is {list(band)} Hz: it has to rise, within 0 and {sample_rate / 2:g} Hz")
        self.hop = input_length // SIZE
        rows = torch.logspace(math.log10(band[0]), math.log10(band[1]), SIZE, dtype=torch.float64)
        longest = int(math.log2(input_length / 2))
        wanted = torch.log2(q * sample_rate / rows).round().clamp(4, longest).long()
        self.lengths = [2**k for k in sorted(set(wanted.tolist()), reverse=True)]
        for length in self.lengths:
            mine = torch.nonzero(wanted == int(math.log2(length)))[:, 0]
            place = rows[mine] * length / sample_rate  # in bins of this transform
            low = place.floor().long().clamp(max=length // 2 - 1)
            mix = torch.zeros(len(mine), length // 2 + 1)  # linear between the neighbouring bins
            mix[torch.arange(len(mine)), low] = (1 - (place - low)).float()
            mix[torch.arange(len(mine)), low + 1] = (place - low).float()
            self.register_buffer(f"mix_{length}", mix, persistent=False)
            self.register_buffer(f"window_{length}", torch.hann_window(length), persistent=False)

    def forward(self, x: Float32[Tensor, "batch time"]) -> Float32[Tensor, "batch row=64 column=64"]:
        parts = []
        for length in self.lengths:  # from the lowest rows up
            window = self.get_buffer(f"window_{length}")
            spectrum = (
                torch.stft(x, length, self.hop, window=window, center=True, pad_mode="constant", return_complex=True)[
                    ..., :SIZE
                ].abs()
                / window.square().sum().sqrt()
            )  # white noise of unit variance has mean square 1
            parts.append(self.get_buffer(f"mix_{length}") @ spectrum)
        return torch.cat(parts, dim=1)


class GlitchNet(nn.Module):
    """Three convolutions on the map, and a linear layer to the logits of the classes.

    Args:
        input_length, sample_rate, band: see `ConstantQMap`.
        classes: kinds of transient.
        width: channels of the first convolution.
    """

    def __init__(
        self,
        input_length: int = 1024,
        sample_rate: int = 1024,
        band: tuple[Hertz, Hertz] = (20.0, 400.0),
        classes: int = CLASSES,
        width: int = 16,
    ) -> None:
        super().__init__()
        self.input_length, self.channels = input_length, 1
        self.map = ConstantQMap(input_length, sample_rate, band)
        layers: list[nn.Module] = []
        inputs = 1
        for k in range(3):
            layers += [nn.Conv2d(inputs, width * 2**k, 5, padding=2), nn.MaxPool2d(4 if k < 2 else 2), nn.ReLU()]
            inputs = width * 2**k
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * 4, classes))

    def forward(self, x: Float32[Tensor, "batch 1 time"]) -> Float32[Tensor, "batch classes"]:
        out: Tensor = self.layers(torch.log1p(self.map(x[:, 0]))[:, None])
        return out
