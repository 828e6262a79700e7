"""Spatial relations between boxes in plain PyTorch: the definition (section 3 of the paper, its Fig. 3).

`R[i, j]` says where i is as seen from j; y points down. The first match wins:

    12 itself | 1 i contains j | 2 i is inside j | 3 they overlap, IoU >= 1/2 | 4..11 near: the sector of i around j | 0

Sectors are told by signs and by |dx| against |dy|, without trigonometry. The published builder compares rounded
arcsines; the two differ only where |dx| = |dy| to the last bit, where this one is exact: each sector is closed at its
upper angle.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SELF, CONTAINS, INSIDE, OVERLAP, FIRST_SECTOR, NONE = 12, 1, 2, 3, 4, 0
MODES = ("official", "clean")
SQRT2 = math.sqrt(2.0)


def sector(dx: Tensor, dy: Tensor) -> Tensor:
    """4..11: the eighth of the circle, (0, 45], (45, 90], ... degrees, in which (dx, dy) lies; 0 at (0, 0)."""
    flat, steep = dx.abs() > dy.abs(), dy.abs() > dx.abs()
    out = torch.zeros_like(dx, dtype=torch.uint8)
    quadrants = ((dy > 0) & (dx >= 0), (dx < 0) & (dy >= 0), (dy < 0) & (dx <= 0), (dx > 0) & (dy <= 0))
    for number, (inside, second) in enumerate(zip(quadrants, (steep, flat, steep, flat))):
        out += inside * (FIRST_SECTOR + 2 * number + second.to(torch.uint8))
    return out


def build_relations(boxes: Tensor, thr: float = 0.5, mode: str = "official") -> Tensor:
    """uint8 [..., n, n] of boxes [..., n, 4]; see the package's docstring."""
    boxes = boxes.double()
    valid = boxes.sum(-1) != 0
    x0, y0, x1, y1 = boxes.unbind(-1)
    i, j = (..., slice(None), None), (..., None, slice(None))  # rows and columns of R

    inside = (x0[i] > x0[j]) & (x1[i] < x1[j]) & (y0[i] > y0[j]) & (y1[i] < y1[j])
    width = (torch.minimum(x1[i], x1[j]) - torch.maximum(x0[i], x0[j])).clamp_min(0)
    common = width * (torch.minimum(y1[i], y1[j]) - torch.maximum(y0[i], y0[j])).clamp_min(0)
    area = (x1 - x0) * (y1 - y0)
    union = area[i] + area[j] - common
    overlap = (union > 0) & (common / torch.where(union > 0, union, 1) >= 0.5)

    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    dx, dy = centre_x[i] - centre_x[j], centre_y[i] - centre_y[j]
    near = (dx.square() + dy.square()).sqrt() < thr * SQRT2
    relation = sector(dx, dy)
    together = (dx == 0) & (dy == 0)
    if mode == "official":
        # Quirks of the published code, which evaluates the pair i < j and mirrors the label: an angle of 0 counts as
        # no sector at all (0 + 3), and of crossing boxes with one centre each is below and right of the other.
        upper = torch.ones(boxes.shape[-2], boxes.shape[-2], dtype=torch.bool, device=boxes.device).triu(1)
        relation.masked_fill_((dy == 0) & (dx > 0) & upper, FIRST_SECTOR - 1)
        relation.masked_fill_(together, FIRST_SECTOR)
    else:
        relation.masked_fill_(together, OVERLAP)
    relation *= near
    relation.masked_fill_(overlap, OVERLAP)
    relation.masked_fill_(inside, INSIDE)
    relation.masked_fill_(inside.mT, CONTAINS)
    relation.diagonal(dim1=-2, dim2=-1).fill_(SELF)
    return relation * (valid[i] & valid[j])
