"""What is checked of the tilted moments in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import reference, tilted_moments


def operands(generator: torch.Generator, K: int, N: int, T: int) -> tuple[Tensor, Tensor, float, int]:
    """Losses of very different rows (the second far from 0, the third spread wide), and norms; alphas up to 1."""
    loss = 8 * torch.rand(K, N, generator=generator, dtype=torch.float64)
    loss[1::3] += 30
    loss[2::3] *= 80
    return loss, 3 * torch.rand(K, N, generator=generator, dtype=torch.float64), 1 / max(T - 1, 1), T


def cost(K: int, N: int, T: int) -> tuple[float, float]:
    """FLOPs and entries moved: losses and norms are read once."""
    return 4.0 * K * N * T, 2.0 * K * N


CHECK = Check(
    "tilted_moments",
    tilted_moments,
    reference.tilted_moments,
    operands,
    small=[{"K": 3, "N": 257, "T": 17}, {"K": 1, "N": 1, "T": 65}, {"K": 3, "N": 2200, "T": 40}],
    timed=[{"K": 200, "N": 10000, "T": 65}, {"K": 50, "N": 10000, "T": 129}],
    cost=cost,
    gradients=False,
    modes=("fp32", "bf16", "fp16"),
)
