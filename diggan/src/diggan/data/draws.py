"""Everything random in a run, as a function of (seed, iteration): resumed anywhere, the numbers are the same.

Drawn for `CHUNK` iterations at a time, as single draws would cost more than what a small network does with them. A
network that trains beside others has the very numbers that it has alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from diggan.kernels.fused_diffaugment import Draws, draw

CHUNK = 50


@dataclass(frozen=True)
class Plan:
    """What one G iteration takes.

    Args:
        n: training images; batch: images of one update; d_steps: updates of D before G's.
        latent: entries of z; classes: of conditional networks (0: none).
        policy: DiffAugment's (empty: none); height, width: of the images.
        flip: mirror half of the reals.
        accumulate: batches of each update, one after another along the axis of updates.
    """

    n: int
    batch: int
    d_steps: int
    latent: int
    classes: int = 0
    policy: str = ""
    height: int = 8
    width: int = 8
    flip: bool = False
    accumulate: int = 1

    @property
    def d_batches(self) -> int:
        """Of reals in an iteration."""
        return self.d_steps * self.accumulate

    @property
    def batches(self) -> int:
        """Of latents: D's, then G's."""
        return (self.d_steps + 1) * self.accumulate


@dataclass(frozen=True)
class Chunk:
    """The draws of `CHUNK` iterations; see `draw_chunk`."""

    rows: Int64[Tensor, "chunk d_batches batch"]
    flips: Tensor | None
    z: Float[Tensor, "chunk batches batch latent"]
    gy: Int64[Tensor, "chunk batches batch"] | None
    augment: list[Draws]


def stream(seed: int, use: str, number: int = 0) -> torch.Generator:
    """The generator of one use: each (seed, use, number) has its own draws, in whatever order they are asked for."""
    digest = hashlib.blake2b(f"{seed} {use} {number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def image_rows(n: int, seed: int, start: int, count: int) -> Int64[Tensor, " count"]:
    """Places `start ... start + count - 1` of an endless list of epochs, each a permutation of the n images."""
    first, last = start // n, (start + count - 1) // n
    epochs = [torch.randperm(n, generator=stream(seed, "epoch", e)) for e in range(first, last + 1)]
    return torch.cat(epochs)[start - first * n :][:count]


def draw_chunk(plan: Plan, seed: int, number: int) -> Chunk:
    """The draws of iterations `number * CHUNK ...` (from 0). Fewer images than one batch come again and again."""
    per = plan.d_batches * plan.batch
    rows = image_rows(plan.n, seed, number * CHUNK * per, CHUNK * per).view(CHUNK, plan.d_batches, plan.batch)
    flips = torch.rand(rows.shape, generator=stream(seed, "flips", number)) < 0.5 if plan.flip else None
    z = torch.randn(CHUNK, plan.batches, plan.batch, plan.latent, generator=stream(seed, "latents", number))
    gy = None
    if plan.classes:
        gy = torch.randint(plan.classes, z.shape[:3], generator=stream(seed, "classes", number))
    augment = []
    if plan.policy:
        images = CHUNK * (plan.d_batches + plan.batches) * plan.batch
        drawn = draw(plan.policy, images, plan.height, plan.width, stream(seed, "augment", number))
        # Of each iteration 2B for every update of D, then B for G's.
        sizes = ([2 * plan.batch] * plan.d_batches + [plan.batch] * plan.accumulate) * CHUNK
        columns = [None if u is None else u.split(sizes) for u in drawn]
        augment = [Draws(*(None if c is None else c[i] for c in columns)) for i in range(CHUNK * plan.batches)]
    return Chunk(rows, flips, z, gy, augment)


class Stream:
    """The draws of a run, iteration by iteration.

    Args:
        device: where they are used.
    """

    def __init__(self, plan: Plan, seed: int, device: torch.device | str = "cpu") -> None:
        self.plan, self.seed, self.device = plan, seed, device
        self.number = -1
        self.chunk: Chunk | None = None

    def at(self, k: int) -> tuple[Chunk, int]:
        """The chunk that iteration k (from 0) is in, on the device, and its place there."""
        number, place = divmod(k, CHUNK)
        if self.chunk is None or number != self.number:
            chunk = draw_chunk(self.plan, self.seed, number)
            self.number, self.chunk = number, moved(chunk, self.device)
        assert self.chunk is not None
        return self.chunk, place

    def random(self, k: int) -> torch.Generator:
        """For what is drawn as it is used."""
        return stream(self.seed, "random", k)


def moved(chunk: Chunk, device: torch.device | str) -> Chunk:
    if torch.device(device).type == "cpu":
        return chunk
    tensors = {n: v.to(device, non_blocking=True) for n, v in vars(chunk).items() if isinstance(v, Tensor)}
    augment = [Draws(*(None if u is None else u.to(device, non_blocking=True) for u in d)) for d in chunk.augment]
    return replace(chunk, **tensors, augment=augment)
