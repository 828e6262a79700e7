"""A light head for points (ours): every level is interpolated to the whole canvas, and the sum is read out by pixel.

level: LN, Linear -> 64, Shepard interpolation from the 4 nearest tokens, each seen with its offset: GELU(f_j + R phi).
sum over levels -> LN -> Linear -> GELU -> Linear to classes * 16 -> each canvas cell becomes its 4 x 4 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from autofocusformer.heads.shepard import nearest_tokens, rows_of, weights
from autofocusformer.positions import FEATURES, canvas_positions, relative_features

NEIGHBOURS = 4
POWER = 3  # Shepard weights fall as distance^-6
STRIDE = 4


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
        cells = canvas_positions(h, w, positions[0].device).expand(len(positions[0]), -1, -1)
        total: Tensor | None = None
        for level, (feature, place) in enumerate(zip(features, positions, strict=True)):
            values = self.lateral[level](feature)
            rows = nearest_tokens(cells, place, NEIGHBOURS)
            there = rows_of(place, rows)
            share = weights(cells, there, POWER).to(values.dtype)
            # First of every cell its first neighbour, then the second, ...: the sum then runs over whole rows.
            image = torch.arange(len(values), device=rows.device)[:, None, None] * values.shape[1]
            near = values.flatten(0, 1).index_select(0, (rows + image).movedim(2, 0).flatten())
            if self.offset is not None:
                phi = relative_features(there - cells[:, :, None]).movedim(2, 0).flatten(0, 2).to(values.dtype)
                near = nn.functional.gelu(
                    torch.addmm(near, phi, self.offset[level].get_parameter("weight").T.to(values.dtype))
                )
            at_cells = (share.movedim(2, 0)[..., None] * near.view(-1, *cells.shape[:2], near.shape[1])).sum(0)
            total = at_cells if total is None else total + at_cells
        assert total is not None, "no level was given"
        scores = self.read(total).transpose(1, 2).reshape(total.shape[0], -1, h, w)
        return nn.functional.pixel_shuffle(scores, STRIDE)
