"""The registered operators behind qk, av and wf: two gathers and a scatter, one another's gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("autofocusformer::gather_dot", mutates_args=())
def gather_dot(y: Tensor, x: Tensor, idx: Tensor) -> Tensor:
    """`out_ij = y_i . x_idx(i,j)`: [b, R, n, M] of y [b, R, n, e] and x [b, R or 1, N, e]."""
    from . import triton

    return triton.launch_gather_dot(y, x, idx)


@gather_dot.register_fake
def _(y: Tensor, x: Tensor, idx: Tensor) -> Tensor:
    return y.new_empty(*y.shape[:3], idx.shape[2])


@torch.library.custom_op("autofocusformer::gather_sum", mutates_args=())
def gather_sum(a: Tensor, x: Tensor, idx: Tensor) -> Tensor:
    """`out_i = sum_j a_ij x_idx(i,j)`: [b, R, n, e] of a [b, R, n, M] and x [b, R or 1, N, e]."""
    from . import triton

    return triton.launch_gather_sum(a, x, idx)


@gather_sum.register_fake
def _(a: Tensor, x: Tensor, idx: Tensor) -> Tensor:
    return x.new_empty(*a.shape[:3], x.shape[3])


@torch.library.custom_op("autofocusformer::scatter_sum", mutates_args=())
def scatter_sum(a: Tensor, y: Tensor, idx: Tensor, heads: int, rows: int) -> Tensor:
    """`out_l = sum_{(i,j): idx=l} a_ij y_i`: [b, heads, rows, e], over R too where heads is 1; by atomics."""
    from . import triton

    return triton.launch_scatter_sum(a, y, idx, heads, rows)


@scatter_sum.register_fake
def _(a: Tensor, y: Tensor, idx: Tensor, heads: int, rows: int) -> Tensor:
    return y.new_empty(len(y), heads, rows, y.shape[3])


def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def dot_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    y, x, idx = ctx.saved_tensors
    return gather_sum(grad, x, idx), scatter_sum(grad, y, idx, x.shape[1], x.shape[2]).to(x.dtype), None


def sum_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    a, x, idx = ctx.saved_tensors
    return gather_dot(grad, x, idx).to(a.dtype), scatter_sum(a, grad, idx, x.shape[1], x.shape[2]).to(x.dtype), None


gather_dot.register_autograd(dot_backward, setup_context=save)
gather_sum.register_autograd(sum_backward, setup_context=save)
