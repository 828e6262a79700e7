"""Spatial relations between boxes in plain PyTorch: the definition (section 3 of the paper, its Fig. 3).

`R[i, j]` says where i is as seen from j; y points down. The first match wins:

    12 itself | 1 i contains j | 2 i is inside j | 3 they overlap, IoU >= 1/2 | 4..11 near: the sector of i around j | 0

Sectors are told by signs and by |dx| against |dy|, without trigonometry. The published builder compares rounded
arcsines. Where |dx| = |dy| to the last bit the two may differ: this one is exact, each sector closed at its upper
angle. Where a pair is so close to an axis that its distance rounds to |dx| or |dy|, the published rounding is followed
in `official` mode (`on_an_axis`).
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

SELF, CONTAINS, INSIDE, OVERLAP, FIRST_SECTOR, NONE = 12, 1, 2, 3, 4, 0
MODES = ("official", "clean")
SQRT2 = math.sqrt(2.0)
# A pair's key: 9 sign(dx) + 3 sign(dy) + sign(|dx| - |dy|), and one digit for each condition, -4..4 for `side`.
FAR, OVERLAPS, SIDE, HALF, ZERO = 27, 81, 243, 2187, 4 * 243 + 81 + 27 + 13
NARROW = 1e-7  # two centres closer than this on one axis, and not equal, may lie on an axis by rounding


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
    """uint8 [2 HALF]: R[i, j] by the key of (i, j), for i < j; then for i > j, the mirror of the pair (j, i)."""
    signs = (-1, 0, 1)
    directions = [(x, y, flatter) for x in signs for y in signs for flatter in signs]
    upper = [pair_labels(x, y, flatter, mode)[0] for x, y, flatter in directions]
    lower = [pair_labels(-x, -y, flatter, mode)[1] for x, y, flatter in directions]
    labels = []
    for near in (upper, lower):
        for side in range(-4, 5):
            for overlaps in signs:
                for far in signs:
                    if abs(side) == 4:
                        labels += [INSIDE if side > 0 else CONTAINS] * len(near)
                    elif overlaps >= 0:
                        labels += [OVERLAP] * len(near)
                    else:
                        labels += [NONE] * len(near) if far >= 0 else near
    return torch.tensor(labels, dtype=torch.uint8, device=device)


@cache
def first_key(n: int, device: torch.device) -> Tensor:
    """int32 [n, n]: where the key 0 of a pair lies in the table; for i > j in its second half."""
    return torch.ones(n, n, dtype=torch.int32, device=device).tril(-1) * HALF + ZERO


@cache
def least_square(limit: float) -> float:
    """The least double whose rounded root is not below `limit`: squares compare as their roots do."""
    square = limit * limit
    while math.sqrt(square) >= limit:
        square = math.nextafter(square, 0)
    while math.sqrt(square) < limit:
        square = math.nextafter(square, math.inf)
    return square


def on_an_axis(R: Tensor, centre: Tensor) -> None:
    """Follow the published rounding in place: dy / dist or dx / dist is -1 there, though the other is not 0.

    Args:
        R: [n, n]; centre: [2, n].
    """
    dx, dy = centre[..., :, None] - centre[..., None, :]
    distance = (dx * dx + dy * dy).sqrt()
    sector_of_pair = torch.ones_like(R, dtype=torch.bool).triu(1) & (R >= FIRST_SECTOR) & (R < SELF) & (dy < 0)
    for axis, label, mirror in (((dx < 0) & (distance == -dx), 7, 3), ((dx > 0) & (distance == -dy), 9, 5)):
        pair = axis & sector_of_pair
        R.masked_fill_(pair, label).masked_fill_(pair.mT, mirror)


def build_relations(boxes: Tensor, thr: float = 0.5, mode: str = "official") -> Tensor:
    """uint8 [..., n, n] of boxes [..., n, 4]; see the package's docstring."""
    shape = boxes.shape[:-1]
    graphs = boxes.reshape(math.prod(shape[:-1]), *boxes.shape[-2:])
    if not boxes.numel():
        return torch.zeros(*shape, shape[-1], dtype=torch.uint8, device=boxes.device)
    # One after the other: the tables of one graph stay in the processor's cache, those of a batch do not.
    return torch.stack([relations_of(graph, thr, mode) for graph in graphs]).view(*shape, shape[-1])


def relations_of(boxes: Tensor, thr: float, mode: str) -> Tensor:
    """uint8 [n, n] of boxes [n, 4]."""
    n, device = len(boxes), boxes.device
    i, j = (..., slice(None), None), (..., None, slice(None))  # rows and columns of R
    corners = boxes.T.contiguous()  # [4, n]: numbers of one kind lie side by side
    low, high = corners[:2], corners[2:]
    side = (low[i] - low[j]).sign_().add_((high[j] - high[i]).sign_())  # a sign is exact in the boxes' own precision
    side = side[0].add_(side[1])  # 4: i is inside j, -4: it contains j
    low, high = low.double(), high.double()
    valid = ((low[0] + low[1] + high[0] + high[1]) != 0).to(torch.uint8)
    centre, size = (low + high) / 2, high - low

    # Tables of pairs are written over one another: at this size their memory costs more than the arithmetic.
    offset = centre[i] - centre[j]
    length = offset.abs()
    key = (length[0] - length[1]).sign_()
    key.add_(length.square_()[0].add_(length[1]).sub_(least_square(thr * SQRT2)).sign_(), alpha=FAR)
    key.add_(offset.sign_()[0], alpha=9).add_(offset[1], alpha=3).add_(side, alpha=SIDE)
    common = torch.minimum(high[i], high[j], out=length).sub_(torch.maximum(low[i], low[j], out=offset)).clamp_min_(0)
    common = common[0].mul_(common[1])
    area = (size[0] * size[1]).clamp_min_(1e-300)  # two boxes without area do not overlap
    union = torch.add(area[i], area[j], out=offset[0]).sub_(common)
    key.sub_(union.sub_(common, alpha=2).sign_(), alpha=OVERLAPS)  # IoU >= 1/2 without a division
    R = label_table(mode, device).index_select(0, key.int().add_(first_key(n, device)).flatten()).view(n, n)
    if mode == "official":
        gaps = centre.sort(-1).values.diff()
        if ((gaps > 0) & (gaps < NARROW)).any():
            on_an_axis(R, centre)
    R.diagonal(dim1=-2, dim2=-1).fill_(SELF)
    return R.mul_(valid[i]).mul_(valid[j])
