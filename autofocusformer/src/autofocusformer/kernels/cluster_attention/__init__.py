"""Attention of each token to the members of its nearest clusters, and to a blank token (sections 3.2 and 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from . import op
from .reference import members
from .tiles import unions

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float, Int

__all__ = ["cluster_attention", "members", "unions"]


def cluster_attention(
    q: Float[Tensor, "b H n e"], k: Float[Tensor, "b H n e"], v: Float[Tensor, "b H n e"],
    positions: Int[Tensor, "b n 2"], near: Int[Tensor, "b n nnc"] | None, pos_weight: Float[Tensor, "H 5"],
    pos_bias: Float[Tensor, " H"], blank_k: Float[Tensor, "H e"], blank_v: Float[Tensor, "H e"], size: int,
) -> Float[Tensor, "b H n e"]:  # fmt: skip
    """`out_i = sum_j a_ij v_j + a_i,blank blank_v`, a the softmax of `q_i.k_j + pos_weight phi_ij + pos_bias`.

    phi_ij are the five features of `p_j - p_i` (`kernels.offsets`); the blank's logit is `q_i.blank_k` alone. j runs
    over the members of the clusters that `near` lists for token i, each at most once; cluster c is the tokens
    [c size, (c + 1) size). A blank slot of the last cluster takes no part (the authors give it the logit -100 instead:
    e^-100 of the weight). `near` None: j runs over all tokens. q is scaled already. Differentiable once, in all but
    positions and lists; logits and sums are in float32 at least.

    FLOPs: 4 b H n M e forwards for M = nnc size neighbours, 10 backwards. Bytes: q, k, v and the result once,
    `4 b H n e` entries, and the lists; no tensor of b H n M entries is ever written. Floor on one H100 (3.35 TB/s) at
    batch 64, n 3136, H 2, e 32 in float32: 61 us forwards; backwards, eight such tensors, 123 us. On the CPU dense
    products over tiles of 16 tokens in place of gathers.

    Raises:
        ValueError: shapes that do not belong together.
    """
    batch, heads, n, width = q.shape
    wanted = {
        "k": (k, q.shape), "v": (v, q.shape), "positions": (positions, (batch, n, 2)),
        "pos_weight": (pos_weight, (heads, 5)), "pos_bias": (pos_bias, (heads,)),
        "blank_k": (blank_k, (heads, width)), "blank_v": (blank_v, (heads, width)),
    }  # fmt: skip
    for name, (x, shape) in wanted.items():
        if x.shape != shape:
            raise ValueError(f"{name} has shape {tuple(x.shape)}, q asks for {tuple(shape)}")
    if near is not None and (near.ndim != 3 or near.shape[:2] != (batch, n) or near.shape[2] < 1):
        raise ValueError(f"near has shape {tuple(near.shape)}, q asks for {(batch, n)} lists")
    if not q.numel():
        return q * 1
    return op.attention(q, k, v, positions, near, pos_weight, pos_bias, blank_k, blank_v, size)[0]
