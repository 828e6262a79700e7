"""Deep Filtering: the two published convolutional networks, for windows and for whole stretches (section 5).

Each stage is a convolution without padding, a maximum over 4 and a ReLU; linear layers follow. Shallow: 16, 32, 64
channels, then 64; deep: 64, 128, 256, 512, then 128 and 64. The classifier (2 logits: noise, signal) and the predictor
(2 masses) share the trunk, and the predictor, trained first, initialises the classifier.

`dense` scores all windows of a stretch at once. The trunk has no padding, so that the features of a window that begins
at a multiple of its stride (4 per stage) are a piece of the features of the whole stretch: the trunk runs once, and the
first linear layer is a convolution over the features. At 16 windows a second of 1 s each that is 1/16 of the work.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from mma_realtime.errors import SearchError
from mma_realtime.models.network import SearchNetwork, count_windows

POOL = 4
FEATURES_AT_ONCE = 512  # of a stretch


class Stage(NamedTuple):
    """Channels, kernel and dilation of one convolution."""

    width: int
    kernel: int
    dilation: int

    @property
    def reach(self) -> int:
        """Samples that one output looks at."""
        return (self.kernel - 1) * self.dilation + 1


class Trunk(nn.Sequential):
    """Convolution, maximum over 4, ReLU, repeated; to be trained on a CPU in the layout in which each is fastest.

    There, channels lie innermost (with rows of time innermost, a maximum that remembers its places is 15 times slower),
    and the first convolution, of too few channels for the library's own, is one matrix product: 4 neighbouring outputs,
    which the maximum joins anyway, look at the same window of kernel + 3 samples. The numbers are those of the layers
    to rounding, and a training step of the shallow network at 1024 samples takes half the time. Without gradients the
    layers themselves are as fast, and are used.
    """

    def forward(self, x: Float[Tensor, "batch channels time"]) -> Float[Tensor, "batch width place"]:
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            out: Tensor = super().forward(x)
            return out
        convolutions = [layer for layer in self if isinstance(layer, nn.Conv1d)]
        y = _first_convolution(x, convolutions[0])
        for number, layer in enumerate(convolutions):
            if number:
                kernel = layer.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
                y = F.conv2d(y, kernel, layer.bias, dilation=(1, *layer.dilation))
            y = F.max_pool2d(y, (1, POOL)).relu_()
        return y.squeeze(2)


def _first_convolution(
    x: Float[Tensor, "batch channels time"], layer: nn.Conv1d
) -> Float[Tensor, "batch width 1 time"]:
    """The undilated convolution as one product, channels innermost; only outputs that fill a maximum over 4."""
    width, _, kernel = layer.weight.shape
    places = (x.shape[-1] - kernel + 1) // POOL
    windows = x.unfold(-1, kernel + POOL - 1, POOL)[:, :, :places].transpose(1, 2)  # [B, places, C, kernel + 3]
    shifted = torch.stack([F.pad(layer.weight, (p, POOL - 1 - p)) for p in range(POOL)])  # [4, width, C, kernel + 3]
    bias = None if layer.bias is None else layer.bias.repeat(POOL)
    y = F.linear(windows.reshape(len(x) * places, -1), shifted.view(POOL * width, -1), bias)
    return y.view(len(x), places * POOL, width).transpose(1, 2).unsqueeze(2)


class DeepFilter(SearchNetwork):
    """Stages of convolution, max-pooling and ReLU, then linear layers.

    Args:
        stages: of the trunk.
        hidden: widths of the linear layers before the last.
        input_length: samples of a window.
        channels: detectors.
        outputs: 2 (logits of noise and signal, or two masses) or 1.

    Raises:
        SearchError: the window is too short for the trunk; says the shortest that fits.
    """

    def __init__(
        self, stages: tuple[Stage, ...], hidden: tuple[int, ...], input_length: int, channels: int, outputs: int
    ) -> None:
        super().__init__(input_length, channels, outputs)
        self.stages, self.stride = stages, POOL ** len(stages)
        if input_length < self.samples_for(1):
            raise SearchError(
                f"input_length is {input_length}: {type(self).__name__} needs at least {self.samples_for(1)} samples"
            )
        layers: list[nn.Module] = []
        width, self.length = channels, input_length
        for stage in stages:
            layers += [nn.Conv1d(width, stage.width, stage.kernel, dilation=stage.dilation), nn.MaxPool1d(POOL)]
            layers += [nn.ReLU()]
            width, self.length = stage.width, (self.length - stage.reach + 1) // POOL
        self.trunk = Trunk(*layers)
        self.features = width
        sizes = [width * self.length, *hidden, outputs]
        head: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(sizes):
            head += [nn.Linear(before, after), nn.ReLU()]
        self.head = nn.Sequential(*head[:-1])

    def samples_for(self, features: int) -> int:
        """Samples that so many neighbouring features look at."""
        for stage in reversed(self.stages):
            features = features * POOL + stage.reach - 1
        return features

    def forward(self, x: Float32[Tensor, "batch channels time"]) -> Float32[Tensor, "batch outputs"]:
        out: Tensor = self.head(self.trunk(x))
        return out

    def stretch_features(self, x: Float32[Tensor, "batch channels time"]) -> Float32[Tensor, "batch width place"]:
        """The trunk over a stretch of any length, in pieces that overlap by what a feature looks at."""
        total = (x.shape[-1] - self.samples_for(1)) // self.stride + 1
        pieces = []
        for first in range(0, total, FEATURES_AT_ONCE):
            begin = first * self.stride
            size = self.samples_for(min(FEATURES_AT_ONCE, total - first))
            pieces.append(self.trunk(x[..., begin : begin + size]))
        return torch.cat(pieces, dim=-1)

    def dense(self, x: Float32[Tensor, "batch channels time"], hop: int) -> Float32[Tensor, "batch outputs windows"]:
        """Outputs of all windows at a hop: the trunk once where the hop is a multiple of `stride`, else each window.

        FLOPs a hop of h samples: h / input_length of the trunk's for one window, and the head's for one.

        Raises:
            SearchError: a hop below 1 sample, or a stretch shorter than one window.
        """
        self.check_series(x.shape[-1], hop)
        if hop % self.stride:
            return super().dense(x, hop)
        windows = count_windows(x.shape[-1], self.input_length, hop)
        features = self.stretch_features(x[..., : (windows - 1) * hop + self.input_length])
        seen = features.unfold(-1, self.length, hop // self.stride)[:, :, :windows]  # [B, width, K, length]
        rows = seen.transpose(1, 2).reshape(len(x) * windows, -1)
        out: Tensor = self.head(rows)
        return out.view(len(x), windows, self.outputs).transpose(1, 2)

    def init_from(self, other: DeepFilter) -> None:
        """Take over the trunk and all linear layers but the last of another network, e.g. the mass predictor's.

        Raises:
            SearchError: the networks differ in more than their outputs.
        """
        own, given = self.state_dict(), other.state_dict()
        last = {f"head.{len(self.head) - 1}.{kind}" for kind in ("weight", "bias")}
        if own.keys() != given.keys() or any(own[k].shape != given[k].shape for k in own.keys() - last):
            raise SearchError("init_from: the two networks have to be alike but for their outputs")
        self.load_state_dict({name: own[name] if name in last else given[name] for name in own})


class DeepFilterShallow(DeepFilter):
    """The smaller published network: 508,466 parameters at 8192 samples (1 s), 49,714 at 1024."""

    def __init__(self, input_length: int = 1024, channels: int = 1, outputs: int = 2) -> None:
        super().__init__((Stage(16, 16, 1), Stage(32, 8, 4), Stage(64, 8, 4)), (64,), input_length, channels, outputs)


class DeepFilterDeep(DeepFilter):
    """The larger published network: 5,777,666 parameters at 8192 samples; shorter windows do not fit below 7132."""

    def __init__(self, input_length: int = 8192, channels: int = 1, outputs: int = 2) -> None:
        stages = (Stage(64, 16, 1), Stage(128, 16, 2), Stage(256, 16, 2), Stage(512, 32, 2))
        super().__init__(stages, (128, 64), input_length, channels, outputs)
