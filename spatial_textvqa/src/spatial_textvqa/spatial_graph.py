"""The spatial graph over objects and OCR tokens, and which part of it each attention head sees (section 3, Fig. 3).

boxes -> one of 12 relations or none for every ordered pair -> the subset of relations of head h.
Boxes are (x_min, y_min, x_max, y_max) over width and height of the image, y pointing down; a row that sums to exactly 0
is padding. `R[i, j]` is i relative to j: 1 contains, 2 inside, 3 overlaps, 4..11 eight sectors clockwise on the page
from "right, slightly below", 12 itself, 0 no edge. A pair is near, and has a sector, below thr * sqrt(2).
"""

from __future__ import annotations

import logging

import torch
from jaxtyping import Bool, Float, UInt8
from shared.errors import UserError
from torch import Tensor

from .kernels.relation_attention import RELATIONS, subset_bits
from .kernels.relations import build_relations

log = logging.getLogger(__name__)

NAMES = (
    "none", "contains", "inside", "overlaps", "right, slightly below", "below, slightly right", "below, slightly left",
    "left, slightly below", "left, slightly above", "above, slightly left", "above, slightly right",
    "right, slightly above", "itself",
)  # fmt: skip
MARGIN = 0.01  # detectors round; further outside the image than this is a mistake


def relations(
    boxes: Float[Tensor, "*batch n 4"], thr: float = 0.5, mode: str = "official"
) -> UInt8[Tensor, "*batch n n"]:
    """The graph, one byte for each pair (section 3).

    Args:
        boxes: normalised boxes; the arithmetic is float64.
        thr: largest distance of centres that makes an edge, in units of the image's diagonal (sqrt 2).
        mode: `official` has the quirks of the published code, `clean` has not: a pair at the very same height is then
            told as any other, and crossing boxes with one centre overlap (3).

    Raises:
        UserError: an unknown mode; a threshold that is not positive; a box that is NaN or infinite.
    """
    if not boxes.sum().isfinite() and not (finite := boxes.isfinite().all(-1)).all():  # the sum alone may overflow
        *graph, row = (~finite).nonzero()[0].tolist()
        where = f" of graph {', '.join(map(str, graph))}" if graph else ""
        values = ", ".join(f"{v:g}" for v in boxes[(*graph, row)].tolist())
        raise UserError(f"box {row}{where} ({values}) is not finite: check the boxes (`check_boxes` names the sample)")
    return build_relations(boxes, thr, mode)


def pairs_that_differ(boxes: Float[Tensor, "*batch n 4"], thr: float = 0.5) -> int:
    """Number of ordered pairs whose label depends on the mode."""
    return int((relations(boxes, thr, "official") != relations(boxes, thr, "clean")).sum())


def head_table(context: int = 3) -> Bool[Tensor, "head relation"]:
    """Which relations head h may look along (section 3.2): its own, h + 1, and for a sector its neighbours too.

    Args:
        context: c, the number of adjacent sectors that a head sees; odd, 1 to 9.
    """
    bits = torch.tensor(subset_bits(context))
    return (bits[:, None] >> torch.arange(RELATIONS)) % 2 == 1


def head_masks(graph: UInt8[Tensor, "*batch n n"], context: int = 3) -> Bool[Tensor, "*batch n n head"]:
    """The graph as each head sees it. For pictures and counts: attention reads the bytes."""
    return head_table(context).T.to(graph.device)[graph.long()]


def mean_degree(graph: UInt8[Tensor, "*batch n n"]) -> float:
    """Edges to others for each box that is not padding; 0 where there is none."""
    boxes = int((graph == RELATIONS - 1).sum())
    return (int((graph != 0).sum()) - boxes) / boxes if boxes else 0.0


def permute_labels(
    graph: UInt8[Tensor, "*batch n n"], generator: torch.Generator | None = None
) -> UInt8[Tensor, "*batch n n"]:
    """Control: the labels of all pairs of different boxes, none included, dealt anew within each graph."""
    flat = graph.reshape(-1, *graph.shape[-2:]).clone()
    for one in flat:
        valid = one.diagonal() == RELATIONS - 1
        pairs = valid[:, None] & valid & ~torch.eye(len(one), dtype=torch.bool, device=one.device)
        labels = one[pairs]
        order = torch.randperm(len(labels), generator=generator).to(labels.device)
        one[pairs] = labels[order]
    return flat.view(graph.shape)


def check_boxes(boxes: Float[Tensor, "n 4"], sample_id: str, on_bad_box: str = "error") -> Float[Tensor, "n 4"]:
    """The boxes as float32, or a message that names the sample and the row.

    Args:
        boxes: normalised, as the user gave them.
        on_bad_box: `error`, or `clip`: corners are put in order and cut to the image, and the number is logged. A box
            that is not a number has no place to be cut to and is an error always.

    Raises:
        UserError: not [n, 4]; NaN or infinite; corners in the wrong order; more than 0.01 outside the image.
    """
    if on_bad_box not in ("error", "clip"):
        raise UserError(f"on_bad_box is {on_bad_box!r}: use error or clip")
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UserError(f"sample {sample_id}: boxes have shape {tuple(boxes.shape)}, expected (n, 4)")
    finite = boxes.isfinite().all(1)
    ordered = (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])
    within = ((boxes >= -MARGIN) & (boxes <= 1 + MARGIN)).all(1)
    for fine, what in (
        (finite, "is not finite"),
        (ordered, "has x_max < x_min or y_max < y_min"),
        (within, "lies outside the image (expected numbers from 0 to 1: divide by its width and height)"),
    ):
        if not fine.all() and (on_bad_box == "error" or fine is finite):
            row = int((~fine).nonzero()[0])
            values = ", ".join(f"{v:g}" for v in boxes[row].tolist())
            raise UserError(f"sample {sample_id}: box {row} ({values}) {what}")
    bad = ~(ordered & within)
    if bad.any():
        log.warning("sample %s: %d of %d boxes were put in order and cut to the image", sample_id, bad.sum(), len(bad))
        low, high = torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])
        boxes = torch.where(bad[:, None], torch.cat([low, high], 1).clamp(0, 1), boxes)
    return boxes
