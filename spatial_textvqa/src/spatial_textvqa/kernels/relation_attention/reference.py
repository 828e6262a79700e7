"""Attention along a spatial graph in plain PyTorch: the definition (section 4.3; section 3.2 of the paper).

    out_i = sum_j softmax_j(q_i . k_j / sqrt(d) + beta[h, R[i, j]]) v_j    over the keys j that query i of head h sees

Positions are [question | objects and OCR tokens | decoder], T + N + S of them. What a query sees is the product of
the base mask (valid keys; the decoder causally, and by itself only) and of the rule of the layer, which numbers the
blocks query x key row by row: 1 question-question, 2 question-entity, ... 5 entity-entity, ... 9 decoder-decoder. A
masked block is not seen by anyone; in block 5 head h sees the relations of its subset. A query that sees nothing has
output 0 (and not the mean of all values): with blocks 1 and 2 masked these are all question rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .subsets import RELATIONS

FAR = -1e30  # added to scores of keys that are not seen; finite, so that no row is NaN


class Layout(NamedTuple):
    """Numbers of positions: question, entities (objects then OCR tokens), decoder."""

    question: int
    entities: int
    decoder: int

    @property
    def length(self) -> int:
        return sum(self)

    @property
    def parts(self) -> tuple[slice, slice, slice]:
        first, second = self.question, self.question + self.entities
        return slice(0, first), slice(first, second), slice(second, self.length)


def base_mask(layout: Layout, masked_quadrants: Sequence[int], device: torch.device) -> Tensor:
    """bool [L, L]: what the positions alone allow."""
    out = torch.ones(layout.length, layout.length, dtype=torch.bool, device=device)
    decoder = layout.parts[2]
    out[:, decoder] = False
    out[decoder, decoder] = torch.ones(layout.decoder, layout.decoder, dtype=torch.bool, device=device).tril()
    for number in masked_quadrants:
        row, column = divmod(number - 1, 3)
        out[layout.parts[row], layout.parts[column]] = False
    return out


def allowed(
    relations: Tensor, key_valid: Tensor, layout: Layout, bits: Sequence[int], masked_quadrants: Sequence[int] = (1, 2)
) -> Tensor:
    """bool [B, H, L, L]: query i of head h sees key j."""
    entities = layout.parts[1]
    out = (base_mask(layout, masked_quadrants, key_valid.device) & key_valid[:, None]).unsqueeze(1)
    out = out.repeat(1, len(bits), 1, 1)
    table = torch.tensor(bits, device=relations.device)[:, None] >> torch.arange(RELATIONS, device=relations.device)
    out[:, :, entities, entities] &= (table % 2 == 1).T[relations.long()].permute(0, 3, 1, 2)
    return out


def entity_bias(beta: Tensor, relations: Tensor) -> Tensor:
    """`beta[h, R[i, j]]` [B, H, N, N]."""
    return beta.T[relations.long()].permute(0, 3, 1, 2)


def softmax_mask(seen: Tensor) -> tuple[Tensor, Tensor]:
    """What `attend` needs of a bool mask: a term of the scores, and 0 for the queries that see nothing, else 1."""
    term = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, FAR)
    return term, seen.any(-1, keepdim=True).float()


def added_in(term: Tensor, dtype: torch.dtype) -> Tensor:
    """The term in another precision, finite in float16 too, where -1e30 is not."""
    return term.clamp_min(torch.finfo(dtype).min / 2).to(dtype) if dtype == torch.float16 else term.to(dtype)


def probabilities(scores: Tensor, mask: tuple[Tensor, Tensor]) -> Tensor:
    """Softmax over the keys that are seen; a row of zeros where none is."""
    term, occupied = mask
    return (scores + added_in(term, scores.dtype)).softmax(-1) * occupied.to(scores.dtype)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: tuple[Tensor, Tensor], bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """[B, H, L, d] with the masks of `softmax_mask`; bias [B, H, L, L] is added to the scores."""
    term, occupied = mask
    scores = (q / math.sqrt(q.shape[-1])) @ k.mT + added_in(term, q.dtype)
    if bias is not None:
        scores = scores + bias
    # The rows of zeros are made after the product, where they are d wide and not L.
    return F.dropout(scores.softmax(-1), dropout) @ v * occupied.to(q.dtype)


def relation_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    relations: Tensor,
    key_valid: Tensor,
    layout: Layout,
    bits: Sequence[int],
    beta: Tensor | None = None,
    masked_quadrants: Sequence[int] = (1, 2),
    dropout: float = 0.0,
) -> Tensor:
    """[B, H, L, d]; see the package's docstring."""
    seen = allowed(relations, key_valid, layout, bits, masked_quadrants)
    bias = None
    if beta is not None:
        after, before = layout.decoder, layout.question
        bias = F.pad(entity_bias(beta.to(q.dtype), relations), (before, after, before, after))
    return attend(q, k, v, softmax_mask(seen), bias, dropout)
