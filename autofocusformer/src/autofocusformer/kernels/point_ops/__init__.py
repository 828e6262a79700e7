"""The three operators of the authors' own CUDA code, unfused: what the fused kernels are measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from . import reference

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float, Int

__all__ = ["av", "qk", "wf"]


def qk(q: Float[Tensor, "b H n e"], k: Float[Tensor, "b H N e"], idx: Int[Tensor, "b n M"]) -> Float[Tensor, "b H n M"]:
    """`out_ij = q_i . k_idx(i,j)`. FLOPs: 2 b H n M e."""
    return reference.qk(q, k, idx)


def av(a: Float[Tensor, "b H n M"], v: Float[Tensor, "b H N e"], idx: Int[Tensor, "b n M"]) -> Float[Tensor, "b H n e"]:
    """`out_i = sum_j a_ij v_idx(i,j)`. FLOPs: 2 b H n M e."""
    return reference.av(a, v, idx)


def wf(w: Float[Tensor, "b n M 4"], x: Float[Tensor, "b N c"], idx: Int[Tensor, "b n M"]) -> Float[Tensor, "b n 4 c"]:
    """`out_ir = sum_j w_ijr x_idx(i,j)`. FLOPs: 8 b n M c."""
    return reference.wf(w, x, idx)
