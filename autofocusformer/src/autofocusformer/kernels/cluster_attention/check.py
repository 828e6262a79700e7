"""What is checked of the attention in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from ..points import clustered_points
from . import cluster_attention, reference


def operands(
    generator: torch.Generator, B: int, n: int, H: int, e: int, m: int, nnc: int
) -> tuple[Tensor | int | None, ...]:
    """q, k, v, positions, lists (None where nnc is 0), position weights and bias, blank token, m."""
    positions, _, near = clustered_points(generator, B, n, m, max(1, nnc))
    q, k, v = (torch.randn(B, H, n, e, generator=generator, dtype=torch.float64) for _ in range(3))
    weight = 0.1 * torch.randn(H, 5, generator=generator, dtype=torch.float64)
    bias = torch.randn(H, generator=generator, dtype=torch.float64)
    blank_k, blank_v = (torch.randn(H, e, generator=generator, dtype=torch.float64) for _ in range(2))
    return q * e**-0.5, k, v, positions, near if nnc else None, weight, bias, blank_k, blank_v, m


def of(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor]]:
    def call(*given: Any) -> tuple[Tensor]:
        return (function(*given),)

    return call


def cost(B: int, n: int, H: int, e: int, m: int, nnc: int) -> tuple[float, float]:
    """FLOPs of the products and entries moved: q, k, v and the result once, lists and positions as well."""
    neighbours = min(nnc * m, n) if nnc else n
    return 4.0 * B * H * n * neighbours * e, 4.0 * B * H * n * e + B * n * (nnc + 2)


CHECK = Check(
    "cluster_attention",
    of(cluster_attention),
    of(reference.cluster_attention),
    operands,
    small=[
        {"B": 2, "n": 21, "H": 2, "e": 16, "m": 8, "nnc": 2},  # neither whole clusters nor whole tiles
        {"B": 1, "n": 21, "H": 1, "e": 24, "m": 4, "nnc": 9},  # fewer clusters than asked for
        {"B": 1, "n": 50, "H": 1, "e": 8, "m": 24, "nnc": 2},
        {"B": 1, "n": 19, "H": 2, "e": 16, "m": 8, "nnc": 0},  # global
        {"B": 1, "n": 3, "H": 1, "e": 16, "m": 8, "nnc": 1},
        {"B": 1, "n": 21, "H": 1, "e": 32, "m": 8, "nnc": 2},
        {"B": 1, "n": 19, "H": 1, "e": 32, "m": 24, "nnc": 0},
        {"B": 1, "n": 60, "H": 1, "e": 16, "m": 48, "nnc": 1},  # windows
    ],
    # Tiny's four stages at 224 px, batch 64; stage 1 of a 512 x 1024 image.
    timed=[
        {"B": 64, "n": 3136, "H": 2, "e": 32, "m": 8, "nnc": 6},
        {"B": 64, "n": 784, "H": 4, "e": 32, "m": 8, "nnc": 6},
        {"B": 64, "n": 196, "H": 8, "e": 32, "m": 8, "nnc": 6},
        {"B": 64, "n": 49, "H": 16, "e": 32, "m": 8, "nnc": 0},
        {"B": 1, "n": 32768, "H": 2, "e": 32, "m": 8, "nnc": 6},
    ],
    cost=cost,
    compiled=False,  # the definition's gathers need 5 GB at the largest shape
)
