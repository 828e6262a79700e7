"""K4 in Triton: first layer of R pairs per image, and its gradients from N rows of images rather than R N."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..ff_wgrad.triton import NUMBERS, POINTERS, launch_wgrad, wgrad_kernel
from ..pairs import SHARED_AOT, launch_label_sums, launch_pairs, launch_pairs_backward, q_dtype
from ..tiles import variants


@torch.library.custom_op("forward_forward::ff_shared_first_fwd", mutates_args=())
def forward_op(
    base: Tensor, s: Tensor, w_label: Tensor, b: Tensor, strength: float, labels: Tensor
) -> tuple[Tensor, Tensor]:
    return launch_pairs(base, s, w_label, b, strength, labels, labels.shape[0])


@forward_op.register_fake
def _(base: Tensor, s: Tensor, w_label: Tensor, b: Tensor, strength: float, labels: Tensor) -> tuple[Tensor, Tensor]:
    rows = labels.shape[0] * base.shape[0]
    return base.new_empty(rows, base.shape[1]), base.new_empty(rows, dtype=q_dtype(base))


@torch.library.custom_op("forward_forward::ff_shared_first_bwd", mutates_args=())
def backward_op(
    base: Tensor, s: Tensor, w_label: Tensor, strength: float, labels: Tensor, h: Tensor, dh: Tensor, dq: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return launch_pairs_backward(base, s, w_label, strength, labels, (1, base.shape[0]), h, dh, dq)


@backward_op.register_fake
def _(
    base: Tensor, s: Tensor, w_label: Tensor, strength: float, labels: Tensor, h: Tensor, dh: Tensor, dq: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out = (base.new_empty(base.shape), s.new_empty(s.shape), w_label.new_empty(w_label.shape))
    return *out, w_label.new_empty(base.shape[1])


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    base, s, w_label, b, ctx.strength, labels = inputs
    ctx.bias_dtype = b.dtype
    ctx.save_for_backward(base, s, w_label, labels, output[0])


def backward(ctx: Any, dh: Tensor, dq: Tensor) -> tuple[Tensor | None, ...]:
    base, s, w_label, labels, h = ctx.saved_tensors
    dbase, ds, dw, db = backward_op(base, s, w_label, ctx.strength, labels, h, dh, dq)
    return dbase, ds, dw, db.to(ctx.bias_dtype), None, None


forward_op.register_autograd(backward, setup_context=save)
ff_shared_first_fwd = forward_op


@torch.library.custom_op("forward_forward::ff_shared_first_wgrad", mutates_args=())
def wgrad_op(
    x_img: Tensor, s: Tensor, h: Tensor, cr: Tensor, labels: Tensor, strength: float, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    sets, n = labels.shape
    dw, _ = launch_wgrad(x_img, h, s, cr, sets=sets)
    dw_label, db = launch_label_sums(h, cr, s, labels, strength, classes, (1, n))
    return dw, dw_label.to(h.dtype), db.to(h.dtype)


@wgrad_op.register_fake
def _(
    x_img: Tensor, s: Tensor, h: Tensor, cr: Tensor, labels: Tensor, strength: float, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    m = h.shape[1]
    return h.new_empty(x_img.shape[1], m), h.new_empty(classes, m), h.new_empty(m)


def save_wgrad(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.strength, _ = inputs
    ctx.save_for_backward(*tensors)


def backward_wgrad(ctx: Any, dd_img: Tensor, dd_label: Tensor, ddb: Tensor) -> tuple[Tensor | None, ...]:
    """Second derivatives, which no training here takes: plain PyTorch."""
    x_img, s, h, cr, labels = ctx.saved_tensors
    (sets, n), m = labels.shape, h.shape[1]
    x, act, dd_img, dd_label = x_img.float(), h.float(), dd_img.float(), dd_label.float()
    rows = cr.view(sets, n, 1) * act.view(sets, n, m)  # d_rn
    slope = x @ dd_img + ctx.strength * dd_label[labels]  # d(outputs) / d(s d)
    d = s[:, None] * slope + ddb
    dh = (cr.view(sets, n, 1) * d).flatten(0, 1)
    dcr = (act * d.flatten(0, 1)).sum(1)
    dx = s[:, None] * (rows.sum(0) @ dd_img.T)
    ds = (rows * slope).sum((0, 2))
    return dx.to(x_img.dtype), ds.to(s.dtype), dh.to(h.dtype), dcr.to(cr.dtype), None, None, None


wgrad_op.register_autograd(backward_wgrad, setup_context=save_wgrad)
ff_shared_first_wgrad = wgrad_op

AOT = [
    *SHARED_AOT,
    *variants(wgrad_kernel, POINTERS, NUMBERS, ("hp_k", "h_m", "dh_m"), "BLOCK_N", {"GATED": False, "SHARED": True}),
]
