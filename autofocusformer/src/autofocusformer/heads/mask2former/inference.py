"""From queries to labels of pixels, to objects, and to both at once."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from autofocusformer.heads.mask2former.matching import PATCH
from autofocusformer.heads.mask2former.query_decoder import Prediction

DETECTIONS = 100
CONFIDENT = 0.8  # of queries that take part in panoptic segmentation
VISIBLE = 0.8  # share of a segment's mask that others must leave to it


class Instances(NamedTuple):
    """Objects of one image, the surest first."""

    labels: Int[Tensor, " objects"]
    scores: Float[Tensor, " objects"]
    masks: Bool[Tensor, "objects height width"]


class Panoptic(NamedTuple):
    """Every pixel's segment; 0 belongs to none. Segment i has class labels[i - 1]."""

    segments: Int[Tensor, "height width"]
    labels: list[int]


def in_pixels(masks: Float[Tensor, "b queries h w"], size: tuple[int, int]) -> Float[Tensor, "b queries height width"]:
    """Logits of masks at the pixels of the image, without what it was padded with."""
    h, w = masks.shape[-2:]
    large = interpolate(masks.float(), size=(h * PATCH, w * PATCH), mode="bilinear", align_corners=False)
    return large[..., : size[0], : size[1]]


def semantic(prediction: Prediction, size: tuple[int, int]) -> Float[Tensor, "b classes height width"]:
    """`sum_q p_q(class) sigmoid(mask_q)` at each pixel; its largest entry is the pixel's label."""
    shares = prediction.classes.float().softmax(-1)[..., :-1]
    return torch.einsum("bqc,bqhw->bchw", shares, in_pixels(prediction.masks, size).sigmoid())


def instances(
    prediction: Prediction, size: tuple[int, int], count: int = DETECTIONS, things: Collection[int] | None = None
) -> list[Instances]:
    """The `count` surest pairs of query and class; the score is the class's times the mean inside the mask.

    Args:
        things: classes that have instances; None: all.
    """
    shares = prediction.classes.float().softmax(-1)[..., :-1]
    classes = shares.shape[-1]
    out = []
    for share, masks in zip(shares, prediction.masks):
        scores, pairs = share.flatten().topk(min(count, share.numel()))
        query, label = pairs // classes, pairs % classes
        if things is not None:
            of_things = torch.isin(label, torch.tensor(sorted(things), device=label.device))
            scores, query, label = scores[of_things], query[of_things], label[of_things]
        logits = in_pixels(masks[None], size)[0][query]
        inside = logits > 0
        area = inside.sum((1, 2))
        sure = (logits.sigmoid() * inside).sum((1, 2)) / (area + 1e-6)
        scores, order = (scores * sure).sort(descending=True, stable=True)
        out.append(Instances(label[order], scores, inside[order]))
    return out


def panoptic(
    prediction: Prediction,
    size: tuple[int, int],
    things: Collection[int],
    confident: float = CONFIDENT,
    visible: float = VISIBLE,
) -> list[Panoptic]:
    """Each pixel goes to the confident query with the largest `p_q sigmoid(mask_q)`.

    A query keeps its pixels inside its own mask if they are `visible` of it; regions of one class that has no
    instances are one segment. With all classes as `things`, it draws the instances of an image: `segment` writes these.
    """
    shares = prediction.classes.float().softmax(-1)
    none = shares.shape[-1] - 1
    out = []
    for share, masks in zip(shares, prediction.masks):
        score, label = share.max(-1)
        chosen = ((label != none) & (score > confident)).nonzero().flatten()
        segments = torch.zeros(size, dtype=torch.long, device=masks.device)
        labels = list[int]()
        if not len(chosen):
            out.append(Panoptic(segments, labels))
            continue
        inside = in_pixels(masks[None, chosen], size)[0].sigmoid()
        winner = (score[chosen, None, None] * inside).argmax(0)
        region = dict[int, int]()  # segment of a class without instances
        for i, kind in enumerate(label[chosen].tolist()):
            won, own = winner == i, inside[i] >= 0.5
            mine = won & own
            if not mine.any() or won.sum() / own.sum() < visible:
                continue
            if kind in region:
                segments[mine] = region[kind]
                continue
            labels.append(kind)
            segments[mine] = len(labels)
            if kind not in things:
                region[kind] = len(labels)
        out.append(Panoptic(segments, labels))
    return out
