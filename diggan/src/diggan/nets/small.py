"""Small networks for laptops: two perceptrons and an 8 x 8 convolutional pair; unconditional (section 4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .layers import SNConv2d, SNLinear, normalise_together, spectral_layers

LATENT, SLOPE = 32, 0.2
Activation = Callable[[Tensor], Tensor]


class MLPGenerator(nn.Module):
    """z [n, 32] to images [n, *image] in [-1, 1] by two hidden layers of ReLUs."""

    hidden: Activation = staticmethod(F.relu)
    output: Activation = staticmethod(torch.tanh)

    def __init__(self, hidden: int = 128, image: tuple[int, ...] = (1, 8, 8)) -> None:
        super().__init__()
        self.latent, self.classes = LATENT, 0
        self.image: tuple[int, ...] = image
        sizes = (LATENT, hidden, hidden, math.prod(image))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n c h w"]:
        first, second, last = self.layers
        return self.output(last(self.hidden(second(self.hidden(first(z)))))).view(len(z), *self.image)


class MLPDiscriminator(nn.Module):
    """Images [n, *image] to logits [n, 1] by two hidden layers of leaky ReLUs."""

    hidden: Activation = staticmethod(partial(F.leaky_relu, negative_slope=SLOPE))
    output: Activation = staticmethod(lambda x: x)

    def __init__(self, hidden: int = 128, image: tuple[int, ...] = (1, 8, 8)) -> None:
        super().__init__()
        self.classes = 0
        self.image: tuple[int, ...] = image
        sizes = (math.prod(image), hidden, hidden, 1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1"]:
        first, second, last = self.layers
        return last(self.hidden(second(self.hidden(first(x.flatten(1))))))


class ConvGenerator(nn.Module):
    """z [n, 32] to images [n, 1, 8, 8], from 2 x 2 by two nearest-neighbour enlargements."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.latent, self.classes, self.image = LATENT, 0, (1, 8, 8)
        self.linear = nn.Linear(LATENT, 4 * width * 4)
        self.bn0, self.bn1, self.bn2 = (nn.BatchNorm2d(width * k) for k in (4, 2, 1))
        self.conv1 = nn.Conv2d(4 * width, 2 * width, 3, padding=1)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n 1 8 8"]:
        h = F.relu(self.bn0(self.linear(z).view(len(z), -1, 2, 2)))
        h = F.relu(self.bn1(self.conv1(F.interpolate(h, scale_factor=2))))
        h = F.relu(self.bn2(self.conv2(F.interpolate(h, scale_factor=2))))
        return torch.tanh(self.conv3(h))


class ConvDiscriminator(nn.Module):
    """Images [n, 1, 8, 8] to logits [n, 1]; spectrally normalised, summed over pixels."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.classes, self.image = 0, (1, 8, 8)
        self.conv1 = SNConv2d(1, width, 3, padding=1)
        self.conv2 = SNConv2d(width, 2 * width, 3, stride=2, padding=1)
        self.conv3 = SNConv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        self.linear = SNLinear(4 * width, 1)

    def forward(self, x: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 1"]:
        normalise_together(spectral_layers(self))
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(conv(x))
        return self.linear(x.sum((2, 3)))
