"""What is checked of coincidences in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import coinc_count, reference

TICKS = 1024  # a second; times and shifts are whole numbers of ticks, so that the window's edge is met
WINDOW = 16 / TICKS
OFFSETS = (16, -16, 17, -17, 0)  # the window's edge is inside
STEPS = 64  # statistics are whole numbers of these, so that sums are exact in any dtype


def operands(generator: torch.Generator, n1: int, n2: int, K: int) -> tuple[Any, ...]:
    """Triggers each 10 s, an eighth of detector 2's together with one of detector 1."""
    livetime = 10 * max(n1, n2) * TICKS
    t1, t2 = (torch.randint(livetime, (n,), generator=generator) for n in (n1, n2))
    both = min(n1, n2 // 8)
    t2[:both] = (t1[:both] + torch.tensor(OFFSETS)[torch.arange(both) % 5]).clamp(0, livetime - 1)
    s1, s2 = (
        (5 + torch.rand(n, generator=generator, dtype=torch.float64)).mul(STEPS).round() / STEPS for n in (n1, n2)
    )
    edges = torch.linspace(10, 12, 17, dtype=torch.float64)
    shifts = TICKS * torch.arange(K) * 7 // 2
    return t1.sort().values, s1, t2.sort().values, s2, shifts, livetime, edges


def of(function: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    def call(t1: Tensor, s1: Tensor, t2: Tensor, s2: Tensor, shifts: Tensor, livetime: int, edges: Tensor) -> Any:
        times = [t.double() / TICKS for t in (t1, t2, shifts)]
        r = function(times[0], s1, times[1], s2, times[2], livetime / TICKS, WINDOW, edges)
        return r.pairs, r.loudest.clamp(min=-1), r.hist  # -inf is no number that can be compared

    return call


def cost(n1: int, n2: int, K: int) -> tuple[float, float]:
    """Comparisons, and entries moved: a sector of eight for each step of a search that leaves the cache."""
    steps = float(n2.bit_length())
    return K * n1 * steps, 8.0 * K * n1 * steps


CHECK = Check(
    "coincidence",
    of(coinc_count),
    of(reference.coinc_count),
    operands,
    small=[{"n1": 150, "n2": 33, "K": 3}, {"n1": 1, "n2": 1, "K": 1}, {"n1": 5, "n2": 64, "K": 2}],
    timed=[{"n1": 10_000, "n2": 10_000, "K": 100}],
    cost=cost,
    gradients=False,
    modes=("fp32",),
    compiled=False,  # sizes that depend on the triggers
)
