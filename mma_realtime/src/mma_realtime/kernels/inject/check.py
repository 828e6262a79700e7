"""What is checked of injection in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import fused_inject, reference


def operands(generator: torch.Generator, B: int, C: int, L: int, S: int, T: int, G: int) -> tuple[Any, ...]:
    """Banks of three rows; half of the windows hold no signal; G: samples of a glitch, 0 for none."""

    def whole(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (B, C), generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    flip, factor = 1.0 - 2 * whole(0, 2).double(), 8 * normal(B, C)
    factor[::2] = 0
    mute = (whole(0, 4) > 0).double()
    plain = (normal(3, L), whole(0, 3), whole(-2 * L, 2 * L), flip, normal(3, S), whole(0, 3), whole(-T, S), factor)
    glitch = (normal(3, G), whole(0, 3), whole(-T, G), 9 * normal(B, C)) if G else ()
    return (*plain, mute, T, *glitch)


def cost(B: int, C: int, L: int, S: int, T: int, G: int) -> tuple[float, float]:
    """FLOPs, and entries moved: noise and signal are read once (in half of the windows), the sum is written."""
    return (4.0 if G else 2.5) * B * C * T, (3.5 if G else 2.5) * B * C * T


CHECK = Check(
    "inject",
    lambda *x: (fused_inject(*x),),
    lambda *x: (reference.fused_inject(*x),),
    operands,
    small=[
        {"B": 4, "C": 2, "L": 50, "S": 37, "T": 41, "G": 0},
        {"B": 5, "C": 1, "L": 7, "S": 60, "T": 41, "G": 9},
        {"B": 1, "C": 1, "L": 1, "S": 1, "T": 1, "G": 1},
    ],
    timed=[
        {"B": 128, "C": 1, "L": 65536, "S": 2048, "T": 1024, "G": 0},
        {"B": 384, "C": 2, "L": 262144, "S": 4096, "T": 2048, "G": 2048},
    ],
    cost=cost,
    gradients=False,
    modes=("fp32", "bf16", "fp16"),
)
