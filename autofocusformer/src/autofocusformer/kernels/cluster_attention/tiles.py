"""Tiles of consecutive tokens, and the clusters that any token of a tile attends to.

Tokens lie in the order of the clusters, so neighbours in memory share most of their clusters: 16 tokens with 6 clusters
each name about 12 different ones. A tile loads these once; each token then masks those that are not its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Int

TILE = 16


def padded(near: Int[Tensor, "b n nnc"], tile: int) -> Int[Tensor, "b tiles tile*nnc"]:
    """Lists of the tokens of each tile; the last tile is filled up with its last token."""
    batch, n, nnc = near.shape
    missing = -n % tile
    if missing:
        near = torch.cat([near, near[:, -1:].expand(-1, missing, -1)], 1)
    return near.reshape(batch, -1, tile * nnc)


def unions(near: Int[Tensor, "b n nnc"], tile: int = TILE) -> tuple[Int[Tensor, "b tiles U"], Int[Tensor, "b tiles"]]:
    """Ascending clusters of each tile, padded with -1, and how many there are."""
    lists = padded(near, tile).sort(-1).values
    fresh = torch.ones_like(lists, dtype=torch.bool)
    fresh[..., 1:] = lists[..., 1:] != lists[..., :-1]
    place = fresh.cumsum(-1) - 1
    out = torch.full_like(lists, -1)
    out.scatter_(-1, place, lists)  # equal ones are written to one place
    return out, place[..., -1] + 1


def inverse(
    union: Int[Tensor, "b tiles U"], together: int, groups: int
) -> tuple[Int[Tensor, " uses"], Int[Tensor, " groups_of_all_images_and_1"]]:
    """`(users, starts)`: the tiles, ascending, that use group g of image i are `users[starts[i groups + g] : ...]`.

    Args:
        union: ascending clusters of each tile, -1 behind the last.
        together: clusters of a group.
        groups: of an image.
    """
    batch, tiles, _ = union.shape
    group = torch.div(union, together, rounding_mode="floor")
    fresh = union >= 0
    fresh[..., 1:] &= group[..., 1:] != group[..., :-1]
    image = torch.arange(batch, device=union.device)[:, None, None] * groups
    key = torch.where(fresh, group + image, batch * groups).flatten()
    tile = torch.arange(tiles, device=union.device)[None, :, None].expand_as(union).flatten()
    key, order = key.sort(stable=True)
    starts = torch.searchsorted(key, torch.arange(batch * groups + 1, device=union.device))
    return tile[order].to(torch.int32), starts.to(torch.int32)
