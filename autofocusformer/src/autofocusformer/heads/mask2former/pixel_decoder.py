"""Pixel decoder of Mask2Former on tokens: an encoder over res5, res4, res3, then the full canvas of res2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from shared.errors import UserError
from torch import Tensor, nn

from autofocusformer.backbone import Level
from autofocusformer.heads.mask2former.deformable import PointDeformableAttention, Tokens, tokens_of
from autofocusformer.heads.mask2former.encoding import encoding_by_image
from autofocusformer.heads.shepard import nearest_tokens, shepard
from autofocusformer.kernels.point_merge import point_merge

WIDTH = 256
FEED_FORWARD = 1024
NEIGHBOURS = 9  # of the PointConv


class EncoderLayer(nn.Module):
    """Deformable attention and a feed-forward net, each followed by a LayerNorm."""

    def __init__(self, width: int, hidden: int, power: float | None) -> None:
        super().__init__()
        self.attention = PointDeformableAttention(width, power=power)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(
        self, x: Float[Tensor, "b n width"], encoding: Float[Tensor, "b n width"], tokens: Tokens
    ) -> Float[Tensor, "b n width"]:
        x = self.norm1(x + self.attention(x + encoding, x, tokens))
        return self.norm2(x + self.linear2(nn.functional.relu(self.linear1(x))))


class PointConv(nn.Module):
    """`Linear(LN(sum_j W_ij (x) x_j))` over the 9 nearest tokens, `W_ij = GELU(LN4(A phi_ij + a))`.

    phi_ij are the features of the query minus the neighbour: the other way round than in the backbone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pair_linear = nn.Linear(5, 4)
        self.pair_norm = nn.LayerNorm(4)
        self.norm = nn.LayerNorm(4 * width)
        self.linear = nn.Linear(4 * width, width)
        # phi of the opposite offset: all but the distance change their sign.
        self.opposite: Tensor
        self.register_buffer("opposite", torch.tensor([-1.0, -1, 1, -1, -1]), persistent=False)

    def forward(self, x: Float[Tensor, "b n width"], positions: Int[Tensor, "b n 2"]) -> Float[Tensor, "b n width"]:
        batch, n, _ = x.shape
        idx = nearest_tokens(positions, positions, NEIGHBOURS)
        linear, norm = self.pair_linear, self.pair_norm
        everyone = torch.arange(n, device=x.device).expand(batch, -1)
        merged = point_merge(
            x, x.new_ones(batch, n), positions, everyone, idx, torch.ones_like(idx, dtype=torch.bool),
            linear.weight * self.opposite, linear.bias, norm.weight, norm.bias,
        )  # fmt: skip
        return self.linear(self.norm(merged.flatten(2)))


def on_the_canvas(x: Float[Tensor, "b n c"], level: Level) -> Float[Tensor, "b c h w"]:
    """Tokens at all cells of the canvas, put back into its rows and columns.

    Raises:
        UserError: there is not one token for each cell.
    """
    h, w = level.canvas
    if x.shape[1] != h * w:
        raise UserError(f"masks need a token at each of the {h} x {w} cells of the canvas, res2 has {x.shape[1]}")
    cell = level.positions[..., 0] + level.positions[..., 1] * w
    grid = torch.zeros_like(x).scatter(1, cell[..., None].expand_as(x), x)
    return grid.transpose(1, 2).unflatten(2, (h, w))


class PixelDecoder(nn.Module):
    """Pyramid of the backbone -> tokens of three levels for the queries to attend to, and features of masks.

    Args:
        widths: channels of res2, res3, res4, res5.
        layers: of the encoder.
        power: p of Shepard's weights inside the encoder; None: learned by each layer, from 3.
    """

    def __init__(self, widths: Sequence[int], layers: int = 6, power: float | None = None) -> None:
        super().__init__()
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Linear(c, WIDTH), nn.LayerNorm(WIDTH)) for c in reversed(widths[1:])
        )
        self.level_embed = nn.Parameter(torch.randn(len(widths) - 1, WIDTH))
        self.layers = nn.ModuleList(EncoderLayer(WIDTH, FEED_FORWARD, power) for _ in range(layers))
        self.lateral = nn.Sequential(nn.Linear(widths[0], WIDTH), nn.LayerNorm(WIDTH))
        self.point_conv = PointConv(WIDTH)
        self.output_norm = nn.LayerNorm(WIDTH)
        self.mask_features = nn.Linear(WIDTH, WIDTH)
        for linear in [p[0] for p in (*self.input_proj, self.lateral)] + [self.mask_features]:
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, levels: Sequence[Level]
    ) -> tuple[Float[Tensor, "b width h w"], list[Float[Tensor, "b n_l width"]]]:
        """`(mask features on the canvas, encoded tokens coarse to fine)`; levels: res2, ..., res5."""
        finest, *rest = levels
        rest = rest[::-1]
        tokens = tokens_of([level.positions for level in rest], finest.canvas)
        parts = [project(level.features) for project, level in zip(self.input_proj, rest)]
        encoding = torch.cat(
            [encoding_by_image(r.positions, WIDTH // 2) + e for r, e in zip(rest, self.level_embed)], 1
        )  # fmt: skip
        x = torch.cat(parts, 1)
        for layer in self.layers:
            x = layer(x, encoding.to(x.dtype), tokens)
        encoded = list(x.split([level.positions.shape[1] for level in rest], 1))
        lateral = self.lateral(finest.features)
        y = lateral + shepard(finest.positions, rest[-1].positions, encoded[-1], k=4, p=3).to(lateral.dtype)
        y = nn.functional.relu(self.output_norm(self.point_conv(y, finest.positions)))
        return on_the_canvas(self.mask_features(y), finest), encoded
