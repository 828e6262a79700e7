"""The CNN ("dcgan") for images of 32 and 48 pixels (section 5.3), under the published names."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from rpgan_landscape.nets import common
from rpgan_landscape.nets.common import LEAK, normalise, xavier


class Generator(common.Generator):
    """Latents to images in [-1, 1].

    Args:
        width: w, 64 regularly.
        size: side of the images, 32 or 48.
    """

    def __init__(self, width: int = 64, size: int = 32, latent: int = 128) -> None:
        super().__init__()
        w, self.side, self.latent = width, size // 8, latent
        self.l1 = nn.Linear(latent, 8 * w * self.side**2)
        self.deconv1, self.deconv1_bn = nn.ConvTranspose2d(8 * w, 4 * w, 4, 2, 1), nn.BatchNorm2d(4 * w)
        self.deconv2, self.deconv2_bn = nn.ConvTranspose2d(4 * w, 2 * w, 4, 2, 1), nn.BatchNorm2d(2 * w)
        self.deconv3, self.deconv3_bn = nn.ConvTranspose2d(2 * w, w, 4, 2, 1), nn.BatchNorm2d(w)
        self.conv4 = nn.Conv2d(w, 3, 3, 1, 1)
        xavier(self)

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n 3 size size"]:
        x = self.l1(z).unflatten(1, (-1, self.side, self.side))
        x = relu(self.deconv1_bn(self.deconv1(x)))
        x = relu(self.deconv2_bn(self.deconv2(x)))
        x = relu(self.deconv3_bn(self.deconv3(x)))
        return torch.tanh(self.conv4(x))


class Critic(nn.Module):
    """Images to logits [n, 1]; spectral normalisation on every layer."""

    def __init__(self, width: int = 64, size: int = 32) -> None:
        super().__init__()
        w = width
        self.conv1, self.conv2 = nn.Conv2d(3, w, 3, 1, 1), nn.Conv2d(w, w, 4, 2, 1)
        self.conv3, self.conv4 = nn.Conv2d(w, 2 * w, 3, 1, 1), nn.Conv2d(2 * w, 2 * w, 4, 2, 1)
        self.conv5, self.conv6 = nn.Conv2d(2 * w, 4 * w, 3, 1, 1), nn.Conv2d(4 * w, 4 * w, 4, 2, 1)
        self.conv7 = nn.Conv2d(4 * w, 8 * w, 3, 1, 1)
        self.proj = nn.Linear(8 * w * (size // 8) ** 2, 1, bias=False)
        normalise(self)

    def forward(self, x: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n 1"]:
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5, self.conv6, self.conv7):
            x = leaky_relu(layer(x), LEAK)
        return self.proj(x.flatten(1))
