"""Whom a point attends to (AutoFocusFormer, "neighbourhood"): the members of the clusters whose centres are nearest.

The lists are each point's own, not its cluster's: members of one cluster almost never have the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from autofocusformer.clustering import Clusters
from autofocusformer.kernels.cluster_attention import members
from autofocusformer.kernels.nearest_clusters import nearest_clusters

__all__ = ["Neighbourhood", "members", "nearest_clusters", "neighbourhood", "neighbours_of"]


class Neighbourhood(NamedTuple):
    """What all blocks of a stage share.

    Attributes:
        positions: (x, y) of the points, in the clusters' order.
        near: the nearest clusters of each point, ascending; None where all attend to all.
        size: members of a cluster.
    """

    positions: Int[Tensor, "batch n 2"]
    near: Int[Tensor, "batch n nnc"] | None
    size: int


def neighbourhood(
    positions: Int[Tensor, "batch n 2"], clusters: Clusters, nnc: int, shared: bool = False
) -> Neighbourhood:
    """The nnc nearest clusters by Euclidean distance from each point; equal distances: the lower cluster first.

    Args:
        positions: in the clusters' order.
        shared: one list for each cluster, from its centre, instead: fewer gathers, another model, not the paper's.
    """
    if not shared:
        return Neighbourhood(positions, nearest_clusters(positions, clusters.centres, nnc), clusters.size)
    near = nearest_clusters(clusters.centres, clusters.centres, nnc)
    return Neighbourhood(
        positions, near.repeat_interleave(clusters.size, 1)[:, : positions.shape[1]].contiguous(), clusters.size
    )


def neighbours_of(
    around: Neighbourhood, rows: Int[Tensor, "batch q"]
) -> tuple[Int[Tensor, "batch q M"], Bool[Tensor, "batch q M"]]:
    """Neighbours of some of the points, for the merging: all points where the stage is global."""
    batch, n, _ = around.positions.shape
    if around.near is None:
        everyone = torch.arange(n, device=rows.device).expand(batch, rows.shape[1], n)
        return everyone, torch.ones_like(everyone, dtype=torch.bool)
    nnc = around.near.shape[-1]
    return members(around.near.gather(1, rows[..., None].expand(-1, -1, nnc)).long(), around.size, n)
