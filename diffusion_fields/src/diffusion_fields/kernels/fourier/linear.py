"""The registered operators: forward and backward. Kept apart from `triton.py`: a machine without Triton has them too.

What the backward pass keeps is x itself: features are evaluated again.
"""

from __future__ import annotations

from typing import Any

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference


@torch.library.custom_op("diffusion_fields::fourier_linear", mutates_args=())
def linear(x: Tensor, W: Tensor, b: Tensor, freq_scale: float) -> Tensor:
    """`[rows, P]` in the dtype of W, for x [rows, c] in the dtype of the angles."""
    if use_triton(W):
        from . import triton

        return triton.launch_linear(x, W, b, freq_scale)
    return reference.by_chunks(x, W, b, freq_scale)


@linear.register_fake
def _(x: Tensor, W: Tensor, b: Tensor, freq_scale: float) -> Tensor:
    return W.new_empty(x.shape[0], W.shape[0])


@torch.library.custom_op("diffusion_fields::fourier_linear_backward", mutates_args=())
def linear_backward(x: Tensor, W: Tensor, dy: Tensor, freq_scale: float, need_x: bool) -> tuple[Tensor, Tensor, Tensor]:
    """`(dx, dW, db)`, the last two in float32 or wider; dx has no rows where it is not needed."""
    if use_triton(W):
        from . import triton

        return triton.launch_backward(x, W, dy, freq_scale, need_x)
    return reference.gradients_by_chunks(x, W, dy, freq_scale, need_x)


@linear_backward.register_fake
def _(x: Tensor, W: Tensor, dy: Tensor, freq_scale: float, need_x: bool) -> tuple[Tensor, Tensor, Tensor]:
    wide = torch.promote_types(W.dtype, torch.float32)
    dx = x.new_empty(x.shape[0] if need_x else 0, x.shape[1])
    return dx, W.new_empty(W.shape, dtype=wide), W.new_empty(W.shape[0], dtype=wide)


def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, W, b, ctx.freq_scale = inputs
    ctx.b_dtype = b.dtype
    ctx.save_for_backward(x, W)


def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, W = ctx.saved_tensors
    dx, dW, db = linear_backward(x, W, dy, ctx.freq_scale, ctx.needs_input_grad[0])
    return dx if ctx.needs_input_grad[0] else None, dW.to(W.dtype), db.to(ctx.b_dtype), None


linear.register_autograd(backward, setup_context=save)
