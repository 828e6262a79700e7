"""What is checked of peaks in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import peak_reduce, reference

STEPS = 8  # parts are whole numbers of these: powers are exact in any dtype, and many are equal
THRESHOLD = 2.0


def operands(generator: torch.Generator, M: int, T: int, size: int) -> tuple[Tensor, int]:
    """Real and imaginary parts side by side, and samples of a bin."""
    return (STEPS * torch.randn(M, 2 * T, generator=generator, dtype=torch.float64)).round() / STEPS, size


def of(function: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    def call(parts: Tensor, size: int) -> tuple[Tensor, ...]:
        z = torch.view_as_complex(parts.view(len(parts), -1, 2))
        return tuple(function(z, size, THRESHOLD))

    return call


def cost(M: int, T: int, size: int) -> tuple[float, float]:
    """FLOPs, and entries moved: every sample once, five for each bin."""
    return 5.0 * M * T, 2.0 * M * T + 5.0 * M * -(-T // size)


CHECK = Check(
    "peaks",
    of(peak_reduce),
    of(reference.peak_reduce),
    operands,
    small=[{"M": 2, "T": 150, "size": 100}, {"M": 1, "T": 1, "size": 1}, {"M": 3, "T": 41, "size": 5}],
    timed=[{"M": 64, "T": 2**19, "size": 128}, {"M": 64, "T": 2**19, "size": 2048}],
    cost=cost,
    gradients=False,
    modes=("fp32",),
)
