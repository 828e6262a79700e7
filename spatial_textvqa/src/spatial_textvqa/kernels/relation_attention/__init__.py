"""Attention along a spatial graph (sections 4.3 and 8.A)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from . import reference
from .reference import Layout
from .subsets import HEADS, RELATIONS, subset_bits

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Bool, Float, UInt8

__all__ = ["HEADS", "RELATIONS", "Layout", "reference", "relation_attention", "subset_bits", "use_triton"]


def use_triton(q: Tensor) -> bool:
    """Whether the kernel serves such queries; otherwise masks are made once for a batch, for all layers."""
    return False


def relation_attention(
    q: Float[Tensor, "b h l d"],
    k: Float[Tensor, "b h l d"],
    v: Float[Tensor, "b h l d"],
    R: UInt8[Tensor, "b n n"],
    key_valid: Bool[Tensor, "b l"],
    layout: Layout | tuple[int, int, int],
    c: int | Sequence[int],
    beta: Float[Tensor, "h 13"] | None = None,
    masked_quadrants: Sequence[int] = (1, 2),
    dropout: float = 0.0,
) -> Float[Tensor, "b h l d"]:
    """Attention of every position, where entity i of head h sees entity j if `R[i, j]` is in the head's subset."""
    bits = subset_bits(c) if isinstance(c, int) else tuple(c)
    return reference.relation_attention(q, k, v, R, key_valid, Layout(*layout), bits, beta, masked_quadrants)
