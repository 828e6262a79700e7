"""How the point Mask2Former trains (sections 3.2 and 6), on labelled scenes or on instances.

Labels of pixels become one mask for each class that is there; instances come as masks. Tested by mIoU, or by mask AP.
"""

from __future__ import annotations

import logging
from typing import Any

from jaxtyping import Bool, Float, Int64
from shared.errors import UserError
from torch import Tensor

from autofocusformer.backbone import Level, Pyramid
from autofocusformer.data.module import Scenes, Things
from autofocusformer.heads.mask2former import (
    PointMask2Former,
    Prediction,
    Targets,
    instances,
    mask2former_losses,
    semantic,
)
from autofocusformer.metrics import SegmentationScore
from autofocusformer.module import Trained, backbone_config

log = logging.getLogger(__name__)
IGNORE = 255
AP_NEEDS = "pycocotools and torchvision"  # torchmetrics asks for both


def targets_of(batch: Scenes | Things) -> list[Targets]:
    """What the queries have to find: the classes of a scene, or the instances."""
    if isinstance(batch, Things):
        return [Targets(kinds, masks) for kinds, masks in zip(batch.classes, batch.masks)]
    out = []
    for labels in batch.labels:
        there = labels.unique()
        there = there[there != IGNORE]
        out.append(Targets(there, labels[None] == there[:, None, None]))
    return out


def truth(classes: Int64[Tensor, " n"], masks: Bool[Tensor, "n h w"], crowds: Bool[Tensor, " n"]) -> dict[str, Tensor]:
    """An image's instances for the mean average precision."""
    if not len(classes):
        # torchmetrics leaves out an image without any mask, and what was found in it: a crowd of no pixel keeps it in.
        classes, masks, crowds = classes.new_zeros(1), masks.new_zeros(1, *masks.shape[1:]), crowds.new_ones(1)
    return {"masks": masks, "labels": classes, "iscrowd": crowds.long()}


class MaskSegmenter(Trained):
    """A pyramid with the point Mask2Former.

    Args:
        variant, backbone: of the backbone, and settings of it that differ.
        queries: 100, or 250 for Base.
        shepard_power: exponent inside the encoder: learned from 3 (None), or fixed (2 for COCO).
        points: of each mask at which the losses are taken.
        lr and so on: see `Trained`.
    """

    def __init__(
        self,
        variant: str = "tiny",
        backbone: dict[str, Any] | None = None,
        queries: int = 100,
        shepard_power: float | None = None,
        points: int = 12544,
        lr: float = 2e-4,
        weight_decay: float = 0.05,
        backbone_factor: float = 0.1,
        warm_up: int = 0,
        schedule: str = "poly",
        least: float = 0.0,
        start: float = 1e-3,
        weights: str | None = None,
        average: bool = False,
    ) -> None:
        super().__init__(lr, weight_decay, backbone_factor, warm_up, schedule, least, start, weights, average)
        self.config = backbone_config(variant, backbone)
        if self.config.sampling == "oracle":
            raise UserError("sampling: oracle is for the light head: instances bring no importance")
        if queries < 1 or points < 1:
            raise UserError(f"queries is {queries} and points {points}: both have to be at least 1")
        self.queries, self.power, self.points = queries, shepard_power, points
        self.settings = {"variant": variant, "backbone": backbone, "queries": queries, "shepard_power": shepard_power}

    def build(self, classes: int, names: tuple[str, ...] = (), small: tuple[int, ...] = ()) -> None:
        self.backbone = Pyramid(self.config)
        self.head = PointMask2Former(self.config.widths, classes, self.queries, self.power)
        self.score = SegmentationScore(classes, small, names)

    def configure_model(self) -> None:
        self.data.of_tokens = False
        if not hasattr(self, "head"):
            self.data.setup("fit")
            self.build(self.data.classes, self.data.names, self.data.small)
            self.start_backbone(self.backbone)

    def forward(self, images: Float[Tensor, "b 3 h4 w4"]) -> tuple[list[Prediction], list[Level]]:
        levels = self.backbone(images)
        return self.head(levels), levels

    def training_step(self, batch: Scenes | Things, index: int) -> Tensor:
        predictions, _ = self(batch.images)
        losses = mask2former_losses(predictions, targets_of(batch), self.points)
        if self.due(index):
            self.note(
                {
                    "loss": losses.total.item(),
                    "classes": losses.classes.item(),
                    "mask": losses.mask.item(),
                    "dice": losses.dice.item(),
                }
            )
        return losses.total

    def on_test_start(self) -> None:
        self.score.reset()
        self.precision: Any = None
        if not self.data.things:
            return
        try:
            from torchmetrics.detection import MeanAveragePrecision

            self.precision = MeanAveragePrecision(iou_type="segm")
        except (ImportError, ModuleNotFoundError):
            if not getattr(self.trainer, "fast_dev_run", False):
                raise UserError(f"mask AP needs {AP_NEEDS}: pip install 'torchmetrics[detection]'") from None
            log.warning("mask AP needs %s, which are not both there: this dry run goes on without it", AP_NEEDS)

    def test_step(self, batch: Scenes | Things, index: int) -> None:
        predictions, _ = self(batch.images)
        size = (batch.images.shape[2], batch.images.shape[3])
        if isinstance(batch, Scenes):
            self.score.update(semantic(predictions[-1], size).argmax(1), batch.labels)
            return
        found = instances(predictions[-1], size)
        if self.precision is not None:
            self.precision.update(
                [{"masks": one.masks, "scores": one.scores, "labels": one.labels} for one in found],
                [truth(*one) for one in zip(batch.classes, batch.masks, batch.crowds)],
            )

    def on_test_epoch_end(self) -> None:
        if not self.data.things:
            found = self.score.compute()
        else:
            found = {} if self.precision is None else self.precision.compute()
            found = {"ap": found["map"], "ap50": found["map_50"]} if found else {}
        # In per cent, as published. An AP of -1 is torchmetrics' word for "no object to find".
        self.final = {f"test/{name}": 100 * value.item() for name, value in found.items() if value >= 0}
        self.log_dict({name: value for name, value in self.final.items() if "iou/" not in name})
