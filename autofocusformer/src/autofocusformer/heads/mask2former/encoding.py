"""Sine encoding of token positions (section 3.2 of the specification of Mask2Former on points)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor

TEMPERATURE = 1e4


def sine_encoding(positions: Num[Tensor, "b n 2"], each: int) -> Float[Tensor, "b n {2*each}"]:
    """x's half, then y's: sines of the even columns, then cosines of the odd ones.

    A coordinate is divided by its maximum over the whole batch and multiplied with 2 pi; column i of an axis has the
    wavelength 2 pi 1e4^(2 floor(i / 2) / each).

    Args:
        each: features of an axis, an even number.
    """
    at = positions.float()
    at = at / (at.amax((0, 1)) + 1e-6) * (2 * math.pi)
    column = torch.arange(each, device=at.device, dtype=torch.float32)
    angle = at[..., None] / TEMPERATURE ** (2 * (column // 2) / each)  # [b, n, 2, each]
    return torch.cat([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(2)
