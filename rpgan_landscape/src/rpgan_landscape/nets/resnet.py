"""The ResNets for images of 32 and 48 pixels, and their bottleneck forms (section 5.3), under the published names."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, relu

from rpgan_landscape.nets import common
from rpgan_landscape.nets.common import LEAK, normalise


def _double(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class UpBlock(nn.Module):
    """A residual block of G that doubles the side: c_sc(up(x)) + c2(ReLU(b2(c1(up(ReLU(b1(x)))))))."""

    def __init__(self, inputs: int, outputs: int, bottleneck: bool) -> None:
        super().__init__()
        hidden = outputs // 2 if bottleneck else outputs
        self.c1, self.c2 = nn.Conv2d(inputs, hidden, 3, 1, 1), nn.Conv2d(hidden, outputs, 3, 1, 1)
        self.b1, self.b2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(hidden)
        self.c_sc = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.c2(relu(self.b2(self.c1(_double(relu(self.b1(x)))))))
        # A 1x1 convolution and an interpolation whose weights sum to 1 commute: a quarter of the pixels for c_sc.
        return _double(self.c_sc(x)) + residual


class DownBlock(nn.Module):
    """A residual block of D that halves the side: pool(c_sc(x)) + pool(c2(act(c1(act(x)))))."""

    def __init__(self, inputs: int, outputs: int, bottleneck: bool) -> None:
        super().__init__()
        hidden = inputs // 2 if bottleneck else inputs
        self.c1, self.c2 = nn.Conv2d(inputs, hidden, 3, 1, 1), nn.Conv2d(hidden, outputs, 3, 1, 1)
        self.c_sc = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        residual = avg_pool2d(self.c2(leaky_relu(self.c1(leaky_relu(x, LEAK)), LEAK)), 2)
        return self.c_sc(avg_pool2d(x, 2)) + residual  # pooling and a 1x1 convolution commute


class FirstBlock(nn.Module):
    """The first block of D, on the image itself: no activation before c1."""

    def __init__(self, outputs: int, bottleneck: bool) -> None:
        super().__init__()
        hidden = outputs // 2 if bottleneck else outputs
        self.c1, self.c2 = nn.Conv2d(3, hidden, 3, 1, 1), nn.Conv2d(hidden, outputs, 3, 1, 1)
        self.c_sc = nn.Conv2d(3, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_sc(avg_pool2d(x, 2)) + avg_pool2d(self.c2(leaky_relu(self.c1(x), LEAK)), 2)


class Generator(common.Generator):
    """Latents to images in [-1, 1]; `widths` are the channels before, between and after the three up-blocks."""

    def __init__(self, widths: list[int], side: int, bottleneck: bool, latent: int = 128) -> None:
        super().__init__()
        self.side, self.latent = side, latent
        self.l1 = nn.Linear(latent, widths[0] * side**2)
        self.block2 = UpBlock(widths[0], widths[1], bottleneck)
        self.block3 = UpBlock(widths[1], widths[2], bottleneck)
        self.block4 = UpBlock(widths[2], widths[3], bottleneck)
        self.b5 = nn.BatchNorm2d(widths[3])
        self.conv5 = nn.Conv2d(widths[3], 3, 1)

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n 3 size size"]:
        x = self.l1(z).unflatten(1, (-1, self.side, self.side))
        x = self.block4(self.block3(self.block2(x)))
        return torch.tanh(self.conv5(relu(self.b5(x))))


class Critic(nn.Module):
    """Images to logits [n, 1]: blocks, LeakyReLU, the sum over space, one weight for each channel."""

    def __init__(self, widths: list[int], bottleneck: bool) -> None:
        super().__init__()
        self.block1 = FirstBlock(widths[0], bottleneck)
        self.depth = len(widths)
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            setattr(self, f"block{i + 2}", DownBlock(inputs, outputs, bottleneck))
        self.proj = nn.Linear(widths[-1], 1, bias=False)
        normalise(self)

    def forward(self, x: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n 1"]:
        for i in range(self.depth):
            x = getattr(self, f"block{i + 1}")(x)
        return self.proj(leaky_relu(x, LEAK).sum((2, 3)))


def resnet32(width: int = 256, bottleneck: bool = False) -> tuple[Generator, Critic]:
    """(G, D) for 32 pixels: G of constant width w, D of w/2."""
    half = width // 2
    return Generator([width] * 4, 4, bottleneck), Critic([half] * 4, bottleneck)


def resnet48(width: int = 64, bottleneck: bool = False) -> tuple[Generator, Critic]:
    """(G, D) for 48 pixels: G from 8w down to w, D from w up to 16w."""
    w = width
    return Generator([8 * w, 4 * w, 2 * w, w], 6, bottleneck), Critic([w * 2**i for i in range(5)], bottleneck)
