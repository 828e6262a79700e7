"""The registered operator of relation attention, and of its gradient.

Kept apart from `triton.py` so that a machine without Triton has it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("spatial_textvqa::relation_attention", mutates_args=())
def attention(
    q: Tensor, k: Tensor, v: Tensor, relations: Tensor, key_valid: Tensor, layout: Sequence[int], bits: Sequence[int],
    beta: Tensor | None, quadrants: int, dropout: float, seed: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`(out, lse)`; bit 3 r + c of `quadrants` masks block (r, c)."""
    from . import triton

    T, N, S = layout
    return triton.launch_forward(
        q, k, v, relations, key_valid, (T, N, S), tuple(bits), beta, quadrants, dropout, seed
    )  # fmt: skip


@attention.register_fake
def _(q: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    b, h, l, d = q.shape
    return q.new_empty(b, l, h, d).transpose(1, 2), q.new_empty(b, h, l, dtype=torch.float32)


@torch.library.custom_op("spatial_textvqa::relation_attention_backward", mutates_args=())
def attention_backward(
    up: Tensor, q: Tensor, k: Tensor, v: Tensor, relations: Tensor, key_valid: Tensor, layout: Sequence[int],
    bits: Sequence[int], beta: Tensor | None, quadrants: int, dropout: float, seed: int, out: Tensor, lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv and dbeta (empty without a table)."""
    from . import triton

    T, N, S = layout
    return triton.launch_backward(
        up, q, k, v, relations, key_valid, (T, N, S), tuple(bits), beta, quadrants, dropout, seed, out, lse
    )  # fmt: skip


@attention_backward.register_fake
def _(
    up: Tensor, q: Tensor, k: Tensor, v: Tensor, relations: Tensor, key_valid: Tensor, layout: Sequence[int],
    bits: Sequence[int], beta: Tensor | None, *args: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    b, h, l, d = q.shape
    dq, dk, dv = (q.new_empty(b, l, h, d).transpose(1, 2) for _ in range(3))
    return dq, dk, dv, q.new_empty((h, 13) if beta is not None else (0,), dtype=torch.float32)


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, relations, key_valid, ctx.layout, ctx.bits, beta, ctx.quadrants, ctx.dropout, ctx.seed = inputs
    ctx.has_beta = beta is not None
    ctx.save_for_backward(q, k, v, relations, key_valid, *([beta] if ctx.has_beta else []), *output)


def backward(ctx: Any, up: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, relations, key_valid, *rest = ctx.saved_tensors
    beta, (out, lse) = (rest[0], rest[1:]) if ctx.has_beta else (None, rest)
    dq, dk, dv, table = attention_backward(
        up, q, k, v, relations, key_valid, ctx.layout, ctx.bits, beta, ctx.quadrants, ctx.dropout, ctx.seed, out, lse
    )
    dbeta = None if beta is None else table.to(beta.dtype)
    return dq, dk, dv, None, None, None, None, dbeta, None, None, None


attention.register_autograd(backward, setup_context=save)
