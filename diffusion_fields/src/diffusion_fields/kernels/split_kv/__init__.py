"""Attention of few latents to many context tokens, split over the tokens (section 8.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .. import inputs

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

__all__ = ["split_kv_cross_attention"]


def split_kv_cross_attention(
    q: Float[Tensor, "B H L h"], k: Float[Tensor, "B H N h"], v: Float[Tensor, "B H N h"]
) -> Float[Tensor, "B H L h"]:
    """`softmax(q k' / sqrt(h)) v`."""
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]):
        raise ValueError(
            f"split_kv_cross_attention: q has shape {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)}: "
            "[B, H, L, h] and twice [B, H, N, h] are needed"
        )
    if not k.shape[2] * k.shape[3]:
        raise ValueError(f"split_kv_cross_attention: k has shape {tuple(k.shape)}: there is no key to attend to")
    inputs.check("split_kv_cross_attention", q=q, k=k, v=v)
    inputs.same_dtype("split_kv_cross_attention", q=q, k=k, v=v)
    return scaled_dot_product_attention(q, k, v)
