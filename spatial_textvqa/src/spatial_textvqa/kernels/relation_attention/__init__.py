"""Attention along a spatial graph (sections 4.3 and 8.A)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from shared.errors import UserError
from shared.kernels.backend import autocast, use_triton
from torch import Tensor

from . import operator, reference
from .reference import Layout
from .subsets import HEADS, RELATIONS, subset_bits

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Bool, Float, UInt8

__all__ = ["HEADS", "RELATIONS", "Layout", "reference", "relation_attention", "subset_bits", "use_triton"]


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
    """Attention of every position, where entity i of head h sees entity j if `R[i, j]` is in the head's subset.

    Args:
        q, k, v: of the positions question | entities | decoder; rows of any strides.
        R: the graph, one byte for each pair.
        key_valid: positions that are no padding; the decoder's are to be valid.
        layout: numbers of positions, `(T, N, S)`.
        c: the context, or for each head the set of its relations as bits.
        beta: a term of the scores for each head and relation, of pairs of entities.
        masked_quadrants: blocks query x key that nobody sees, 1..9.
        dropout: share of the probabilities that is dropped; drawn from PyTorch's generator.

    One launch forward, two and a sum backward; no tensor of L x L is made. FLOPs (B = 96, H = 12, L = 182, d = 64):
    9.8 G forward, 24 G backward; bytes in bf16: 107 MB of q, k, v and the output and 2 MB of the graph, 215 MB
    backward. Floor on one H100 (3.35 TB/s): 33 us and 64 us. A dense mask is 76 MB more in bf16.

    Raises:
        ValueError: shapes that don't belong together.
        UserError: a context that is not 1, 3, 5, 7 or 9; quadrants that are not 1..9.
    """
    bits, layout = subset_bits(c) if isinstance(c, int) else tuple(c), Layout(*layout)
    check_shapes(q, k, v, R, key_valid, layout, bits, beta, masked_quadrants)
    q, k, v = autocast(q, k, v)
    if q.numel() and use_triton(q):
        quadrants = sum(1 << (number - 1) for number in set(masked_quadrants))
        seed = int(torch.randint(2**31 - 1, ())) if dropout else 0
        return operator.attention(q, k, v, R, key_valid, list(layout), list(bits), beta, quadrants, dropout, seed)[0]
    return reference.relation_attention(q, k, v, R, key_valid, layout, bits, beta, masked_quadrants, dropout)


def check_shapes(
    q: Tensor, k: Tensor, v: Tensor, R: Tensor, key_valid: Tensor, layout: Layout, bits: Sequence[int],
    beta: Tensor | None, masked_quadrants: Sequence[int],
) -> None:  # fmt: skip
    """Raises what `relation_attention` says; a kernel with wrong shapes would read beyond its memory."""
    if set(masked_quadrants) - set(range(1, 10)):
        raise UserError(f"masked_quadrants is {list(masked_quadrants)}: numbers from 1 to 9")
    batch, heads, length = q.shape[:3]
    expected = {
        "k": (k, q.shape), "v": (v, q.shape), "R": (R, (batch, layout.entities, layout.entities)),
        "key_valid": (key_valid, (batch, length)),
    }  # fmt: skip
    if beta is not None:
        expected["beta"] = (beta, (heads, RELATIONS))
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(shape)}")
    if layout.length != length or len(bits) != heads:
        raise ValueError(f"layout {tuple(layout)} and {len(bits)} subsets for {length} positions and {heads} heads")
    if R.dtype is not torch.uint8 or key_valid.dtype is not torch.bool:
        raise ValueError(f"R is {R.dtype} and key_valid {key_valid.dtype}, expected torch.uint8 and torch.bool")
