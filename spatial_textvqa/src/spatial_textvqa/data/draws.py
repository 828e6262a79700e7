"""Random numbers by their place: the same for (seed, index, attempt, slot), whatever else is drawn.

A scene is then the same in any batch, any order and any process, and thousands are drawn at once.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt64

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _mixed(x: UInt64[np.ndarray, ...]) -> UInt64[np.ndarray, ...]:
    """The finaliser of SplitMix64."""
    x = (x ^ (x >> np.uint64(30))) * _MIX[0]
    x = (x ^ (x >> np.uint64(27))) * _MIX[1]
    return x ^ (x >> np.uint64(31))


def _bits(seed: int, indices: Int64[np.ndarray, " n"], stream: int, count: int) -> UInt64[np.ndarray, "n count"]:
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the point
        key = _mixed(np.array([seed * 0x10001 + stream], dtype=np.int64).view(np.uint64) * _STEP + _STEP)
        start = _mixed(key + indices.astype(np.int64).view(np.uint64) * _STEP)
        return _mixed(start[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _STEP)


def uniform(seed: int, indices: Int64[np.ndarray, " n"], stream: int, count: int) -> Float64[np.ndarray, "n count"]:
    """`count` numbers in [0, 1) for each index; `stream` names what they are for."""
    return (_bits(seed, indices, stream, count) >> np.uint64(11)) * 2.0**-53


def seeds(seed: int, indices: Int64[np.ndarray, " n"], stream: int) -> list[int]:
    """A seed below 2^63 for each index, for a generator of its own."""
    return (_bits(seed, indices, stream, 1)[:, 0] >> np.uint64(1)).tolist()


def normal(seed: int, indices: Int64[np.ndarray, " n"], stream: int, count: int) -> Float32[np.ndarray, "n count"]:
    """Standard normal numbers, from a generator of its own for each index."""
    out, generator = torch.empty(len(indices), count), torch.Generator()
    for row, own in zip(out, seeds(seed, indices, stream)):
        row.normal_(generator=generator.manual_seed(own))
    return out.numpy()
