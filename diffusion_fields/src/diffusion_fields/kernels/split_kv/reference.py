"""Attention of few queries to many keys in plain PyTorch: the definition (section 8.3)."""

from __future__ import annotations

from torch import Tensor


def split_kv_cross_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`softmax(q k' / sqrt(h)) v`."""
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
