"""A residual network that looks at all detectors together, as the leading open pipelines do (section 5).

The published size has stages of 3, 4, 6 and 3 blocks with widths 64 to 512; a small one for two cores is
`CoherentResNet1d(**SMALL)` (106,817 parameters). Normalised by groups, so that a window's
statistic does not depend on the others in its batch, nor on running averages.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor, nn

from mma_realtime.errors import SearchError
from mma_realtime.models.network import SearchNetwork

#: A network for two cores.
SMALL = {"widths": (16, 32, 64, 64), "blocks": (1, 1, 2, 2), "groups": 8}


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class MaxPool(nn.Module):
    """Maximum over 3 with stride 2, padded by one.

    As two elementwise maxima: on a CPU a fifth of the time of the library's, which remembers places one by one.
    """

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(x, (1, 1), value=-torch.inf)
        count = (x.shape[-1] - 1) // 2 + 1
        left, middle, right = (y[..., k : k + 2 * count - 1 : 2] for k in range(3))
        return torch.maximum(torch.maximum(left, middle), right)


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
            convolution(channels, widths[0], 7, 2), nn.GroupNorm(groups, widths[0]), nn.ReLU(), MaxPool()
        )
        stages: list[nn.Module] = []
        width = widths[0]
        for number, (wanted, count) in enumerate(zip(widths, blocks)):
            for place in range(count):
                stages.append(Block(width, wanted, 2 if number and not place else 1, groups))
                width = wanted
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Float32[Tensor, "batch channels time"]) -> Float32[Tensor, "batch outputs"]:
        out: Tensor = self.head(self.stages(self.stem(x)).mean(-1))
        return out
