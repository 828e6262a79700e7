"""Relative position features of pairs of points, as attention and merging evaluate them on the fly.

For an offset (dx, dy) the features are phi = (dx, dy, d, dy/d, dx/d) with d = sqrt(dx^2 + dy^2), and phi(0, 0) = 0.
The order is that of the released weights: x, y, distance, sine, cosine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

FEATURES = 5


def write_features(dx: Float[Tensor, " *s"], dy: Float[Tensor, " *s"], out: Float[Tensor, 5 * s]) -> None:
    """phi of offsets, in cells of the canvas, written over the first axis of `out`. Offsets are whole numbers."""
    out[0], out[1] = dx, dy
    distance = torch.mul(out[0], out[0], out=out[2])  # squares of whole numbers below 2^12 are exact in float32
    distance.addcmul_(out[1], out[1]).sqrt_()
    inverse = distance.clamp_min(1.0).reciprocal_()  # no two points are nearer than 1, but for a point and itself
    torch.mul(out[1], inverse, out=out[3])
    torch.mul(out[0], inverse, out=out[4])


def features(dx: Float[Tensor, " *s"], dy: Float[Tensor, " *s"]) -> Float[Tensor, 5 * s]:
    """phi of offsets (dx, dy)."""
    out = dx.new_empty(FEATURES, *torch.broadcast_shapes(dx.shape, dy.shape))
    write_features(dx, dy, out)
    return out
