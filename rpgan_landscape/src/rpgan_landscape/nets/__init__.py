"""The networks of section 5, by name; `build` makes a pair (G, D). `latent` of a G is the size of its input."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from shared.errors import UserError
from torch import nn

from rpgan_landscape.nets import cnn, cnn256, plain_resnet, resnet, toy
from rpgan_landscape.nets.common import Generator

__all__ = ["NETWORKS", "Generator", "build", "parameters"]


@dataclass(frozen=True)
class Network:
    """Args:
    make: (G, D) of a width.
    width: the regular one.
    image: (channels, side) of what G makes, or () for points.
    """

    make: Callable[[int], tuple[Generator, nn.Module]]
    width: int
    image: tuple[int, ...] = ()


def _cnn(size: int, width: int) -> tuple[Generator, nn.Module]:
    return cnn.Generator(width, size), cnn.Critic(width, size)


NETWORKS: dict[str, Network] = {
    "two_cluster": Network(toy.two_cluster, 10),
    "gaussians": Network(toy.gaussians, 128),
    "cnn32": Network(partial(_cnn, 32), 64, (3, 32)),
    "cnn48": Network(partial(_cnn, 48), 64, (3, 48)),
    "resnet32": Network(resnet.resnet32, 256, (3, 32)),
    "resnet32_bottleneck": Network(partial(resnet.resnet32, bottleneck=True), 256, (3, 32)),
    "resnet48": Network(resnet.resnet48, 64, (3, 48)),
    "resnet48_bottleneck": Network(partial(resnet.resnet48, bottleneck=True), 64, (3, 48)),
    "cnn256": Network(lambda width: (cnn256.Generator(width), cnn256.Critic(width)), 32, (3, 256)),
    "plain_resnet32": Network(lambda width: (plain_resnet.Generator(width), plain_resnet.Critic(width)), 64, (3, 32)),
}


def build(name: str, width: int | None = None) -> tuple[Generator, nn.Module]:
    """(G, D) of a name; width None: the regular one.

    Raises:
        UserError: no such network (the known ones are listed), or a width below 1 or odd where it is halved.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"unknown network {name!r}: there are {', '.join(NETWORKS)}{hint}")
    network = NETWORKS[name]
    w = network.width if width is None else width
    if w < 1 or ("resnet" in name and w % 4):
        raise UserError(f"width is {w}: {name} needs {'a multiple of 4' if 'resnet' in name else 'at least 1'}")
    return network.make(w)


def parameters(net: nn.Module) -> int:
    """How many a network has."""
    return sum(p.numel() for p in net.parameters())
