"""Noise for the sampler: drawn from a generator, or a deterministic function of a seed and the coordinate.

With the second, a point gets the same noise in whatever set of queries it stands, so that one seed is one field at the
context points however the field is looked at (section 9.5).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_fields.diffusion import normal

GRID = 2.0**20  # coordinates are read to 1e-6: the same point computed in another way is the same point
MASK64 = 2**64 - 1


def _signed(x: int) -> int:
    x &= MASK64
    return x - 2**64 if x >= 2**63 else x


GOLDEN, MIX_1, MIX_2 = _signed(0x9E3779B97F4A7C15), _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & (2 ** (64 - bits) - 1)  # int64 shifts its sign in; this takes it out


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014), wrapping in int64."""
    x = x + GOLDEN
    x = (x ^ _shift(x, 30)) * MIX_1
    x = (x ^ _shift(x, 27)) * MIX_2
    return x ^ _shift(x, 31)


def _uniform(x: Tensor) -> Tensor:
    return (_shift(x, 11).double() + 0.5) / 2**53


def hashed_noise(
    seed: int, coords: Float[Tensor, "*B N c"], stream: int = 0, batch: int = 1, channels: int = 1
) -> Float[Tensor, "batch N channels"]:
    """Standard normal numbers, independent over seeds, coordinates, streams, fields and channels.

    Args:
        seed: any int. coords: of one grid, or of `batch` grids; read to 2^-20, so below 2^42 in size. stream: which
            draw at these points (a sampler's step). batch, channels: fields and channels of the noise.
    """
    device = coords.device
    points = (coords.double() * GRID).round().long()
    key = _mix(torch.full(points.shape[:-1], _signed(seed), dtype=torch.int64, device=device))
    for axis in points.unbind(-1):
        key = _mix(key ^ axis)
    key = _mix(key ^ stream)[..., None]
    field = torch.arange(batch, device=device).reshape(-1, 1, 1)
    key = _mix(_mix(key ^ field) ^ torch.arange(channels, device=device))
    radius = (-2 * _uniform(_mix(key)).log()).sqrt()  # Box and Muller
    return (radius * (2 * math.pi * _uniform(_mix(key ^ GOLDEN))).cos()).to(coords.dtype)


class NoiseSource:
    """Draw after draw of noise at fixed coordinates; `seed` None takes it from the generator."""

    def __init__(
        self, coords: Tensor, batch: int, channels: int, generator: torch.Generator | None, seed: int | None
    ) -> None:
        self.coords, self.batch, self.channels, self.generator, self.seed = coords, batch, channels, generator, seed
        self.stream = 0

    def __call__(self) -> Float[Tensor, "batch N channels"]:
        if self.seed is None:
            shape = (self.batch, self.coords.shape[-2], self.channels)
            return normal(shape, self.coords, self.generator)
        self.stream += 1
        return hashed_noise(self.seed, self.coords, self.stream - 1, self.batch, self.channels)
