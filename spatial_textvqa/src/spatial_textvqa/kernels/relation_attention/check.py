"""What is checked of relation attention in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import reference, relation_attention
from .subsets import RELATIONS, subset_bits


def operands(generator: torch.Generator, B: int, T: int, N: int, S: int, d: int, H: int = 12, c: int = 3) -> tuple:
    """q, k, v, the table of the bias, and a graph with padding; one sample is all padding, where there are several."""
    length = T + N + S
    q, k, v = (torch.randn(B, H, length, d, generator=generator, dtype=torch.float64) for _ in range(3))
    beta = torch.randn(H, RELATIONS, generator=generator, dtype=torch.float64)
    relations = torch.randint(0, RELATIONS, (B, N, N), generator=generator).to(torch.uint8)
    valid = torch.rand(B, length, generator=generator) < 0.8
    if B > 1:
        valid[-1] = False
    valid[:, T + N :] = True
    bits = subset_bits(c) if H == 12 else subset_bits(c)[4 : 4 + H]  # a few heads: of sectors
    return q, k, v, beta, relations, valid, (T, N, S), bits


def of(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor]]:
    def call(
        q: Tensor, k: Tensor, v: Tensor, beta: Tensor, relations: Tensor, valid: Tensor, layout: Any, bits: Any
    ) -> tuple[Tensor]:
        return (function(q, k, v, relations, valid, reference.Layout(*layout), bits, beta.to(dtype=wide(q))),)

    return call


def wide(q: Tensor) -> torch.dtype:
    return torch.promote_types(q.dtype, torch.float32)


def cost(B: int, T: int, N: int, S: int, d: int, H: int = 12, c: int = 3) -> tuple[float, float]:
    """FLOPs of both products, and entries of q, k, v and the output; a pair's byte counts as half an entry."""
    length = T + N + S
    return 4.0 * B * H * length * length * d, 4.0 * B * H * length * d + B * N * N / 2


CHECK = Check(
    "relation_attention", of(relation_attention), of(reference.relation_attention), operands,
    small=[
        {"B": 2, "T": 3, "N": 9, "S": 4, "d": 4, "H": 1},
        {"B": 1, "T": 0, "N": 0, "S": 5, "d": 20, "H": 1},
        {"B": 1, "T": 2, "N": 5, "S": 0, "d": 16, "H": 2},
    ],
    timed=[{"B": 96, "T": 20, "N": 150, "S": 12, "d": 64}],
    cost=cost,
)  # fmt: skip
