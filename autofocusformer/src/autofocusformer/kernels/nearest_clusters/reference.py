"""The nearest centres of every token in plain PyTorch, a tile of tokens at a time: the definition, and the CPU's."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 2.0**30  # squared distances within 1e-9 of one another are equal
TILE = 2**17  # distances that are in memory at a time: 1 MiB, and as much again to select from


def smallest(keys: Tensor, count: int) -> Tensor:
    """Ascending places of the `count` smallest entries of each row, of equal ones the first: [rows, count]."""
    bound = keys.topk(count, dim=-1, largest=False, sorted=False).values.amax(-1, keepdim=True)
    chosen = keys <= bound
    for row in (chosen.sum(-1) > count).nonzero().flatten().split(4096):  # too many are as near as the last
        equal = keys[row] == bound[row]
        room = count - (chosen[row] & ~equal).sum(-1, keepdim=True)
        chosen[row] &= ~equal | (equal.cumsum(-1) <= room)
    return chosen.nonzero()[:, 1].view(len(keys), count)


def nearest_clusters(positions: Tensor, centres: Tensor, nnc: int) -> Tensor:
    batch, n, _ = positions.shape
    near = torch.empty(batch, n, nnc, dtype=torch.long, device=positions.device)
    count = centres.shape[1]
    if nnc == count:  # all are near
        return near.copy_(torch.arange(count, device=near.device))
    step, images = max(1, TILE // count), max(1, TILE // max(1, n * count))  # several small images at a time
    for one in range(0, batch, images):
        centre = centres[one : one + images, None].double()
        for first in range(0, n, step):
            at = positions[one : one + images, first : first + step].double()
            squared = (at[..., :1] - centre[..., 0]).square_()
            squared.add_((at[..., 1:] - centre[..., 1]).square_()).mul_(STEPS).add_(0.5).floor_()
            found = smallest(squared.flatten(0, 1), nnc)
            near[one : one + images, first : first + step] = found.view(*squared.shape[:2], nnc)
    return near
