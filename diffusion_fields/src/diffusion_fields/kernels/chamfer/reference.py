"""Chamfer distances of all pairs of clouds in plain PyTorch: the definition (sections 7 and 8.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def chamfer(g: Tensor, r: Tensor) -> Tensor:
    """Mean squared distance to the nearest point of the other cloud, both ways, summed."""
    distances = (g[:, None] - r).square().sum(-1)
    return distances.amin(1).mean() + distances.amin(0).mean()


def chamfer_allpairs(G: Tensor, R: Tensor) -> Tensor:
    """`[n, m]`, a matrix of distances for each pair."""
    if not len(G) or not len(R):
        return G.new_empty(len(G), len(R))
    return torch.stack([torch.stack([chamfer(g, r) for r in R]) for g in G])
