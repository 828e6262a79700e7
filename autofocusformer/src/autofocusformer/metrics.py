"""What segmentation is judged by (section 9): IoU from one confusion matrix over all images, and coverage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchmetrics import Metric

IGNORE = 255


def confusion(prediction: Int64[Tensor, ...], target: Int64[Tensor, ...], classes: int) -> Int64[Tensor, "c c1"]:
    """Pixels by (true, predicted) class; last column: no prediction (255). Pixels whose target is 255 do not count."""
    counted = target != IGNORE
    said = prediction[counted]
    cells = target[counted] * (classes + 1) + said.where(said != IGNORE, classes)
    return torch.bincount(cells, minlength=classes * (classes + 1)).view(classes, classes + 1)


def iou(matrix: Int64[Tensor, "c c1"]) -> Float[Tensor, " c"]:
    """Intersection over union of every class; NaN for a class that is neither there nor predicted."""
    hit = matrix.diagonal().double()
    return hit / (matrix[:, :-1].sum(0) + matrix.sum(1) - matrix.diagonal())


class SegmentationScore(Metric):
    """Global mIoU, that of the small classes and of the others, and the IoU of each class.

    Args:
        classes: number of them.
        small: which of them are small objects.
        names: of the classes (default: their numbers).
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, classes: int, small: Sequence[int] = (), names: Sequence[str] = ()) -> None:
        super().__init__()
        self.classes, self.small = classes, list(small)
        self.large = [c for c in range(classes) if c not in self.small]
        self.names = list(names) or [str(c) for c in range(classes)]
        self.add_state("matrix", torch.zeros(classes, classes + 1, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, prediction: Int64[Tensor, "b h w"], target: Int64[Tensor, "b h w"]) -> None:
        self.matrix += confusion(prediction, target, self.classes)

    def compute(self) -> dict[str, Tensor]:
        each = iou(self.matrix)
        out = {"miou": each.nanmean()}
        if self.small:
            out |= {"miou_small": each[self.small].nanmean(), "miou_large": each[self.large].nanmean()}
        return out | {f"iou/{name}": value for name, value in zip(self.names, each) if not value.isnan()}


class Coverage(Metric):
    """Kept object tokens over object tokens, and kept tokens over all, level by level.

    Args:
        levels: how many sets of kept tokens an image has.
    """

    full_state_update = False
    kept: Tensor
    there: Tensor
    tokens: Tensor
    canvas: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        for name in ("kept", "tokens"):
            self.add_state(name, torch.zeros(levels, dtype=torch.long), dist_reduce_fx="sum")
        for name in ("there", "canvas"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, objects: Bool[Tensor, "b h w"], positions: Sequence[Int64[Tensor, "b n 2"]]) -> None:
        self.there += objects.sum()
        self.canvas += objects.numel()
        for level, places in enumerate(positions):
            self.kept[level] += objects_at(objects, places).sum()
            self.tokens[level] += places.shape[0] * places.shape[1]

    def compute(self) -> dict[str, Tensor]:
        # Without any object there is nothing to cover.
        share = self.kept.double() / self.there
        return {f"coverage/{level + 2}": share[level] for level in range(self.levels)} | {
            f"budget/{level + 2}": self.tokens[level].double() / self.canvas for level in range(self.levels)
        }


def objects_at(objects: Bool[Tensor, "b h w"], positions: Int64[Tensor, "b n 2"]) -> Bool[Tensor, "b n"]:
    """Whether an object is at each position (x, y) of the canvas."""
    cells = positions[..., 1] * objects.shape[2] + positions[..., 0]
    return objects.flatten(1).gather(1, cells)
