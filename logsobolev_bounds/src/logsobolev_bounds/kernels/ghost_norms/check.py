"""What is checked of ghost norms in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import ghost_norms, gram_is_cheaper, reference


def operands(generator: torch.Generator, N: int, T: int, C: int, O: int) -> tuple[Tensor, Tensor]:
    a, delta = (torch.randn(N, T, size, generator=generator, dtype=torch.float64) for size in (C, O))
    return a, delta


def cost(N: int, T: int, C: int, O: int) -> tuple[float, float]:
    """FLOPs of the cheaper form (half a Gram matrix), and entries moved."""
    gram = gram_is_cheaper(T, C, O)
    return float(N * T * (T * (C + O) if gram else 2 * C * O)), float(N * T * (C + O) + N)


CHECK = Check(
    "ghost_norms",
    lambda a, delta: (ghost_norms(a, delta),),
    lambda a, delta: (reference.ghost_norms(a, delta),),
    operands,
    small=[
        {"N": 3, "T": 17, "C": 40, "O": 41},
        {"N": 2, "T": 5, "C": 33, "O": 20},  # one small tile
        {"N": 1, "T": 35, "C": 80, "O": 70},
        {"N": 3, "T": 1, "C": 4, "O": 3},
        {"N": 2, "T": 9, "C": 3, "O": 4},  # the gradient itself
    ],
    timed=[{"N": 512, "T": 64, "C": 576, "O": 128}, {"N": 512, "T": 16, "C": 1152, "O": 256}],
    cost=cost,
    gradients=False,
    modes=("fp32", "bf16", "fp16"),
)
