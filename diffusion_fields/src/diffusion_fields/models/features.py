"""The fixed features of the score network: coordinates and the diffusion step (specification, section 3).

    gamma(x) = [x, sin(2^0 x), cos(2^0 x), ..., sin(2^(F-1) x), cos(2^(F-1) x)]    p = c (1 + 2F) entries
    tau(t)   = [cos(t w_i), sin(t w_i)],  w_i = exp(-ln(10000) i / floor(p/2))     p entries, zero-padded when p is odd

Both are computed in the precision of what they are given (float32 at least), whatever autocast says: an angle in
bfloat16 is no angle.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffusion_fields.errors import FieldError

Normalize = Literal["none", "per_set"]


def fourier_features(
    x: Float[Tensor, "*batch point coord"],
    num_freq: int,
    freq_scale: float = 1.0,
    normalize: Normalize = "none",
    mask: Bool[Tensor, "*batch point"] | None = None,
) -> Float[Tensor, "*batch point feature"]:
    """gamma(x): the coordinates, then sine and cosine of each octave, every entry over all coordinates.

    Args:
        x: points, the last axis their coordinates.
        num_freq: the number F of octaves (0: the coordinates alone).
        freq_scale: multiplies every band (1 is the reference; pi makes the lowest band one period over [-1, 1]).
        normalize: ``per_set`` rescales every feature column to [-1, 1] over the point axis, as the reference code does:
            a coordinate's features then depend on which other points are present.
        mask: the valid points, the only ones that ``per_set`` looks at.
    """
    if num_freq < 0:
        raise FieldError(f"num_freq is {num_freq}: a number of frequency bands is 0 or more")
    if normalize not in ("none", "per_set"):
        raise FieldError(f"normalize is {normalize!r}: use 'none' or 'per_set'")
    angle = x.unsqueeze(-2) * (freq_scale * 2.0 ** torch.arange(num_freq, device=x.device, dtype=x.dtype)).unsqueeze(-1)
    waves = torch.stack((angle.sin(), angle.cos()), -2)  # (..., point, band, 2, coord)
    gamma = torch.cat((x, waves.flatten(-3)), -1)
    return _min_max(gamma, mask) if normalize == "per_set" else gamma


def _min_max(gamma: Tensor, mask: Tensor | None) -> Tensor:
    """Each feature column scaled to [-1, 1] over the (valid) points; a constant column becomes -1."""
    if mask is None:
        low, high = gamma.amin(-2, keepdim=True), gamma.amax(-2, keepdim=True)
    else:
        hidden = ~mask.unsqueeze(-1)
        low = gamma.masked_fill(hidden, math.inf).amin(-2, keepdim=True)
        high = gamma.masked_fill(hidden, -math.inf).amax(-2, keepdim=True)
    span = high - low
    return 2 * (gamma - low) / torch.where(span > 0, span, torch.ones_like(span)) - 1


def timestep_features(t: Tensor, dim: int) -> Float[Tensor, "*batch dim"]:
    """tau(t): cosines, then sines, of t at geometrically spaced frequencies; a zero column when ``dim`` is odd."""
    half = dim // 2
    dtype = t.dtype if t.dtype == torch.float64 else torch.float32
    frequencies = torch.exp(-math.log(10000.0) / max(half, 1) * torch.arange(half, device=t.device, dtype=dtype))
    angle = t.to(dtype).unsqueeze(-1) * frequencies
    tau = torch.cat((angle.cos(), angle.sin()), -1)
    return nn.functional.pad(tau, (0, dim - 2 * half))


class TrainableEmbedding(nn.Sequential):
    """gamma learned: c -> 128 -> 128 -> 128 with SiLU between, for intrinsic coordinates of many columns."""

    def __init__(self, coord_dim: int, width: int = 128) -> None:
        super().__init__(
            nn.Linear(coord_dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )
