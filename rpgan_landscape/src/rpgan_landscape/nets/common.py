"""What the networks of section 5 share: spectral normalisation under the published names, and the initialisations."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)
LEAK = 0.1  # of LeakyReLU in the image critics


class Generator(nn.Module):
    """A network that makes samples of latents; `latent` is the number of entries of one."""

    latent: int


def normalised(layer: M) -> M:
    """`layer` with spectral normalisation: one power iteration in every forward pass in training, none in eval mode.

    The form that keeps `weight_orig`, `weight_u` and `weight_v` beside each other: published critics load strictly
    (the newer parametrisation has other names).
    """
    return nn.utils.spectral_norm(layer)


def xavier(net: nn.Module) -> None:
    """Xavier uniform weights of linear layers and convolutions; transposed convolutions and biases keep the default."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)


def orthogonal(net: nn.Module) -> None:
    """Orthogonal weights of linear layers and convolutions; call it before they are normalised."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.orthogonal_(layer.weight)


def normalise(net: M) -> M:
    """Orthogonal initialisation and spectral normalisation of every linear layer and convolution of a critic."""
    orthogonal(net)
    for layer in list(net.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            normalised(layer)
    return net
