"""The registered operator of the attention, and of its gradient: Triton's kernels, or blocks on the CPU.

Kept apart from `triton.py` so that a machine without Triton has it too.
"""

from __future__ import annotations

from typing import Any

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import blocked

NAMES = ("q", "k", "v", "positions", "near", "pos_weight", "pos_bias", "blank_k", "blank_v")


@torch.library.custom_op("autofocusformer::cluster_attention", mutates_args=())
def attention(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor, near: Tensor | None, pos_weight: Tensor, pos_bias: Tensor,
    blank_k: Tensor, blank_v: Tensor, size: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`(out, l)`: l is the logarithm of the sum of the exponentials of a token's logits, where kernels keep it."""
    given = (q, k, v, positions, near, pos_weight, pos_bias, blank_k, blank_v, size)
    if use_triton(q):
        from . import triton

        return triton.launch_forward(*given)
    with torch.autocast(q.device.type, enabled=False):  # the types are the operator's own business
        return blocked.forward(*given), kept(q)


def kept(q: Tensor) -> Tensor:
    """Memory of the logarithms: [B, H, n] for the kernels, nothing for the CPU."""
    return q.new_empty(q.shape[:3] if use_triton(q) else 0, dtype=blocked.computing(q))


@attention.register_fake
def _(q: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), kept(q)


@torch.library.custom_op("autofocusformer::cluster_attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor, out: Tensor, logarithm: Tensor, q: Tensor, k: Tensor, v: Tensor, positions: Tensor,
    near: Tensor | None, pos_weight: Tensor, pos_bias: Tensor, blank_k: Tensor, blank_v: Tensor, size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients by q, k, v, pos_weight, pos_bias, blank_k, blank_v."""
    given = (q, k, v, positions, near, pos_weight, pos_bias, blank_k, blank_v, size)
    if use_triton(q):
        from . import triton

        return triton.launch_backward(grad, out, logarithm, *given)
    with torch.autocast(q.device.type, enabled=False):  # the types are the operator's own business
        return blocked.backward(grad, *given)


@attention_backward.register_fake
def _(
    grad: Tensor, out: Tensor, logarithm: Tensor, q: Tensor, k: Tensor, v: Tensor, positions: Tensor,
    near: Tensor | None, *small: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(x.new_empty(x.shape) for x in (q, k, v, *small[:4]))


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.size = inputs
    ctx.save_for_backward(*output, *tensors)
    ctx.set_materialize_grads(False)


def backward(ctx: Any, grad: Tensor | None, by_logarithm: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 10
    dq, dk, dv, *small = attention_backward(grad, *ctx.saved_tensors, ctx.size)
    return dq, dk, dv, None, None, *small, None


attention.register_autograd(backward, setup_context=save)
