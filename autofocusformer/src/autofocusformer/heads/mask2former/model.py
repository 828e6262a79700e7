"""Mask2Former on tokens: pixel decoder and query decoder, as in the published code."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from autofocusformer.backbone import Level
from autofocusformer.heads.mask2former.pixel_decoder import PixelDecoder
from autofocusformer.heads.mask2former.query_decoder import Prediction, QueryDecoder


class PointMask2Former(nn.Module):
    """Pyramid of tokens -> classes and masks of the queries.

    Args:
        widths: channels of res2, res3, res4, res5.
        classes: without "no object".
        queries: 100, or 250 for Base.
        power: p of Shepard's weights inside the encoder: None (learned from 3), or fixed (2 for COCO).
    """

    def __init__(self, widths: Sequence[int], classes: int, queries: int = 100, power: float | None = None) -> None:
        super().__init__()
        self.pixel_decoder = PixelDecoder(widths, power=power)
        self.predictor = QueryDecoder(classes, queries)

    def forward(self, levels: Sequence[Level]) -> list[Prediction]:
        """Ten predictions: of the queries at the start and after each layer; masks on the canvas."""
        mask_features, encoded = self.pixel_decoder(levels)
        return self.predictor(mask_features, encoded, [level.positions for level in levels[:0:-1]])
