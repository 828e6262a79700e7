"""The registered operator of K3: value and both gradients in one pass, differentiable any number of times.

Kept apart from `triton.py` so that a machine without Triton has it too.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference
from .reference import Kind


@torch.library.custom_op("rpgan_landscape::allpairs_sums", mutates_args=())
def allpairs_sums(a: Tensor, b: Tensor, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """`(L, dL/da, dL/db)` of `L = 1/(NM) sum_ij h(a_i - b_j)`; logistic or hinge, float32 or float64, N, M > 0."""
    if kind == "logistic" and use_triton(a):
        from . import triton

        return triton.launch_allpairs(a, b, kind)
    return reference.allpairs_sums(a, b, cast(Kind, kind))


@allpairs_sums.register_fake
def _(a: Tensor, b: Tensor, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(()), a.new_empty(a.shape), b.new_empty(b.shape)


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    a, b, ctx.kind = inputs
    ctx.save_for_backward(a, b, *output[1:])
    ctx.set_materialize_grads(False)


def backward(ctx: Any, grad: Tensor | None, u: Tensor | None, v: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients are outputs already; their own derivatives (u, v: for a double backward) are plain PyTorch."""
    a, b, da, db = ctx.saved_tensors
    grad_a = grad_b = None
    if grad is not None:
        grad_a, grad_b = grad * da, grad * db
    if u is not None or v is not None:
        u = torch.zeros_like(a) if u is None else u
        v = torch.zeros_like(b) if v is None else v
        more_a, more_b = reference.second_order(a, b, ctx.kind, u, v)
        grad_a = more_a if grad_a is None else grad_a + more_a
        grad_b = more_b if grad_b is None else grad_b + more_b
    return grad_a, grad_b, None


allpairs_sums.register_autograd(backward, setup_context=save)
