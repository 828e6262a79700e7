"""The registered operator of the gap of gradient norms, and of its gradient.

Kept apart from `triton.py` so that a machine without Triton has it too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import reference


def accumulator(g: Tensor) -> torch.dtype:
    """What squares of such numbers are summed in, and the norms' type."""
    return torch.float64 if g.dtype is torch.float64 else torch.float32


def gap(g: Tensor, state: Tensor | None, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    penalty, n, s = grad_gap(g, None if state is None else state.detach(), smoothing)
    return penalty, n, s.detach()


@torch.library.custom_op("diggan::grad_gap", mutates_args=())
def grad_gap(g: Tensor, state: Tensor | None, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """`(R, n, s)`; s is a constant."""
    from . import triton

    return triton.launch_grad_gap(g, state, smoothing)


@grad_gap.register_fake
def _(g: Tensor, state: Tensor | None, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    dtype = accumulator(g)
    return g.new_empty((), dtype=dtype), g.new_empty(len(g), dtype=dtype), g.new_empty(len(g), dtype=dtype)


@torch.library.custom_op("diggan::grad_gap_backward", mutates_args=())
def grad_gap_backward(
    g: Tensor, n: Tensor, s: Tensor, by_penalty: Tensor | None, by_norms: Tensor | None, kept: float
) -> Tensor:
    """`c_i g_i / n_i` with `c_i = by_norms_i + by_penalty 2 kept (s_i - s_j) / B`, i and j a pair; 0 where n_i = 0.

    n and s are functions of g, `ds/dn = kept`.
    """
    from . import triton

    return triton.launch_backward(g, n, s, by_penalty, by_norms, kept)


@grad_gap_backward.register_fake
def _(g: Tensor, *args: Any) -> Tensor:
    return g.new_empty(g.shape)


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    g, state, smoothing = inputs
    ctx.kept = 1.0 if state is None else 1 - smoothing
    ctx.save_for_backward(g, *output[1:])
    ctx.set_materialize_grads(False)


def backward(
    ctx: Any, by_penalty: Tensor | None, by_norms: Tensor | None, by_state: Tensor | None
) -> tuple[Tensor | None, ...]:
    g, n, s = ctx.saved_tensors
    if by_penalty is None and by_norms is None:
        return None, None, None
    return grad_gap_backward(g, n.detach(), s.detach(), by_penalty, by_norms, ctx.kept), None, None


grad_gap.register_autograd(backward, setup_context=save)


def save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.kept = inputs
    ctx.save_for_backward(*tensors)


def pairs(x: Tensor) -> Tensor:
    """`x_i - x_j`, i and j a pair."""
    return x - x.roll(len(x) // 2)


def double_backward(ctx: Any, seed: Tensor) -> tuple[Tensor | None, ...]:
    """Second derivatives in plain PyTorch, differentiable in turn.

    With h the seed, q_i = g_i / n_i and p_i = <h_i, q_i>, the sum is S = sum_i c_i p_i: p by the norms' gradient, and
    `c_i (h_i - p_i q_i) / n_i + by_penalty 2 kept^2 (p_i - p_j) / B q_i` by g.
    """
    g, n, s, by_penalty, by_norms = ctx.saved_tensors
    half, wide = len(g) // 2, n.dtype
    rows, h = g.flatten(1).to(wide), seed.flatten(1).to(wide)
    again = reference.norms(rows)  # n as a function of g
    inverse = torch.where(again > 0, 1 / torch.where(again > 0, again, 1), 0)
    smoothed = ctx.kept * again + (s - ctx.kept * n)
    unit = rows * inverse[:, None]
    along = (h * unit).sum(1)
    slope, total = 2 * ctx.kept / half * pairs(smoothed), torch.zeros_like(rows)
    coefficient = torch.zeros_like(n)
    if by_norms is not None:
        coefficient = coefficient + by_norms
    if by_penalty is not None:
        coefficient = coefficient + by_penalty * slope
        total = (by_penalty * 2 * ctx.kept**2 / half * pairs(along))[:, None] * unit
    total = total + (coefficient * inverse)[:, None] * (h - along[:, None] * unit)
    of_penalty = None if by_penalty is None else (along * slope).sum()
    return total.to(g.dtype).view_as(g), None, None, of_penalty, None if by_norms is None else along, None


grad_gap_backward.register_autograd(double_backward, setup_context=save_backward)
