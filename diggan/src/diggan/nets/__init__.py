"""The networks by name."""

from __future__ import annotations

from typing import Literal, get_args

from shared.errors import UserError
from torch import nn

from . import biggan, biggan_cifar, small

Network = Literal["mlp64", "mlp784", "conv8", "biggan_cifar", "biggan64", "biggan128"]
WIDTHS = {"mlp64": 128, "mlp784": 256, "conv8": 16, "biggan_cifar": 64, "biggan64": 80, "biggan128": 96}
IMAGES = {
    "mlp64": (1, 8, 8),
    "mlp784": (1, 28, 28),
    "conv8": (1, 8, 8),
    "biggan_cifar": (3, 32, 32),
    "biggan64": (3, 64, 64),
    "biggan128": (3, 128, 128),
}


def build(
    network: Network,
    width: int | None = None,
    classes: int = 10,
    latent: int | None = None,
    shared_embedding: bool = False,
    attention: bool = False,
) -> tuple[nn.Module, nn.Module]:
    """(G, D), initialised. Both have `classes` (0: unconditional) and `image`, G has `latent`.

    Args:
        width: default `WIDTHS`; of biggan_cifar its `ch`.
        classes: of the conditional networks.
        latent, shared_embedding, attention: of biggan_cifar (default latent 128).

    Raises:
        UserError: a network that does not exist (the known are listed), a width below 1, an option it does not have.
    """
    if network not in WIDTHS:
        raise UserError(f"unknown network {network!r}: there are {', '.join(get_args(Network))}")
    width = WIDTHS[network] if width is None else width
    if width < 1:
        raise UserError(f"width is {width}: it has to be at least 1")
    if network == "biggan_cifar":
        if classes < 1:
            raise UserError(f"classes is {classes}: a conditional network needs at least 1")
        return (
            biggan_cifar.Generator(width, classes, latent or 128, shared_embedding, attention),
            biggan_cifar.Discriminator(width, classes),
        )
    if shared_embedding or attention or latent:
        raise UserError(f"latent, shared_embedding and attention are options of biggan_cifar, not of {network}")
    if network.startswith("mlp"):
        image = IMAGES[network]
        return small.MLPGenerator(width, image), small.MLPDiscriminator(width, image)
    if network == "conv8":
        return small.ConvGenerator(width), small.ConvDiscriminator(width)
    size = IMAGES[network][1]
    return biggan.Generator(size, width, classes), biggan.Discriminator(size, width, classes)


def parameters(net: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)
