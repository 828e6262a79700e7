"""What is checked of the Fourier layer in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import fourier_linear, reference

FREQ_SCALE = 0.5  # a power of two: angles are the same numbers in float32 and float64


def operands(generator: torch.Generator, N: int, C: int, F: int, P: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points of [-1, 1]^c, a layer of the usual size of weights."""
    p = C * (1 + 2 * F)
    x = 2 * torch.rand(N, C, generator=generator, dtype=torch.float64) - 1
    W, b = (torch.randn(*shape, generator=generator, dtype=torch.float64) / p**0.5 for shape in ((P, p), (P,)))
    return x, W, b


def cost(N: int, C: int, F: int, P: int) -> tuple[float, float]:
    """FLOPs of the product, and entries moved: points and the layer are read, the result is written."""
    p = C * (1 + 2 * F)
    return 2.0 * N * p * P, float(N * C + P * p + P + N * P)


CHECK = Check(
    "fourier",
    lambda x, W, b: (fourier_linear(x, W, b, FREQ_SCALE),),
    lambda x, W, b: (reference.fourier_linear(x, W, b, FREQ_SCALE),),
    operands,
    small=[
        {"N": 70, "C": 3, "F": 4, "P": 33},
        {"N": 65, "C": 3, "F": 6, "P": 130},
        {"N": 1, "C": 1, "F": 0, "P": 1},
        {"N": 5, "C": 3, "F": 12, "P": 17},
    ],
    timed=[{"N": 64 * 8192, "C": 3, "F": 10, "P": 128}, {"N": 64 * 8192, "C": 3, "F": 10, "P": 63}],
    cost=cost,
)
