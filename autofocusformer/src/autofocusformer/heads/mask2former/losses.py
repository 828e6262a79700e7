"""Losses of Mask2Former, as in its published code: classes of all queries, masks of matched ones, after each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from shared.errors import UserError
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from autofocusformer.heads.mask2former.matching import Targets, Weights, at_points, match, on_canvas
from autofocusformer.heads.mask2former.query_decoder import Prediction

POINTS = 12544
OVERSAMPLE = 3
IMPORTANT = 0.75
NO_OBJECT = 0.1
WEIGHTS = Weights()


class Losses(NamedTuple):
    """Unweighted terms, each summed over the predictions, and the weighted total."""

    classes: Float[Tensor, ""]
    mask: Float[Tensor, ""]
    dice: Float[Tensor, ""]
    total: Float[Tensor, ""]


@torch.no_grad()
def uncertain_points(
    masks: Float[Tensor, "m h w"], points: int, generator: torch.Generator | None = None
) -> Float[Tensor, "m points 2"]:
    """Of three times as many random points of each mask those with logits nearest to 0; a quarter is random."""
    device = masks.device
    place = torch.rand(len(masks), OVERSAMPLE * points, 2, generator=generator, device=device)
    important = int(IMPORTANT * points)
    best = (-at_points(masks, place).abs()).topk(important, dim=1).indices
    chosen = place.gather(1, best[..., None].expand(-1, -1, 2))
    rest = torch.rand(len(masks), points - important, 2, generator=generator, device=device)
    return torch.cat([chosen, rest], 1)


def dice(logits: Float[Tensor, "m p"], truth: Float[Tensor, "m p"]) -> Float[Tensor, " m"]:
    """`1 - (2 <s, t> + 1) / (|s| + |t| + 1)`, s the sigmoid."""
    share = logits.sigmoid()
    return 1 - (2 * (share * truth).sum(-1) + 1) / (share.sum(-1) + truth.sum(-1) + 1)


def objects_per_process(targets: Sequence[Targets], device: torch.device) -> float:
    """Objects of the batch, averaged over the processes; 1 at least."""
    number = torch.tensor(float(sum(len(t.labels) for t in targets)), device=device)
    processes = 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(number)
        processes = torch.distributed.get_world_size()
    return max(1.0, float(number) / processes)


def class_loss(
    logits: Float[Tensor, "b queries classes_and_none"], wanted: Int[Tensor, "b queries"]
) -> Float[Tensor, ""]:
    """Cross-entropy of all queries; one that answers for nothing counts a tenth."""
    none = logits.shape[-1] - 1
    weight = torch.ones(none + 1, device=logits.device)
    weight[none] = NO_OBJECT
    return cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), weight)


def one_prediction(
    prediction: Prediction,
    targets: Sequence[Targets],
    objects: float,
    points: int,
    weights: Weights,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`(class, mask, dice)` after one layer."""
    classes, masks = prediction
    canvas = (masks.shape[2], masks.shape[3])
    wanted = torch.full(classes.shape[:2], classes.shape[-1] - 1, device=classes.device)
    ours, true = [], []
    for image, target in enumerate(targets):
        queries, found = match(classes[image], masks[image], target, points, weights, generator)
        wanted[image, queries] = target.labels[found]
        ours.append(masks[image, queries].float())
        true.append(on_canvas(target.masks[found], canvas))
    by_class = class_loss(classes, wanted)
    logits, truth = torch.cat(ours), torch.cat(true)
    if not len(logits):
        nothing = masks.sum() * 0  # keeps every parameter in the graph, as processes that wait for another need it
        return by_class, nothing, nothing
    place = uncertain_points(logits, points, generator)
    with torch.no_grad():
        truth = at_points(truth, place)
    sampled = at_points(logits, place)
    by_mask = binary_cross_entropy_with_logits(sampled, truth, reduction="none").mean(-1).sum() / objects
    return by_class, by_mask, dice(sampled, truth).sum() / objects


def mask2former_losses(
    predictions: Sequence[Prediction],
    targets: Sequence[Targets],
    points: int = POINTS,
    weights: Weights = WEIGHTS,
    generator: torch.Generator | None = None,
) -> Losses:
    """Sums over all predictions, each with an assignment of its own.

    Raises:
        UserError: as many targets as images there must be, and labels of known classes.
    """
    if len(targets) != len(predictions[0].classes):
        raise UserError(f"{len(targets)} targets for {len(predictions[0].classes)} images")
    known = predictions[0].classes.shape[-1] - 1
    for image, target in enumerate(targets):
        if len(target.labels) and not 0 <= int(target.labels.min()) <= int(target.labels.max()) < known:
            raise UserError(f"image {image} has labels outside of 0 .. {known - 1}: {target.labels.unique().tolist()}")
    objects = objects_per_process(targets, predictions[0].masks.device)
    terms = [one_prediction(p, targets, objects, points, weights, generator) for p in predictions]
    classes, mask, dices = (torch.stack(t).sum() for t in zip(*terms))
    return Losses(classes, mask, dices, weights.classes * classes + weights.mask * mask + weights.dice * dices)
