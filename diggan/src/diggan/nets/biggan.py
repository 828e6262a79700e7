"""BigGAN at 64 and 128 pixels with chunks of z at every block, as for Tiny-ImageNet and CUB-200 (section 4)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from shared.errors import UserError
from torch import Tensor, nn

from .layers import (
    Attention,
    ConditionalBatchNorm,
    PlainBatchNorm,
    SNConv2d,
    SNEmbedding,
    SNLinear,
    initialise,
    normalise_together,
    spectral_layers,
)

SN_EPS, BN_EPS = 1e-6, 1e-4
SHARED, CHUNK = 128, 20
# Widths in units of the networks' own, and the block that attention follows.
G_WIDTHS = {64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
D_WIDTHS = {64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}
G_ATTENTION, D_ATTENTION = {64: 3, 128: 4}, 1


class GBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn1 = ConditionalBatchNorm(inputs, SHARED + CHUNK, vectors=True, eps=BN_EPS, sn_eps=SN_EPS)
        self.bn2 = ConditionalBatchNorm(outputs, SHARED + CHUNK, vectors=True, eps=BN_EPS, sn_eps=SN_EPS)
        self.conv1 = SNConv2d(inputs, outputs, 3, padding=1, eps=SN_EPS)
        self.conv2 = SNConv2d(outputs, outputs, 3, padding=1, eps=SN_EPS)
        self.conv_sc = SNConv2d(inputs, outputs, 1, eps=SN_EPS)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = F.interpolate(F.relu(self.bn1(x, y)), scale_factor=2)
        h = self.conv2(F.relu(self.bn2(self.conv1(h), y)))
        return h + self.conv_sc(F.interpolate(x, scale_factor=2))


class Generator(nn.Module):
    """z [n, 20 (blocks + 1)] and classes [n] to images [n, 3, size, size] in [-1, 1].

    Args:
        size: 64 or 128 pixels.
        width: channels of the last block.
    """

    def __init__(self, size: int = 64, width: int = 80, classes: int = 200) -> None:
        super().__init__()
        if size not in G_WIDTHS:
            raise UserError(f"size is {size}: this network makes {' or '.join(map(str, G_WIDTHS))} pixels")
        widths = [width * w for w in G_WIDTHS[size]]
        self.latent, self.classes, self.image = CHUNK * len(widths), classes, (3, size, size)
        self.shared = nn.Embedding(classes, SHARED)
        self.linear = SNLinear(CHUNK, widths[0] * 16, eps=SN_EPS)
        self.blocks = nn.ModuleList(nn.ModuleList([GBlock(a, b)]) for a, b in pairwise(widths))
        place = G_ATTENTION[size]
        self.blocks[place - 1].append(Attention(widths[place], SN_EPS))  # type: ignore[operator]
        self.output_layer = nn.Sequential(
            PlainBatchNorm(widths[-1], BN_EPS), nn.ReLU(), SNConv2d(widths[-1], 3, 3, padding=1, eps=SN_EPS)
        )
        initialise(self, "orthogonal")

    def forward(self, z: Float[Tensor, "n latent"], y: Int[Tensor, " n"]) -> Float[Tensor, "n 3 size size"]:
        normalise_together(spectral_layers(self))
        first, *chunks = z.split(CHUNK, 1)
        h = self.linear(first).view(len(z), -1, 4, 4)
        for block, chunk in zip(self.blocks, chunks):
            condition = torch.cat([self.shared(y), chunk], 1)
            for layer in block:  # type: ignore[attr-defined]
                h = layer(h, condition) if isinstance(layer, GBlock) else layer(h)
        return torch.tanh(self.output_layer(h))


class DBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, first: bool, down: bool) -> None:
        super().__init__()
        self.first, self.down = first, down
        self.conv1 = SNConv2d(inputs, outputs, 3, padding=1, eps=SN_EPS)
        self.conv2 = SNConv2d(outputs, outputs, 3, padding=1, eps=SN_EPS)
        self.conv_sc = SNConv2d(inputs, outputs, 1, eps=SN_EPS) if down or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if not self.down:
            return h + (x if self.conv_sc is None else self.conv_sc(x))
        assert self.conv_sc is not None
        shortcut = self.conv_sc(F.avg_pool2d(x, 2)) if self.first else F.avg_pool2d(self.conv_sc(x), 2)
        return F.avg_pool2d(h, 2) + shortcut


class Discriminator(nn.Module):
    """Images [n, 3, size, size] and classes [n] to logits [n, 1], by projection."""

    def __init__(self, size: int = 64, width: int = 80, classes: int = 200) -> None:
        super().__init__()
        if size not in D_WIDTHS:
            raise UserError(f"size is {size}: this network takes {' or '.join(map(str, D_WIDTHS))} pixels")
        widths = [3, *(width * w for w in D_WIDTHS[size])]
        self.classes, self.image = classes, (3, size, size)
        last = len(widths) - 2
        self.blocks = nn.ModuleList(
            nn.ModuleList([DBlock(a, b, first=i == 0, down=i < last)]) for i, (a, b) in enumerate(pairwise(widths))
        )
        self.blocks[D_ATTENTION - 1].append(Attention(widths[D_ATTENTION], SN_EPS))  # type: ignore[operator]
        self.linear = SNLinear(widths[-1], 1, eps=SN_EPS)
        self.embed = SNEmbedding(classes, widths[-1], eps=SN_EPS)
        initialise(self, "orthogonal")

    def forward(self, x: Float[Tensor, "n 3 size size"], y: Int[Tensor, " n"]) -> Float[Tensor, "n 1"]:
        normalise_together(spectral_layers(self))
        for block in self.blocks:
            for layer in block:  # type: ignore[attr-defined]
                x = layer(x)
        h = F.relu(x).sum((2, 3))
        return self.linear(h) + (self.embed(y) * h).sum(1, keepdim=True)
