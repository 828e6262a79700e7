"""What is checked of the merging in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from ..cluster_attention.reference import members
from ..points import clustered_points
from . import point_merge, reference


def operands(generator: torch.Generator, B: int, n: int, kept: int, c: int, m: int, nnc: int) -> tuple[Tensor, ...]:
    """x, prob, positions, kept, idx, valid, weight, bias, norm weight and bias."""
    positions, _, near = clustered_points(generator, B, n, m, nnc)
    rows = torch.stack([torch.randperm(n, generator=generator)[:kept].sort().values for _ in range(B)])
    near = near.gather(1, rows[..., None].expand(-1, -1, near.shape[2]))
    idx, valid = members(near, m, n)
    real = [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((B, n, c), (B, n), (4, 5), (4,), (4,))]
    x, prob, weight, bias, shift = real
    gain = 1 + 0.1 * torch.randn(4, generator=generator, dtype=torch.float64)
    return x, prob.sigmoid(), positions, rows, idx, valid, 0.2 * weight, bias, gain, 0.1 * shift


def of(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor]]:
    def call(*given: Any) -> tuple[Tensor]:
        return (function(*given),)

    return call


def cost(B: int, n: int, kept: int, c: int, m: int, nnc: int) -> tuple[float, float]:
    """FLOPs of the products and entries moved: x and the result once, lists, positions and importances as well."""
    M = nnc * m
    return 8.0 * B * kept * M * c, float(B * (n * c + 4 * kept * c + kept * M + 3 * n))


CHECK = Check(
    "point_merge",
    of(point_merge),
    of(reference.point_merge),
    operands,
    small=[
        {"B": 2, "n": 29, "kept": 5, "c": 20, "m": 8, "nnc": 2},
        {"B": 1, "n": 11, "kept": 3, "c": 150, "m": 4, "nnc": 9},
    ],
    timed=[
        {"B": 64, "n": 3136, "kept": 784, "c": 64, "m": 8, "nnc": 6},
        {"B": 64, "n": 784, "kept": 196, "c": 128, "m": 8, "nnc": 6},
        {"B": 64, "n": 196, "kept": 49, "c": 256, "m": 8, "nnc": 6},
    ],
    cost=cost,
    modes=("fp32", "bf16", "fp16"),
    compiled=False,
)
