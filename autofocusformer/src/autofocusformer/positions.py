"""What a layer knows of where a neighbour lies (AutoFocusFormer, "relative position features").

Evaluated for each pair as it is needed: no table, hence no largest image.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

FEATURES = 5


def canvas_positions(h: int, w: int, device: torch.device | str | None = None) -> Int[Tensor, "n 2"]:
    """All (x, y) of a canvas in row-major order."""
    y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], -1)


def relative_features(offset: Int[Tensor, "*pairs 2"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "*pairs 5"]:
    """phi = (dx, dy, d, dy/d, dx/d) of offsets (dx, dy) = neighbour minus query, d their length; phi(0, 0) = 0.

    The order (x, y, distance, sine, cosine) is that of the released weights.
    """
    xy = offset.to(dtype)
    distance = xy.square().sum(-1, keepdim=True).sqrt()
    direction = xy / distance.clamp(min=1.0)  # offsets are whole numbers: a distance below 1 is 0
    return torch.cat([xy, distance, direction.flip(-1)], -1)
