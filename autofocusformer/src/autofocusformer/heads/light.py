"""A light head for points (ours): every level is interpolated to the whole canvas, and the sum is read out by pixel.

level: LN, Linear -> 64, Shepard interpolation from the 4 nearest tokens, each seen with its offset: GELU(f_j + R phi).
sum over levels -> LN -> Linear -> GELU -> Linear to classes * 16 -> each canvas cell becomes its 4 x 4 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from autofocusformer.positions import FEATURES, canvas_positions, relative_features

NEIGHBOURS = 4
POWER = 3  # Shepard weights fall as distance^-6
STRIDE = 4
ROWS = 4096  # canvas cells whose neighbours are sought at a time


def nearest_tokens(
    queries: Int64[Tensor, "q 2"], positions: Int64[Tensor, "b n 2"], k: int
) -> tuple[Int64[Tensor, "b q k"], Int64[Tensor, "b q k"]]:
    """The k nearest tokens of every query, and their squared distances; of equal distances the lower row."""
    n = positions.shape[1]
    k = min(k, n)
    rows = torch.arange(n, device=positions.device)
    found = []
    for part in queries.split(ROWS):
        squared = (part[None, :, None] - positions[:, None]).square().sum(-1)
        found.append((squared * n + rows).topk(k, dim=-1, largest=False).values)  # distinct keys: no ties
    keys = torch.cat(found, 1)
    return keys % n, keys // n


def shepard_weights(squared: Int64[Tensor, "b q k"], power: int = POWER) -> Float[Tensor, "b q k"]:
    """1 / (d^(2p) + 1e-11), normalised over the k neighbours, in fp32."""
    weights = 1 / (squared.double() ** power + 1e-11)
    return (weights / weights.sum(-1, keepdim=True)).float()


def take(values: Float[Tensor, "b n c"], rows: Int64[Tensor, "b q k"]) -> Float[Tensor, "b q k c"]:
    b, q, k = rows.shape
    return values.gather(1, rows.reshape(b, q * k, 1).expand(-1, -1, values.shape[2])).view(b, q, k, -1)


class LightHead(nn.Module):
    """Class scores of every pixel from the tokens of some levels.

    Args:
        widths: of the levels that are read.
        classes: how many.
        width: of the head.
        offsets: neighbours are seen with their offsets.
    """

    def __init__(self, widths: Sequence[int], classes: int, width: int = 64, offsets: bool = True) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Sequential(nn.LayerNorm(c), nn.Linear(c, width)) for c in widths)
        self.offset = nn.ModuleList(nn.Linear(FEATURES, width, bias=False) for _ in widths) if offsets else None
        self.read = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, classes * STRIDE * STRIDE)
        )

    def forward(
        self,
        features: Sequence[Float[Tensor, "b n c"]],
        positions: Sequence[Int64[Tensor, "b n 2"]],
        canvas: tuple[int, int],
    ) -> Float[Tensor, "b classes h4 w4"]:
        """Scores at 4 x the canvas; `features[i]` lie at `positions[i]`, (x, y) on the canvas of (rows, columns)."""
        h, w = canvas
        cells = canvas_positions(h, w, positions[0].device)
        total: Tensor | None = None
        for level, (feature, place) in enumerate(zip(features, positions, strict=True)):
            values = self.lateral[level](feature)
            rows, squared = nearest_tokens(cells, place, NEIGHBOURS)
            weights = shepard_weights(squared).to(values.dtype)
            near = take(values, rows)
            if self.offset is not None:
                there = take(place, rows)
                phi = relative_features(there - cells[None, :, None]).to(values.dtype)
                near = nn.functional.gelu(near + self.offset[level](phi))
            at_cells = (weights[..., None] * near).sum(2)
            total = at_cells if total is None else total + at_cells
        assert total is not None, "no level was given"
        scores = self.read(total).transpose(1, 2).reshape(total.shape[0], -1, h, w)
        return nn.functional.pixel_shuffle(scores, STRIDE)
