"""A training or test part, resident as one tensor: images stay bytes until a batch asks for them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

NOISE = 1 / 128  # width of the uniform noise that is added to images in [-1, 1]


@dataclass(frozen=True)
class Points:
    """n points.

    Args:
        rows: points in float32 [n, d], or images in uint8 [m, c, h, w] with c = 1 or 3.
        labels: of each point, or None.
        stacks: where a point is three grey images as red, green and blue: their rows [n, 3].
    """

    rows: Tensor
    labels: Int64[Tensor, " n"] | None
    stacks: Int64[Tensor, "n 3"] | None = None

    def __len__(self) -> int:
        return len(self.rows if self.stacks is None else self.stacks)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one point: (d,) or (3, h, w)."""
        return (3, *self.rows.shape[2:]) if self.rows.dtype == torch.uint8 else tuple(self.rows.shape[1:])

    def x(self, index: Int64[Tensor, " b"]) -> Float[Tensor, "b ..."]:
        """The points of these numbers; images in [-1, 1] with three channels, a single channel repeated."""
        if self.stacks is not None:
            index = self.stacks[index].flatten()
        rows = self.rows.index_select(0, index)
        if rows.dtype != torch.uint8:
            return rows
        images = rows.float().mul_(2 / 255).sub_(1)
        if self.stacks is not None:
            return images.view(-1, *self.shape)
        return images.expand(-1, 3, -1, -1)

    def first(self, n: int) -> Points:
        if self.stacks is not None:
            return replace(self, stacks=self.stacks[:n], labels=None if self.labels is None else self.labels[:n])
        return self.of(torch.arange(n))

    def of(self, index: Int64[Tensor, " m"]) -> Points:
        """Those of these numbers, as a set of its own (not of stacks)."""
        return Points(self.rows[index], None if self.labels is None else self.labels[index])

    def to(self, device: torch.device) -> Points:
        labels, stacks = (None if t is None else t.to(device) for t in (self.labels, self.stacks))
        return Points(self.rows.to(device), labels, stacks)


def stream(seed: int, use: str, number: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of one use: each (seed, use, number) has its own draws, in whatever order they are asked for."""
    digest = hashlib.blake2b(f"{seed} {use} {number}".encode(), digest_size=4).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little"))


def image_noise(shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, ...]:
    """Uniform noise in [0, 1/128), on the generator's device.

    In steps of 2^-23: finer than float32 resolves an image's brighter half, and a quarter of the time that
    `torch.rand` takes on a CPU, since one 64-bit word gives four of them.
    """
    size = torch.Size(shape).numel()
    words = torch.empty(-(-size // 4), dtype=torch.int64, device=generator.device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:size].view(shape).float().add_(2**15).mul_(NOISE / 2**16)


def shuffled(n: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """One epoch: every point once."""
    return torch.randperm(n, generator=generator)


def class_cyclic(labels: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " m"]:
    """One epoch of the balanced sampler: class after class in turn, each as often as the largest has points.

    A smaller class goes through all its points, in a new order each time, before one of them comes again.
    """
    classes, counts = labels.unique(return_counts=True)
    most = int(counts.max())
    columns = []
    for label, count in zip(classes, counts.tolist()):
        own = (labels == label).nonzero()[:, 0]
        orders = [own[torch.randperm(count, generator=generator)] for _ in range(-(-most // count))]
        columns.append(torch.cat(orders)[:most])
    return torch.stack(columns, 1).flatten()
