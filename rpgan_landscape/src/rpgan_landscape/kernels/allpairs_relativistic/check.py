"""What is checked of K3 in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import reference
from .sums import allpairs_sums


def operands(generator: torch.Generator, N: int, M: int) -> tuple[Tensor, Tensor]:
    """Logits of columns (so that they come in 16 bits too), most of them a few units apart and some at the ends."""
    a, b = (3 * torch.randn(n, 1, generator=generator, dtype=torch.float64) for n in (N, M))
    a[6::7] *= 8
    return a.clamp(-60, 60), b


def value(a: Tensor, b: Tensor) -> tuple[Tensor]:
    """The operator itself: the public function leaves small sizes to the definition."""
    return (allpairs_sums(a.flatten().float(), b.flatten().float(), "logistic")[0],)


def definition(a: Tensor, b: Tensor) -> tuple[Tensor]:
    return (reference.allpairs_relativistic(a.flatten(), b.flatten(), "logistic"),)


def cost(N: int, M: int) -> tuple[float, float]:
    """FLOPs and entries moved.

    Two special functions a pair bound the work, each in the time of 16 FLOPs (16 against 256 a clock and
    multiprocessor); both vectors are read once, the partial sums written and read.
    """
    return 32.0 * N * M, 1.0 * N + M + 2.0 * N * M * (1 / 128 + 1 / 2048)


CHECK = Check(
    "allpairs_relativistic",
    value,
    definition,
    operands,
    small=[{"N": 37, "M": 129}, {"N": 300, "M": 70}, {"N": 1, "M": 1}],
    timed=[{"N": 1024, "M": 1024}, {"N": 4096, "M": 4096}, {"N": 16384, "M": 16384}],
    cost=cost,
)
