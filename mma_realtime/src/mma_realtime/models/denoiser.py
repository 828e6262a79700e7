"""A one-dimensional encoder and decoder: whitened strain in, the whitened signal in it out (section 5, optional)."""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from mma_realtime.errors import SearchError


class Denoiser(nn.Module):
    """Each level halves the time and doubles the channels; the decoder sees the encoder's level beside its own.

    Args:
        input_length: samples, a multiple of 2^levels.
        channels: detectors, in and out.
        width: channels of the first level.
        levels: how often time is halved.
        kernel: of every convolution, odd.

    Raises:
        SearchError: a length that cannot be halved so often, or an even kernel.
    """

    def __init__(
        self, input_length: int = 1024, channels: int = 1, width: int = 16, levels: int = 4, kernel: int = 9
    ) -> None:
        super().__init__()
        if input_length % 2**levels:
            raise SearchError(
                f"input_length is {input_length}: a denoiser of {levels} levels needs a multiple of {2**levels}"
            )
        if kernel % 2 == 0:
            raise SearchError(f"kernel is {kernel}: it has to be odd")
        self.input_length, self.channels = input_length, channels
        widths = [width * 2**k for k in range(levels + 1)]
        self.enter = nn.Conv1d(channels, width, kernel, padding=kernel // 2)
        self.down = nn.ModuleList(
            [nn.Conv1d(a, b, kernel, 2, kernel // 2) for a, b in zip(widths[:-1], widths[1:])]  # noqa: RUF007
        )
        self.up = nn.ModuleList(
            [nn.Conv1d(b + a, a, kernel, padding=kernel // 2) for a, b in zip(widths[:-1], widths[1:])]  # noqa: RUF007
        )
        self.leave = nn.Conv1d(width, channels, 1)

    def forward(self, x: Float32[Tensor, "batch channels time"]) -> Float32[Tensor, "batch channels time"]:
        y = torch.relu(self.enter(x))
        levels = [y]
        for layer in self.down:
            y = torch.relu(layer(y))
            levels.append(y)
        levels.pop()
        for layer in reversed(self.up):
            y = torch.cat([y.repeat_interleave(2, dim=-1), levels.pop()], dim=1)
            y = torch.relu(layer(y))
        out: Tensor = self.leave(y)
        return out
