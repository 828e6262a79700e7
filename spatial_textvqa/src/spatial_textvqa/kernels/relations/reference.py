"""Spatial relations between boxes in plain PyTorch: the definition (section 3 of the paper, its Fig. 3).

`R[i, j]` says where i is as seen from j; y points down. The first match wins:

    12 itself | 1 i contains j | 2 i is inside j | 3 they overlap, IoU >= 1/2 | 4..11 near: the sector of i around j | 0

Sectors are told by signs and by |dx| against |dy|, without trigonometry. The published builder compares rounded
arcsines; the two differ only where |dx| = |dy| to the last bit, where this one is exact: each sector is closed at its
upper angle.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

SELF, CONTAINS, INSIDE, OVERLAP, FIRST_SECTOR, NONE = 12, 1, 2, 3, 4, 0
MODES = ("official", "clean")
SQRT2 = math.sqrt(2.0)
FAR_KEY, OVERLAP_KEY, CONTAINS_KEY, INSIDE_KEY = 27, 28, 29, 30  # 0..26 are directions


def sector(x: int, y: int, flatter: int) -> int:
    """4..11: the eighth of the circle, (0, 45], (45, 90], ... degrees, in which (dx, dy) lies; 0 at (0, 0).

    Args:
        x, y: signs of dx and dy; flatter: sign of |dx| - |dy|.
    """
    if y > 0 and x >= 0:
        return FIRST_SECTOR + (flatter < 0)
    if x < 0 and y >= 0:
        return FIRST_SECTOR + 2 + (flatter > 0)
    if y < 0 and x <= 0:
        return FIRST_SECTOR + 4 + (flatter < 0)
    if x > 0 and y <= 0:
        return FIRST_SECTOR + 6 + (flatter > 0)
    return 0


def pair_labels(x: int, y: int, flatter: int, mode: str) -> tuple[int, int]:
    """`(R[i, j], R[j, i])` of a pair i < j that is near, by direction alone."""
    ours, theirs = sector(x, y, flatter), sector(-x, -y, flatter)
    if mode == "official":
        # Quirks of the published code, which evaluates the pair i < j and mirrors the label: an angle of 0 counts as
        # no sector at all (0 + 3), and of crossing boxes with one centre each is below and right of the other.
        if y == 0 and x > 0:
            return FIRST_SECTOR - 1, theirs
        if x == y == 0:
            return FIRST_SECTOR, FIRST_SECTOR
    elif x == y == 0:
        return OVERLAP, OVERLAP
    return ours, theirs


@cache
def label_table(mode: str, device: torch.device) -> Tensor:
    """uint8 [62]: R[i, j] by the key of (i, j), for i < j; then for i > j, the mirror of the pair (j, i)."""
    signs = (-1, 0, 1)
    directions = [(x, y, flatter) for x in signs for y in signs for flatter in signs]
    rest = [NONE, OVERLAP, CONTAINS, INSIDE]
    upper = [pair_labels(x, y, flatter, mode)[0] for x, y, flatter in directions]
    lower = [pair_labels(-x, -y, flatter, mode)[1] for x, y, flatter in directions]
    return torch.tensor([*upper, *rest, *lower, *rest], dtype=torch.uint8, device=device)


@cache
def lower_half(n: int, device: torch.device) -> Tensor:
    """int32 [n, n]: where the second half of the table begins, for i > j."""
    return torch.ones(n, n, dtype=torch.int32, device=device).tril(-1) * (INSIDE_KEY + 1)


def build_relations(boxes: Tensor, thr: float = 0.5, mode: str = "official") -> Tensor:
    """uint8 [..., n, n] of boxes [..., n, 4]; see the package's docstring."""
    x0, y0, x1, y1 = boxes.double().unbind(-1)
    i, j = (..., slice(None), None), (..., None, slice(None))  # rows and columns of R
    valid = (x0 + y0 + x1 + y1) != 0
    centre_x, centre_y, area = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) * (y1 - y0)

    # The first match wins, so the last written: direction, then overlap, then one inside the other.
    dx, dy = centre_x[i] - centre_x[j], centre_y[i] - centre_y[j]
    key = (dx.sign() * 9).add_(dy.sign(), alpha=3).add_((dx.abs() - dy.abs()).sign_()).add_(13).int()
    key.masked_fill_((dx * dx).add_(dy * dy).sqrt_() >= thr * SQRT2, FAR_KEY)
    width = torch.minimum(x1[i], x1[j]).sub_(torch.maximum(x0[i], x0[j])).clamp_min_(0)
    common = torch.minimum(y1[i], y1[j]).sub_(torch.maximum(y0[i], y0[j])).clamp_min_(0).mul_(width)
    union = (area[i] + area[j]).sub_(common)
    key.masked_fill_(common.div_(union) >= 0.5, OVERLAP_KEY)  # two boxes without area: 0 / 0 is not
    inside = (x0[i] > x0[j]).logical_and_(x1[i] < x1[j]).logical_and_(y0[i] > y0[j]).logical_and_(y1[i] < y1[j])
    key.masked_fill_(inside, INSIDE_KEY)
    key.masked_fill_(inside.mT, CONTAINS_KEY)
    key += lower_half(boxes.shape[-2], boxes.device)
    out = label_table(mode, boxes.device).index_select(0, key.flatten()).view(key.shape)
    out.diagonal(dim1=-2, dim2=-1).fill_(SELF)
    return out.mul_(valid[i] & valid[j])
