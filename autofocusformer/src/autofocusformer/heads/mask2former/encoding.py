"""Sine encoding of token positions, as in the published code of Mask2Former on points."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor

TEMPERATURE = 1e4


def sine_encoding(
    positions: Num[Tensor, "b n 2"], each: int, largest: Num[Tensor, "b 1 2"] | None = None
) -> Float[Tensor, "b n {2*each}"]:
    """x's half, then y's: sines of the even columns, then cosines of the odd ones.

    A coordinate is divided by `largest` and multiplied with 2 pi; column i of an axis has the wavelength
    2 pi 1e4^(2 floor(i / 2) / each).

    Args:
        each: features of an axis, an even number.
        largest: x and y that become 2 pi; None: the maximum over the whole batch, as in the published code.
    """
    at = positions.float()
    over = at.amax((0, 1)) if largest is None else largest.float()
    at = at / (over + 1e-6) * (2 * math.pi)
    column = torch.arange(each, device=at.device, dtype=torch.float32)
    angle = at[..., None] / TEMPERATURE ** (2 * (column // 2) / each)  # [b, n, 2, each]
    return torch.cat([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(2)


def encoding_by_image(positions: Num[Tensor, "b n 2"], each: int) -> Float[Tensor, "b n {2*each}"]:
    """The encoding over each image's own maximum: an image is encoded alike, whatever else is in its batch."""
    return sine_encoding(positions, each, positions.amax(1, keepdim=True))
