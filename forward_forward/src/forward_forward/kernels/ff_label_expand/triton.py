"""K3 in Triton: the image part is read once and all C rows are written from registers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..pairs import EXPAND_AOT, launch_pairs, launch_pairs_backward, q_dtype


@torch.library.custom_op("forward_forward::ff_label_expand", mutates_args=())
def expand_op(base: Tensor, s: Tensor, w_label: Tensor, b: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    return launch_pairs(base, s, w_label, b, strength, None, w_label.shape[0])


@expand_op.register_fake
def _(base: Tensor, s: Tensor, w_label: Tensor, b: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    rows = base.shape[0] * w_label.shape[0]
    return base.new_empty(rows, base.shape[1]), base.new_empty(rows, dtype=q_dtype(base))


@torch.library.custom_op("forward_forward::ff_label_expand_bwd", mutates_args=())
def expand_backward_op(
    base: Tensor, s: Tensor, w_label: Tensor, strength: float, h: Tensor, dh: Tensor, dq: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    classes = w_label.shape[0]
    labels = torch.arange(classes, device=base.device)[:, None].expand(classes, base.shape[0])
    return launch_pairs_backward(base, s, w_label, strength, labels, (classes, 1), h, dh, dq)


@expand_backward_op.register_fake
def _(
    base: Tensor, s: Tensor, w_label: Tensor, strength: float, h: Tensor, dh: Tensor, dq: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out = (base.new_empty(base.shape), s.new_empty(s.shape), w_label.new_empty(w_label.shape))
    return *out, w_label.new_empty(base.shape[1])


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    base, s, w_label, b, ctx.strength = inputs
    ctx.bias_dtype = b.dtype
    ctx.save_for_backward(base, s, w_label, output[0])


def backward(ctx: Any, dh: Tensor, dq: Tensor) -> tuple[Tensor | None, ...]:
    base, s, w_label, h = ctx.saved_tensors
    dbase, ds, dw, db = expand_backward_op(base, s, w_label, ctx.strength, h, dh, dq)
    return dbase, ds, dw, db.to(ctx.bias_dtype), None


expand_op.register_autograd(backward, setup_context=save)
ff_label_expand = expand_op
AOT = EXPAND_AOT
