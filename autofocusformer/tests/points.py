"""Points in clusters for the kernels' tests; needs nothing but PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def clustered_points(batch: int, n: int, size: int, nnc: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, each image's own and no two alike, ordered so that rows of `size` are near; centres; nearest lists."""
    generator = torch.Generator().manual_seed(seed)
    side = int(n**0.5) + 3
    at = torch.stack([torch.randperm(side * side, generator=generator)[:n] for _ in range(batch)])
    x, y = at % side, at // side
    order = (y // 3 * side + torch.where(y // 3 % 2 == 0, x, side - x)).argsort(dim=1, stable=True)
    positions = torch.stack([x.gather(1, order), y.gather(1, order)], -1)
    count = -(-n // size)
    centres = torch.stack([p.double().mean(1) for p in positions.split(size, 1)], 1)
    distance = (positions[:, :, None].double() - centres[:, None]).square().sum(-1)
    near = distance.argsort(dim=-1, stable=True)[..., : min(nnc, count)].sort(-1).values
    return positions, centres, near
