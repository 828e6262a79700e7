"""A residual network that looks at all detectors together, as the leading open pipelines do (section 5).

The published size has stages of 3, 4, 6 and 3 blocks with widths 64 to 512; a small one for two cores is
`CoherentResNet1d(widths=(16, 32, 64, 64), blocks=(1, 1, 1, 1))`. Normalised by groups, so that a window's
statistic does not depend on the others in its batch, nor on running averages.

Time lies along the last of two axes, with channels innermost in memory: on a CPU the maximum and the normalisation are
several times faster so.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from mma_realtime.errors import SearchError
from mma_realtime.models.network import SearchNetwork

#: A network for two cores.
SMALL = {"widths": (16, 32, 64, 64), "blocks": (1, 1, 1, 1), "groups": 8}


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), (0, kernel // 2), bias=False)


class Block(nn.Module):
    """Two convolutions of 3, normalised by groups, around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = convolution(inputs, width, 3, stride), nn.GroupNorm(groups, width)
        self.conv2, self.norm2 = convolution(width, width, 3), nn.GroupNorm(groups, width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != width:
            self.shortcut = nn.Sequential(convolution(inputs, width, 1, stride), nn.GroupNorm(groups, width))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        out: Tensor = torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
        return out


class CoherentResNet1d(SearchNetwork):
    """Stem (kernel 7, stride 2, maximum over 3 with stride 2), residual stages, mean over time, one logit.

    Args:
        input_length: samples of a window.
        channels: detectors that it looks at together.
        outputs: 1 logit (or 2).
        widths: channels of each stage; all but the first halve the time resolution.
        blocks: residual blocks of each stage.
        groups: of the normalisation.

    Raises:
        SearchError: widths and blocks of different number, or a width that is no multiple of groups.
    """

    def __init__(
        self,
        input_length: int = 2048,
        channels: int = 2,
        outputs: int = 1,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        groups: int = 16,
    ) -> None:
        super().__init__(input_length, channels, outputs)
        if len(widths) != len(blocks) or not widths or min(blocks) < 1:
            raise SearchError(f"widths {list(widths)} and blocks {list(blocks)}: one width and >= 1 block a stage")
        if any(width % groups for width in widths):
            raise SearchError(f"widths {list(widths)}: each has to be a multiple of groups, {groups}")
        self.stem = nn.Sequential(
            convolution(channels, widths[0], 7, 2), nn.GroupNorm(groups, widths[0]), nn.ReLU(),
            nn.MaxPool2d((1, 3), (1, 2), (0, 1)),
        )  # fmt: skip
        stages: list[nn.Module] = []
        width = widths[0]
        for number, (wanted, count) in enumerate(zip(widths, blocks)):
            for place in range(count):
                stages.append(Block(width, wanted, 2 if number and not place else 1, groups))
                width = wanted
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, outputs)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Float32[Tensor, "batch channels time"]) -> Float32[Tensor, "batch outputs"]:
        y = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        out: Tensor = self.head(self.stages(self.stem(y)).mean((2, 3)))
        return out
