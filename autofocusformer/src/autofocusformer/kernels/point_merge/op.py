"""The registered operator of the merging, and of its gradient: Triton's kernels, or blocks on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import blocked
from .reference import INNER


@torch.library.custom_op("autofocusformer::point_merge", mutates_args=())
def merge(
    x: Tensor, prob: Tensor, positions: Tensor, kept: Tensor, idx: Tensor, valid: Tensor, weight: Tensor, bias: Tensor,
    norm_weight: Tensor, norm_bias: Tensor,
) -> Tensor:  # fmt: skip
    """[B, n', 4, c]."""
    given = (x, prob, positions, kept, idx, valid, weight, bias, norm_weight, norm_bias)
    if use_triton(x):
        from . import triton

        return triton.launch_forward(*given)
    with torch.autocast(x.device.type, enabled=False):  # the types are the operator's own business
        return blocked.forward(*given)


@merge.register_fake
def _(x: Tensor, prob: Tensor, positions: Tensor, kept: Tensor, *args: Any) -> Tensor:
    return x.new_empty(len(x), kept.shape[1], INNER, x.shape[2])


@torch.library.custom_op("autofocusformer::point_merge_backward", mutates_args=())
def merge_backward(
    grad: Tensor, x: Tensor, prob: Tensor, positions: Tensor, kept: Tensor, idx: Tensor, valid: Tensor, weight: Tensor,
    bias: Tensor, norm_weight: Tensor, norm_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients by x, prob, weight, bias, norm_weight, norm_bias."""
    given = (grad, x, prob, positions, kept, idx, valid, weight, bias, norm_weight, norm_bias)
    if use_triton(x) and not torch.are_deterministic_algorithms_enabled():
        from . import triton

        return triton.launch_backward(*given)
    with torch.autocast(x.device.type, enabled=False):  # the types are the operator's own business
        return blocked.backward(*given)


@merge_backward.register_fake
def _(
    grad: Tensor, x: Tensor, prob: Tensor, positions: Tensor, kept: Tensor, idx: Tensor, valid: Tensor, *small: Any
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (x, prob, *small))


def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    by_x, by_prob, *small = merge_backward(grad, *ctx.saved_tensors)
    return by_x, by_prob, None, None, None, None, *small


merge.register_autograd(backward, setup_context=save)
