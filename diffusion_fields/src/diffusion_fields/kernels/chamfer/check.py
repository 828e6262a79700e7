"""What is checked of Chamfer distances in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import chamfer_allpairs, reference


def operands(generator: torch.Generator, n: int, m: int, M: int, K: int) -> tuple[Tensor, Tensor]:
    """Points of spheres of different sizes, far from the origin."""
    clouds = []
    for count, points in ((n, M), (m, K)):
        x = torch.randn(count, points, 3, generator=generator, dtype=torch.float64)
        size = 0.3 + torch.rand(count, 1, 3, generator=generator, dtype=torch.float64)
        clouds.append(2 + size * x / x.norm(dim=-1, keepdim=True))
    return clouds[0], clouds[1]


def cost(n: int, m: int, M: int, K: int) -> tuple[float, float]:
    """FLOPs (eight and two minima for each pair of points), and entries moved: the clouds are read once."""
    return 10.0 * n * m * M * K, 3.0 * (n * M + m * K) + n * m


CHECK = Check(
    "chamfer",
    lambda G, R: (chamfer_allpairs(G, R),),
    lambda G, R: (reference.chamfer_allpairs(G, R),),
    operands,
    small=[{"n": 2, "m": 3, "M": 130, "K": 37}, {"n": 1, "m": 1, "M": 1, "K": 1}, {"n": 1, "m": 2, "M": 20, "K": 50}],
    timed=[{"n": 16, "m": 16, "M": 2048, "K": 2048}],
    cost=cost,
    gradients=False,
    modes=("fp32", "bf16", "fp16"),
    compiled=False,  # a graph of a node for every pair
)
