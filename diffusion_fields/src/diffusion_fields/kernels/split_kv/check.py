"""What is checked of split attention in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import reference, split_kv_cross_attention


def operands(generator: torch.Generator, B: int, H: int, L: int, N: int, h: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (torch.randn(B, H, size, h, generator=generator, dtype=torch.float64) for size in (L, N, N))
    return q, k, v


def cost(B: int, H: int, L: int, N: int, h: int) -> tuple[float, float]:
    """FLOPs of both products, and entries moved: keys and values are read once."""
    return 4.0 * B * H * L * N * h, 2.0 * B * H * (N + L) * h


CHECK = Check(
    "split_kv",
    lambda q, k, v: (split_kv_cross_attention(q, k, v),),
    lambda q, k, v: (reference.split_kv_cross_attention(q, k, v),),
    operands,
    small=[
        {"B": 1, "H": 2, "L": 5, "N": 300, "h": 8},
        {"B": 2, "H": 1, "L": 17, "N": 70, "h": 20},
        {"B": 1, "H": 1, "L": 1, "N": 1, "h": 1},
    ],
    timed=[{"B": 1, "H": 8, "L": 64, "N": 65536, "h": 64}, {"B": 4, "H": 4, "L": 128, "N": 65536, "h": 64}],
    cost=cost,
    gradients=False,
)
