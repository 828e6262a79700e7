"""Transformer decoder of Mask2Former on tokens: queries that attend within their own masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from autofocusformer.heads.mask2former.encoding import encoding_by_image

WIDTH = 256
HEADS = 8
FEED_FORWARD = 2048


class Prediction(NamedTuple):
    """What the queries say after a layer.

    Attributes:
        classes: logits, the last of them for "no object".
        masks: logits on the canvas.
    """

    classes: Float[Tensor, "b queries classes_and_none"]
    masks: Float[Tensor, "b queries h w"]


class DecoderLayer(nn.Module):
    """Masked attention to the tokens, attention among the queries, feed-forward net; a LayerNorm after each."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.among = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm3 = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, x: Tensor, places: Tensor, keys: Tensor, values: Tensor, blocked: Bool[Tensor, "b queries n"]
    ) -> Float[Tensor, "b queries width"]:
        """`places`: the queries' own encoding; `blocked`: tokens that a query may not see."""
        mask = blocked.repeat_interleave(self.cross.num_heads, 0)
        y, _ = self.cross(x + places, keys, values, attn_mask=mask, need_weights=False)
        x = self.norm1(x + y)
        y, _ = self.among(x + places, x + places, x, need_weights=False)
        x = self.norm2(x + y)
        return self.norm3(x + self.linear2(nn.functional.relu(self.linear1(x))))


def mlp(width: int, layers: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, width))


def blocked_by(masks: Float[Tensor, "b queries h w"], positions: Int[Tensor, "b n 2"]) -> Bool[Tensor, "b queries n"]:
    """Tokens outside of each query's mask, `sigmoid < 0.5`; none where all would be.

    Tokens lie on cells of the canvas, where Shepard's interpolation of the canvas is the cell's own value: its weight
    is 1e11 to the others' 1.
    """
    cell = positions[..., 0] + positions[..., 1] * masks.shape[-1]
    logits = masks.detach().flatten(2).gather(2, cell[:, None].expand(-1, masks.shape[1], -1))
    blocked = logits < 0
    return blocked & ~blocked.all(-1, keepdim=True)


class QueryDecoder(nn.Module):
    """Queries -> class and mask of each, from the start and after each layer.

    Args:
        classes: without "no object".
        queries: how many.
        layers: they look at res5, res4, res3 in turn.
    """

    def __init__(self, classes: int, queries: int = 100, layers: int = 9, levels: int = 3) -> None:
        super().__init__()
        self.query_feat = nn.Parameter(torch.randn(queries, WIDTH))
        self.query_embed = nn.Parameter(torch.randn(queries, WIDTH))
        self.level_embed = nn.Parameter(torch.randn(levels, WIDTH))
        self.layers = nn.ModuleList(DecoderLayer(WIDTH, HEADS, FEED_FORWARD) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(WIDTH)
        self.class_embed = nn.Linear(WIDTH, classes + 1)
        self.mask_embed = mlp(WIDTH, 3)

    def predict(self, x: Float[Tensor, "b queries width"], mask_features: Float[Tensor, "b width h w"]) -> Prediction:
        x = self.decoder_norm(x)
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_embed(x), mask_features)
        return Prediction(self.class_embed(x), masks)

    def forward(
        self,
        mask_features: Float[Tensor, "b width h w"],
        encoded: Sequence[Float[Tensor, "b n_l width"]],
        positions: Sequence[Int[Tensor, "b n_l 2"]],
    ) -> list[Prediction]:
        """Ten predictions, the last one the result; levels from coarse to fine."""
        batch = len(mask_features)
        values = [x + e for x, e in zip(encoded, self.level_embed)]
        keys = [v + encoding_by_image(p, WIDTH // 2).to(v.dtype) for v, p in zip(values, positions)]
        x, places = (y.expand(batch, -1, -1) for y in (self.query_feat, self.query_embed))
        predictions = [self.predict(x, mask_features)]
        for i, layer in enumerate(self.layers):
            level = i % len(values)
            blocked = blocked_by(predictions[-1].masks, positions[level])
            x = layer(x, places, keys[level], values[level], blocked)
            predictions.append(self.predict(x, mask_features))
        return predictions
