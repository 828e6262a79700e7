"""A small ResNet without normalisation for 32 pixels, to train with R1 and R2 (section 8, follow-up anchor).

Of R3GAN it has what its recipe rests on: no normalisation layers, residual branches that start at zero, bilinear
resampling. It has neither its grouped convolutions nor its size, and its numbers are not comparable with R3GAN's.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from rpgan_landscape.nets import common

LEAK = 0.2


class Residual(nn.Module):
    """x + c2(act(c1(act(x)))), c2 zero at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        nn.init.zeros_(self.c2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.c2(leaky_relu(self.c1(leaky_relu(x, LEAK)), LEAK))


class Generator(common.Generator):
    """Latents to images (no tanh, as in R3GAN)."""

    def __init__(self, width: int = 64, latent: int = 64) -> None:
        super().__init__()
        self.latent, self.width = latent, width
        self.basis = nn.Linear(latent, 2 * width * 16)
        self.blocks = nn.ModuleList([Residual(2 * width), Residual(width), Residual(width), Residual(width)])
        self.widen = nn.ModuleList([nn.Conv2d(2 * width, width, 1), nn.Identity(), nn.Identity()])
        self.head = nn.Conv2d(width, 3, 1)

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n 3 32 32"]:
        x = self.blocks[0](self.basis(z).unflatten(1, (-1, 4, 4)))
        for widen, block in zip(self.widen, list(self.blocks)[1:]):
            x = block(interpolate(widen(x), scale_factor=2, mode="bilinear", align_corners=False))
        return self.head(leaky_relu(x, LEAK))


class Critic(nn.Module):
    """Images to logits [n, 1]."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.blocks = nn.ModuleList([Residual(width), Residual(width), Residual(width), Residual(2 * width)])
        self.widen = nn.ModuleList([nn.Identity(), nn.Identity(), nn.Conv2d(width, 2 * width, 1)])
        self.basis = nn.Conv2d(2 * width, 2 * width, 4, groups=2 * width)
        self.head = nn.Linear(2 * width, 1)

    def forward(self, x: Float[Tensor, "n 3 32 32"]) -> Float[Tensor, "n 1"]:
        x = self.blocks[0](self.stem(x))
        for widen, block in zip(self.widen, list(self.blocks)[1:]):
            x = block(widen(interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)))
        return self.head(self.basis(leaky_relu(x, LEAK)).flatten(1))
