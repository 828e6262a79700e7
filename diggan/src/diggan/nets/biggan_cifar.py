"""BigGAN for 32 x 32 images, as the authors trained it on CIFAR: same names, counts and initialisation (section 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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

SHARED = 128  # entries of the shared class embedding


class GBlock(nn.Module):
    """h = conv2(relu(bn2(conv1(up(relu(bn1(x, y)))), y))) + conv_sc(up(x))."""

    def __init__(self, inputs: int, outputs: int, conditions: int, vectors: bool) -> None:
        super().__init__()
        self.conv1 = SNConv2d(inputs, outputs, 3, padding=1)
        self.conv2 = SNConv2d(outputs, outputs, 3, padding=1)
        self.conv_sc = SNConv2d(inputs, outputs, 1)
        self.bn1 = ConditionalBatchNorm(inputs, conditions, vectors)
        self.bn2 = ConditionalBatchNorm(outputs, conditions, vectors)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = F.interpolate(F.relu(self.bn1(x, y)), scale_factor=2)
        h = self.conv2(F.relu(self.bn2(self.conv1(h), y)))
        return h + self.conv_sc(F.interpolate(x, scale_factor=2))


class Generator(nn.Module):
    """z [n, latent] and classes [n] to images [n, 3, 32, 32] in [-1, 1].

    Args:
        ch: width; 4 ch channels throughout.
        shared: one class embedding of 128 entries for all normalisations, instead of one table each.
        attention: at 32 x 32.
    """

    def __init__(
        self, ch: int = 64, classes: int = 10, latent: int = 128, shared: bool = False, attention: bool = False
    ) -> None:
        super().__init__()
        width = 4 * ch
        self.latent, self.classes, self.image = latent, classes, (3, 32, 32)
        if shared:
            self.shared = nn.Embedding(classes, SHARED)
        self.linear = SNLinear(latent, width * 16)
        blocks = [[GBlock(width, width, SHARED if shared else classes, shared)] for _ in range(3)]
        self.blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        if attention:
            self.blocks[-1].append(Attention(width))  # type: ignore[operator]
        self.output_layer = nn.Sequential(PlainBatchNorm(width), nn.ReLU(), SNConv2d(width, 3, 3, padding=1))
        initialise(self, "N02")

    def forward(self, z: Float[Tensor, "n latent"], y: Int[Tensor, " n"]) -> Float[Tensor, "n 3 32 32"]:
        normalise_together(spectral_layers(self))
        y = self.shared(y) if hasattr(self, "shared") else y
        h = self.linear(z).view(len(z), -1, 4, 4)
        for block in self.blocks:
            for layer in block:  # type: ignore[attr-defined]
                h = layer(h, y) if isinstance(layer, GBlock) else layer(h)
        return torch.tanh(self.output_layer(h))


class DBlock(nn.Module):
    """h = pool(conv2(relu(conv1(pre(x))))) + shortcut; `pre` is a ReLU, but in the first block."""

    def __init__(self, inputs: int, outputs: int, preactivation: bool, down: bool) -> None:
        super().__init__()
        self.conv1 = SNConv2d(inputs, outputs, 3, padding=1)
        self.conv2 = SNConv2d(outputs, outputs, 3, padding=1)
        self.conv_sc = SNConv2d(inputs, outputs, 1) if down else None
        self.preactivation, self.down = preactivation, down

    def forward(self, x: Tensor) -> Tensor:
        # Not in place: the shortcut and the second derivative need x as it was.
        h = self.conv2(F.relu(self.conv1(F.relu(x) if self.preactivation else x)))
        if not self.down:
            return h + x
        assert self.conv_sc is not None
        if self.preactivation:
            return F.avg_pool2d(h, 2) + F.avg_pool2d(self.conv_sc(x), 2)
        return F.avg_pool2d(h, 2) + self.conv_sc(F.avg_pool2d(x, 2))


class Discriminator(nn.Module):
    """Images [n, 3, 32, 32] and classes [n] to logits [n, 1]: linear(h) + <embed(y), h>, h summed over pixels."""

    def __init__(self, ch: int = 64, classes: int = 10) -> None:
        super().__init__()
        width = 4 * ch
        self.classes, self.image = classes, (3, 32, 32)
        blocks = [DBlock(3 if i == 0 else width, width, preactivation=i > 0, down=i < 2) for i in range(4)]
        self.blocks = nn.ModuleList(nn.ModuleList([block]) for block in blocks)
        self.linear = SNLinear(width, 1)
        self.embed = SNEmbedding(classes, width)
        initialise(self, "N02")

    def forward(self, x: Float[Tensor, "n 3 32 32"], y: Int[Tensor, " n"]) -> Float[Tensor, "n 1"]:
        normalise_together(spectral_layers(self))
        for block in self.blocks:
            for layer in block:  # type: ignore[attr-defined]
                x = layer(x)
        h = F.relu(x).sum((2, 3))
        return self.linear(h) + (self.embed(y) * h).sum(1, keepdim=True)
