"""Random points in clusters, for the checks and benchmarks of the kernels; needs nothing but PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .nearest_clusters.reference import nearest_clusters


def clustered_points(
    generator: torch.Generator, batch: int, n: int, size: int, nnc: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions [b, n, 2], no two of an image alike, in an order in which rows of `size` are near; centres; lists."""
    side = int(n**0.5) + 3
    at = torch.stack([torch.randperm(side * side, generator=generator)[:n] for _ in range(batch)])
    x, y = at % side, at // side
    order = (y // 3 * side + torch.where(y // 3 % 2 == 0, x, side - x)).argsort(dim=1, stable=True)
    positions = torch.stack([x.gather(1, order), y.gather(1, order)], -1)
    centres = torch.stack([p.double().mean(1) for p in positions.split(size, 1)], 1)
    return positions, centres, nearest_clusters(positions, centres, min(nnc, centres.shape[1]))
