"""What is checked of slid sums in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import reference, slide_hist

STEPS = 64  # scores are whole numbers of these, so that sums are exact in any dtype
NUMBERS = (2.0, 5.6)  # threshold, gap


def operands(generator: torch.Generator, T: int, K: int) -> tuple[Any, ...]:
    """Scores with a tail and a few gaps; the first pair is valid and above."""
    scores = [(STEPS * torch.randn(T, generator=generator, dtype=torch.float64)).round() / STEPS for _ in range(2)]
    valid = [torch.rand(T, generator=generator) > 0.05 for _ in range(2)]
    for s, v in zip(scores, valid):
        s[0], v[0] = 3, True
    shifts = torch.randint(-2 * T, 2 * T, (K,), generator=generator)
    edges = torch.cat([torch.linspace(2, 6, 30), torch.tensor([float("inf")])]).double()
    return (*scores, shifts, edges, *valid)


def of(function: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    def call(s1: Tensor, s2: Tensor, shifts: Tensor, edges: Tensor, valid1: Tensor, valid2: Tensor) -> tuple[Any, ...]:
        r = function(s1, s2, shifts, edges, *NUMBERS, valid1, valid2)
        # A slide without a pair has -inf: no number that can be compared.
        return r.hist, r.loudest.clamp(min=-9), r.clusters, r.valid_hops

    return call


def cost(T: int, K: int) -> tuple[float, float]:
    """FLOPs (an add, two comparisons and six selections for each sum), and entries moved: scores for each 32 slides."""
    return 9.0 * K * T, 2.0 * T * -(-K // 32)


CHECK = Check(
    "slides",
    of(slide_hist),
    of(reference.slide_hist),
    operands,
    small=[{"T": 60, "K": 35}, {"T": 1, "K": 1}, {"T": 13, "K": 3}],
    timed=[{"T": 57_600, "K": 1_800}, {"T": 9_676_800, "K": 100}],
    cost=cost,
    gradients=False,
    modes=("fp32",),
    compiled=False,  # sizes that depend on the scores
)
