"""The CNN for images of 256 pixels (section 5.3): every layer but `proj` in one Sequential named `model`."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from rpgan_landscape.nets import common
from rpgan_landscape.nets.common import LEAK, normalise, xavier


class Generator(common.Generator):
    """Latents to images in [-1, 1]; no biases."""

    def __init__(self, width: int = 32, latent: int = 128) -> None:
        super().__init__()
        self.latent = latent
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, 32 * width, 4, 1, 0, bias=False)]
        layers += [nn.BatchNorm2d(32 * width), nn.ReLU()]
        for factor in (16, 8, 4, 2, 1):
            layers += [
                nn.ConvTranspose2d(2 * factor * width, factor * width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(factor * width),
                nn.ReLU(),
            ]
        layers += [nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh()]
        self.model = nn.Sequential(*layers)
        xavier(self)

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n 3 256 256"]:
        return self.model(z[:, :, None, None])


class Critic(nn.Module):
    """Images to logits [n, 1]; spectral normalisation on every layer."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(LEAK)]
        for factor in (1, 2, 4, 8, 16):
            layers += [nn.Conv2d(factor * width, 2 * factor * width, 4, 2, 1, bias=False), nn.LeakyReLU(LEAK)]
        self.model = nn.Sequential(*layers)
        self.proj = nn.Linear(32 * width * 16, 1, bias=False)
        normalise(self)

    def forward(self, x: Float[Tensor, "n 3 256 256"]) -> Float[Tensor, "n 1"]:
        return self.proj(self.model(x).flatten(1))
