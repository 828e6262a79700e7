"""A one-dimensional encoder and decoder: whitened strain in, the whitened signal in it out (section 5, optional)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from mma_realtime.errors import SearchError


class Denoiser(nn.Module):
    """Time is cut by `stride` on entry and halved by each further level; the decoder sees the encoder's beside its own.

    Args:
        input_length: samples, a multiple of stride 2^(levels - 1).
        channels: detectors, in and out.
        widths: channels of the levels.
        kernel: of the convolutions between levels, odd.
        stride: of the first convolution and the last, even; each is 4 strides long.

    Raises:
        SearchError: a length that cannot be cut so often, no level, an even kernel or an odd stride.
    """

    def __init__(
        self,
        input_length: int = 1024,
        channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 64),
        kernel: int = 9,
        stride: int = 4,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise SearchError(f"widths is {list(widths)}: channels of at least one level are needed, each at least 1")
        if kernel < 1 or kernel % 2 == 0 or stride < 2 or stride % 2:
            raise SearchError(f"kernel is {kernel} and stride {stride}: an odd kernel and an even stride are needed")
        cut = stride * 2 ** (len(widths) - 1)
        if input_length % cut:
            raise SearchError(
                f"input_length is {input_length}: a denoiser of {len(widths)} levels and stride {stride} needs a "
                f"multiple of {cut}"
            )
        self.input_length, self.channels = input_length, channels
        half = kernel // 2
        # Of 4 strides, 3 / 2 of padding at either side leave length / stride on entry and give length again at the end.
        self.enter = nn.Conv1d(channels, widths[0], 4 * stride, stride, padding=3 * stride // 2)
        self.down = nn.ModuleList([nn.Conv1d(a, b, kernel, 2, half) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([nn.Conv1d(b + a, a, kernel, padding=half) for a, b in pairwise(widths)])
        self.leave = nn.ConvTranspose1d(widths[0], channels, 4 * stride, stride, padding=3 * stride // 2)

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
