"""What is checked of K2 in the interpreter and on a GPU: every count, exactly."""

from __future__ import annotations

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import reference, state_histograms


def operands(generator: torch.Generator, n: int) -> tuple[Tensor, int]:
    """Where, and how many points."""
    return torch.zeros(1, dtype=torch.int64), n


def cost(n: int) -> tuple[float, float]:
    """Integer operations in the time of FLOPs: a quarter of the rate. Nothing is read, the histograms are written."""
    return 4.0 * 40 * n * (n + 1) ** n, 1056.0 * 2112


CHECK = Check(
    "enumerate_states",
    state_histograms,
    reference.state_histograms,
    operands,
    small=[{"n": 1}, {"n": 2}, {"n": 3}, {"n": 5}],
    timed=[{"n": 7}, {"n": 8}],
    cost=cost,
    gradients=False,
    modes=("fp32",),
    compiled=False,
)
