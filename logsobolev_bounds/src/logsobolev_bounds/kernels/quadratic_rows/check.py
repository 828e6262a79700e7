"""What is checked of the quadratic rows in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import quadratic_rows, reference


def operands(generator: torch.Generator, K: int, N: int, H: int) -> tuple[Tensor, Tensor]:
    """Gradients at the first pre-activation, and A = W W' / d of d = 2 h inputs."""
    delta, W = (torch.randn(K, n, m, generator=generator, dtype=torch.float64) for n, m in ((N, H), (H, 2 * H)))
    return delta, W @ W.mT / (2 * H)


def cost(K: int, N: int, H: int) -> tuple[float, float]:
    return 2.0 * K * N * H * H + 3.0 * K * N * H, float(K * (N * H + H * H + N))


CHECK = Check(
    "quadratic_rows",
    lambda delta, A: (quadratic_rows(delta, A),),
    lambda delta, A: (reference.quadratic_rows(delta, A),),
    operands,
    small=[{"K": 3, "N": 37, "H": 40}, {"K": 1, "N": 1, "H": 3}, {"K": 2, "N": 70, "H": 65}],
    timed=[{"K": 4, "N": 10000, "H": 256}, {"K": 100, "N": 2000, "H": 100}],
    cost=cost,
    gradients=False,
    modes=("fp32", "bf16", "fp16"),
)
