"""Deformable attention between tokens off the grid.

A query looks at a few places of every level that it chooses itself; what lies there is interpolated, by Shepard's
weights, from the level's tokens nearest to the canvas cell of the place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autofocusformer.heads.shepard import nearest_tokens, rows_of, weights
from autofocusformer.positions import canvas_positions

NEIGHBOURS = 4


class Tokens(NamedTuple):
    """Tokens of all levels of a pyramid, coarse to fine, in one row.

    Attributes:
        positions: (x, y) on the canvas.
        starts: row of each level's first token, and the number of all.
        tables: per level, the tokens nearest to each cell of the canvas (rows of the whole).
        canvas: (h, w).
    """

    positions: Int[Tensor, "b n 2"]
    starts: list[int]
    tables: list[Int[Tensor, "b cells k"]]
    canvas: tuple[int, int]


def tokens_of(levels: Sequence[Int[Tensor, "b n_l 2"]], canvas: tuple[int, int]) -> Tokens:
    """Lays the levels out and looks up every cell's nearest tokens once, for all layers to share."""
    cells = canvas_positions(*canvas, device=levels[0].device)[None].expand(len(levels[0]), -1, -1)
    starts = [0]
    for positions in levels:
        starts.append(starts[-1] + positions.shape[1])
    tables = [nearest_tokens(cells, p, NEIGHBOURS) + start for p, start in zip(levels, starts)]
    return Tokens(torch.cat(list(levels), 1), starts, tables, canvas)


def weighted_rows(
    idx: Int[Tensor, "b n k"], w: Float[Tensor, "b n k"], v: Float[Tensor, "b N e"]
) -> Float[Tensor, "b n e"]:
    """`out_i = sum_k w_ik v_idx(i,k)`, the gathered rows never written to memory."""
    batch, n = idx.shape[:2]
    image = torch.arange(batch, device=idx.device)[:, None, None] * v.shape[1]
    rows, factor = (idx + image).flatten(0, 1), w.to(v.dtype).flatten(0, 1)
    return nn.functional.embedding_bag(rows, v.flatten(0, 1), per_sample_weights=factor, mode="sum").view(batch, n, -1)


class PointDeformableAttention(nn.Module):
    """Each token's weighted sum over the places that it looks at.

    Args:
        width: of queries and values.
        heads, levels, points: places of a query: `points` on each level for each head.
        power: p of Shepard's weights; learned from 3, or fixed.
    """

    def __init__(
        self, width: int, heads: int = 8, levels: int = 3, points: int = 4, power: float | None = None
    ) -> None:
        super().__init__()
        self.shape = (heads, levels, points)
        self.sampling_offsets = nn.Linear(width, 2 * heads * levels * points)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        if power is None:
            self.shepard_power = nn.Parameter(torch.full((1,), 3.0))
        else:
            self.register_buffer("shepard_power", torch.full((1,), float(power)))
        self._start()

    def _start(self) -> None:
        """At first a head looks straight into one of `heads` directions, 1, 2, ... cells far, at all of it alike."""
        heads, levels, points = self.shape
        angle = torch.arange(heads) * (2 * math.pi / heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        far = torch.arange(1, points + 1)[:, None]
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((direction[:, None, None] * far).expand(-1, levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, query: Float[Tensor, "b n width"], value: Float[Tensor, "b n width"], tokens: Tokens
    ) -> Float[Tensor, "b n width"]:
        batch, n, width = query.shape
        heads, levels, points = self.shape
        h, w = tokens.canvas
        offsets = self.sampling_offsets(query).view(batch, n, heads, levels, points, 2).float()
        places = tokens.positions[:, :, None, None, None].float() + offsets
        shares = self.attention_weights(query).view(batch, n, heads, levels * points).softmax(-1)
        shares = shares.view(batch, n, heads, levels, points)
        # The lookup is by the cell of the place, its distances by the place itself: gradients reach the offsets.
        cell = places.detach().nan_to_num().round()  # what has diverged is said by the loss, not by a lookup
        cell = cell[..., 0].clamp(0, w - 1).long() + cell[..., 1].clamp(0, h - 1).long() * w
        rows, factors = [], []
        for level, table in enumerate(tokens.tables):
            idx = rows_of(table, cell[:, :, :, level])  # [b, n, heads, points, k]
            near = weights(places[:, :, :, level], rows_of(tokens.positions, idx), self.shepard_power)
            rows.append(idx.flatten(3))
            factors.append((near * shares[:, :, :, level, :, None]).flatten(3))
        values = self.value_proj(value).view(batch, n, heads, -1)
        # One table of rows for all heads, row (token, head); levels may have different numbers of neighbours.
        head = torch.arange(heads, device=query.device)[:, None]
        idx = torch.cat(rows, -1) * heads + head
        out = weighted_rows(idx.flatten(1, 2), torch.cat(factors, -1).flatten(1, 2), values.flatten(1, 2).float())
        return self.output_proj(out.view(batch, n, width).to(query.dtype))
