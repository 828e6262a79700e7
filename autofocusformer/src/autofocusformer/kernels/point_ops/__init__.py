"""The three operators of the authors' own CUDA code, unfused: what the fused kernels are measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import op, reference

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float, Int

__all__ = ["av", "qk", "wf"]


def by_kernel(*operands: Tensor) -> bool:
    """The kernels add up gradients by atomics, in any order: deterministic mode takes the definitions."""
    whole = all(x.numel() for x in operands)
    return whole and use_triton(operands[0]) and not torch.are_deterministic_algorithms_enabled()


def qk(q: Float[Tensor, "b H n e"], k: Float[Tensor, "b H N e"], idx: Int[Tensor, "b n M"]) -> Float[Tensor, "b H n M"]:
    """`out_ij = q_i . k_idx(i,j)`. FLOPs: 2 b H n M e."""
    return op.gather_dot(q, k, idx) if by_kernel(q, k) else reference.qk(q, k, idx)


def av(a: Float[Tensor, "b H n M"], v: Float[Tensor, "b H N e"], idx: Int[Tensor, "b n M"]) -> Float[Tensor, "b H n e"]:
    """`out_i = sum_j a_ij v_idx(i,j)`. FLOPs: 2 b H n M e."""
    return op.gather_sum(a, v, idx) if by_kernel(a, v) else reference.av(a, v, idx)


def wf(w: Float[Tensor, "b n M 4"], x: Float[Tensor, "b N c"], idx: Int[Tensor, "b n M"]) -> Float[Tensor, "b n 4 c"]:
    """`out_ir = sum_j w_ijr x_idx(i,j)`. FLOPs: 8 b n M c."""
    if by_kernel(w, x):
        return op.gather_sum(w.permute(0, 3, 1, 2), x[:, None], idx).transpose(1, 2)
    return reference.wf(w, x, idx)
