"""What is checked of peaks in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import peak_reduce, reference

STEPS = 8  # parts are whole numbers of these: powers are exact in any dtype, and many are equal


def operands(generator: torch.Generator, M: int, T: int, size: int, threshold: int) -> tuple[Tensor, int, int]:
    """Real and imaginary parts side by side, samples of a bin, and what is loud."""
    return (STEPS * torch.randn(M, 2 * T, generator=generator, dtype=torch.float64)).round() / STEPS, size, threshold


def of(function: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    def call(parts: Tensor, size: int, threshold: int) -> tuple[Tensor, ...]:
        z = torch.view_as_complex(parts.view(len(parts), -1, 2))
        return tuple(function(z, size, float(threshold)))

    return call


def cost(M: int, T: int, size: int, threshold: int) -> tuple[float, float]:
    """FLOPs, and entries moved: every sample once, five for each bin."""
    return 5.0 * M * T, 2.0 * M * T + 5.0 * M * -(-T // size)


CHECK = Check(
    "peaks",
    of(peak_reduce),
    of(reference.peak_reduce),
    operands,
    small=[
        {"M": 2, "T": 150, "size": 100, "threshold": 2},
        {"M": 1, "T": 1, "size": 1, "threshold": 0},
        {"M": 3, "T": 41, "size": 5, "threshold": 1},
    ],
    timed=[{"M": 64, "T": 2**19, "size": 128, "threshold": 5}, {"M": 64, "T": 2**19, "size": 2048, "threshold": 5}],
    cost=cost,
    gradients=False,
    modes=("fp32",),
)
