"""What is checked of the search in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

import torch
from shared.kernels.harness import Check
from torch import Tensor

from ..points import clustered_points
from . import nearest_clusters, reference


def operands(generator: torch.Generator, B: int, n: int, m: int, nnc: int) -> tuple[Tensor, Tensor, int]:
    """Positions, and centres in sixteenths of a cell: whole numbers, so that no precision loses any."""
    positions, centres, _ = clustered_points(generator, B, n, m, 1)
    return positions, (centres * 16).round().long(), nnc


def ours(positions: Tensor, centres: Tensor, nnc: int) -> tuple[Tensor]:
    return (nearest_clusters(positions, centres.double() / 16, nnc),)


def definition(positions: Tensor, centres: Tensor, nnc: int) -> tuple[Tensor]:
    return (reference.nearest_clusters(positions, centres.double() / 16, min(nnc, centres.shape[1])),)


def cost(B: int, n: int, m: int, nnc: int) -> tuple[float, float]:
    """FLOPs of one pass, and 4-byte entries moved: positions and centres in float64, lists of int64."""
    k = -(-n // m)
    return 5.0 * B * n * k, B * (4.0 * n + 4.0 * k + 2.0 * n * nnc)


CHECK = Check(
    "nearest_clusters",
    ours,
    definition,
    operands,
    small=[
        {"B": 2, "n": 45, "m": 8, "nnc": 3},
        {"B": 1, "n": 20, "m": 1, "nnc": 6},
        {"B": 1, "n": 3, "m": 2, "nnc": 9},
    ],
    timed=[{"B": 64, "n": 3136, "m": 8, "nnc": 6}, {"B": 1, "n": 32768, "m": 8, "nnc": 6}],
    cost=cost,
    gradients=False,
    modes=("fp32",),
    compiled=False,
)
