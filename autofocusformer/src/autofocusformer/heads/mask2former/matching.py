"""Which query answers for which object: the assignment of least cost, on points sampled from the masks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from shared.errors import UserError
from torch import Tensor
from torch.nn.functional import grid_sample, pad, softplus

PATCH = 4  # pixels of a cell of the canvas


class Targets(NamedTuple):
    """The objects (or regions) of one image.

    Attributes:
        labels: class of each.
        masks: where each is, in pixels; the image may be smaller than its canvas by less than a cell.
    """

    labels: Int[Tensor, " objects"]
    masks: Bool[Tensor, "objects height width"]


class Weights(NamedTuple):
    """Of the three terms, in the assignment and in the loss."""

    classes: float = 2.0
    mask: float = 5.0
    dice: float = 5.0


def on_canvas(masks: Bool[Tensor, "objects height width"], canvas: tuple[int, int]) -> Float[Tensor, "objects H W"]:
    """Masks with the padding that makes whole cells, as float.

    Raises:
        UserError: masks of another image's size.
    """
    height, width = masks.shape[-2:]
    missing = (canvas[0] * PATCH - height, canvas[1] * PATCH - width)
    if not all(0 <= m < PATCH for m in missing):
        raise UserError(
            f"target masks are {height} x {width}, the image's canvas has {canvas[0]} x {canvas[1]} cells of 4 pixels"
        )
    return pad(masks.float(), (0, missing[1], 0, missing[0]))


def at_points(masks: Float[Tensor, "m h w"], points: Float[Tensor, "m p 2"]) -> Float[Tensor, "m p"]:
    """Bilinear values of each mask at its own points (x, y) in [0, 1]^2."""
    return grid_sample(masks[:, None], 2 * points[:, None] - 1, align_corners=False)[:, 0, 0]


def costs(
    classes: Float[Tensor, "queries classes_and_none"],
    masks: Float[Tensor, "queries p"],
    labels: Int[Tensor, " objects"],
    truth: Float[Tensor, "objects p"],
    weights: Weights,
) -> Float[Tensor, "queries objects"]:
    """Cost of each pair: minus the class's probability, mean cross-entropy and dice of the masks at the points."""
    by_class = -classes.softmax(-1)[:, labels]
    by_mask = (softplus(-masks) @ truth.T + softplus(masks) @ (1 - truth).T) / masks.shape[1]
    share = masks.sigmoid()
    both = share.sum(-1)[:, None] + truth.sum(-1)
    by_dice = 1 - (2 * share @ truth.T + 1) / (both + 1)
    return weights.classes * by_class + weights.mask * by_mask + weights.dice * by_dice


@torch.no_grad()
def match(
    classes: Float[Tensor, "queries classes_and_none"],
    masks: Float[Tensor, "queries h w"],
    targets: Targets,
    points: int,
    weights: Weights,
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """`(queries, objects)` of the pairs of least total cost, at the same random points for all masks of an image.

    Raises:
        UserError: a cost that is not a number.
    """
    place = torch.rand(1, points, 2, generator=generator, device=masks.device)
    truth = on_canvas(targets.masks, (masks.shape[1], masks.shape[2]))
    sampled = [at_points(m.float(), place.expand(len(m), -1, -1)) for m in (masks, truth)]
    cost = costs(classes.float(), sampled[0], targets.labels, sampled[1], weights).cpu().numpy()
    if not np.isfinite(cost).all():
        raise UserError("the predictions are NaN or infinite, training has diverged: lower the learning rate")
    rows, columns = linear_sum_assignment(cost)
    return torch.as_tensor(rows, device=masks.device), torch.as_tensor(columns, device=masks.device)
