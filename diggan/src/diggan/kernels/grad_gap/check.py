"""What is checked of the gap of norms in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from .. import costs
from . import grad_gap, reference

STEPS = 16  # states as whole numbers of these: operands that carry no gradient


def operands(generator: torch.Generator, B: int, D: int) -> tuple[Tensor, Tensor]:
    """Gradients of 2B samples, some of them zero, and a state."""
    g = torch.randn(2 * B, D, generator=generator, dtype=torch.float64)
    g[3::7] = 0
    return g, torch.randint(0, 4 * STEPS, (2 * B,), generator=generator)


def of(function: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor]]:
    def call(g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        penalty, n, _ = function(g, state.to(torch.promote_types(g.dtype, torch.float32)) / STEPS, 0.5)
        return penalty, n

    return call


def cost(B: int, D: int) -> tuple[float, float]:
    """FLOPs and entries moved: g is read once."""
    return 4.0 * B * D, 2.0 * B * D


def plan(backward: bool = False, *, B: int, D: int) -> dict[str, float]:
    """Launches and bytes of a float32 call, with `backward` of the penalty's gradient too, and the definition's."""
    g, state = torch.empty(2 * B, D, device="meta", requires_grad=backward), torch.empty(2 * B, device="meta")
    eager = costs.eager(lambda: reference.grad_gap(g, state, 0.5)[:1], [g] if backward else [])
    forward = 8.0 * B * D + 4 * (4 * 2 * B + 1)
    total = forward + 16.0 * B * D + 4 * (2 * 2 * B + 1) if backward else forward
    return {"launches": 3.0 if backward else 2.0, "bytes": total, **eager}


CHECK = Check(
    "grad_gap",
    of(grad_gap),
    of(reference.grad_gap),
    operands,
    small=[{"B": 3, "D": 37}, {"B": 1, "D": 1}, {"B": 2, "D": 4099}],
    timed=[{"B": 50, "D": 3072}, {"B": 32, "D": 49152}],
    cost=cost,
    modes=("fp32", "bf16", "fp16"),
)
