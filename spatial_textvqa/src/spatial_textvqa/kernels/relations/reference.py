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
    """uint8 [2 HALF]: R[i, j] + 16 R[j, i] by the key of (i, j), for i < j; then the same for i > j."""
    signs = (-1, 0, 1)
    directions = [(x, y, flatter) for x in signs for y in signs for flatter in signs]
    near = [pair_labels(x, y, flatter, mode) for x, y, flatter in directions]
    # The pair i > j is the pair (j, i), whose direction is the opposite, told the other way round.
    turned = [pair_labels(-x, -y, flatter, mode)[::-1] for x, y, flatter in directions]
    labels: list[tuple[int, int]] = []
    for by_direction in (near, turned):
        for side in range(-4, 5):
            for overlaps in signs:
                for far in signs:
                    if abs(side) == 4:
                        labels += [(INSIDE, CONTAINS) if side > 0 else (CONTAINS, INSIDE)] * len(near)
                    elif overlaps >= 0:
                        labels += [(OVERLAP, OVERLAP)] * len(near)
                    else:
                        labels += [(NONE, NONE)] * len(near) if far >= 0 else by_direction
    return torch.tensor([ours + 16 * theirs for ours, theirs in labels], dtype=torch.uint8, device=device)


@cache
def first_key(n: int, device: torch.device) -> Tensor:
    """int32 [n, n // 2]: where key 0 of the pair (i, i + s mod n) lies in the table: for i > j in its second half."""
    i, s = torch.arange(n, device=device)[:, None], torch.arange(1, n // 2 + 1, device=device)
    return ((i + s >= n) * HALF + ZERO).int()


@cache
def outward(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Signs that make a box's corners (x_min, y_min, -x_max, -y_max): of two boxes the one inside has the larger."""
    return torch.tensor([1, 1, -1, -1], dtype=dtype, device=device)


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
    R = torch.empty(*shape, shape[-1], dtype=torch.uint8, device=boxes.device)
    if boxes.numel():
        with torch.inference_mode():  # a tenth of the time is autograd's bookkeeping; R itself is a tensor as any
            # One after the other: the tables of one graph stay in the processor's cache, those of a batch do not.
            for graph, out in zip(boxes.reshape(-1, *boxes.shape[-2:]), R.view(-1, *R.shape[-2:])):
                relations_of(graph, thr, mode, out)
    return R


def pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """x of i and of j = i + s mod n, s = 1 .. n // 2: every two boxes meet once (twice at s = n / 2).

    Args:
        x: [k, n].

    Returns:
        Views [k, n, 1] and [k, n, n // 2]: row i of the second starts at i + 1 in x written twice, nothing is gathered.
    """
    k, n = x.shape
    return x[:, :, None], torch.cat([x, x], 1).as_strided((k, n, n // 2), (2 * n, 1, 1), 1)


def relations_of(boxes: Tensor, thr: float, mode: str, R: Tensor) -> None:
    """Fill R, uint8 [n, n], for boxes [n, 4]."""
    n, device = len(boxes), boxes.device
    corners = (boxes * outward(boxes.dtype, device)).T.contiguous()  # numbers of one kind lie side by side
    i, j = pairs(corners)
    side = (i - j).sign_()  # a sign is exact in the boxes' own precision
    side = side[:2].add_(side[2:])
    side = side[0].add_(side[1])  # 4: i is inside j, -4: it contains j
    corners = corners.double()
    low, minus_high = corners[:2], corners[2:]
    valid = (low[0] + low[1] - minus_high[0] - minus_high[1]) != 0
    centre, minus_size = (low - minus_high).div_(2), low + minus_high
    area = (minus_size[0] * minus_size[1]).clamp_min_(1e-300)  # two boxes without area do not overlap

    # Tables of pairs are written over one another: at this size their memory costs more than the arithmetic.
    i, j = pairs(torch.cat([corners, centre, area[None]]))
    offset = i[4:6] - j[4:6]
    length = offset.abs()
    dx, dy = length[0], length[1]
    key = (dx - dy).sign_()
    length.square_()
    key.add_(dx.add_(dy).sub_(least_square(thr * SQRT2)).sign_(), alpha=FAR)
    offset.sign_()
    key.add_(offset[0], alpha=9).add_(offset[1], alpha=3).add_(side, alpha=SIDE)
    inner = torch.maximum(i[:4], j[:4])  # the box that both share, and minus its size
    common = inner[:2].add_(inner[2:]).clamp_max_(0)
    common = common[0].mul_(common[1])
    union = torch.add(i[6], j[6], out=inner[2]).sub_(common)
    key.sub_(union.sub_(common, alpha=2).sign_(), alpha=OVERLAPS)  # IoU >= 1/2 without a division
    both = label_table(mode, device).index_select(0, key.int().add_(first_key(n, device)).view(-1))

    # Row i of `both` belongs into columns i + 1 ... of row i, around the end; its upper halves into the mirror.
    around = torch.zeros(n, 2 * n, dtype=torch.uint8, device=device)
    around.as_strided((n, n // 2), (2 * n + 1, 1), 1).copy_(both.view(n, n // 2))
    both = around[:, :n] | around[:, n:]
    torch.bitwise_or(both & 15, (both >> 4).T, out=R)
    if mode == "official" and n > 1:
        ordered = centre.sort(-1).values
        gaps = ordered[:, 1:] - ordered[:, :-1]
        if gaps.masked_fill_(gaps == 0, 1).min().item() < NARROW:
            on_an_axis(R, centre)
    R.diagonal().fill_(SELF)
    R.mul_(valid[:, None]).mul_(valid)
