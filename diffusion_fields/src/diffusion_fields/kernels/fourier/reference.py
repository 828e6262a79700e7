"""`W gamma(x) + b` in plain PyTorch: the definition (sections 3 and 8.1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bands(num_freq: int, freq_scale: float, like: Tensor) -> Tensor:
    """freq_scale 2^f, f = 0 ... F - 1."""
    return freq_scale * 2.0 ** torch.arange(num_freq, dtype=like.dtype, device=like.device)


def features(x: Tensor, num_freq: int, freq_scale: float = 1.0) -> Tensor:
    """gamma(x) = [x, sin(2^0 x), cos(2^0 x), ..., sin(2^{F-1} x), cos(2^{F-1} x)], each over all c coordinates."""
    angles = x[..., None, :] * bands(num_freq, freq_scale, x)[:, None]
    return torch.cat([x, torch.stack([angles.sin(), angles.cos()], -2).flatten(-3)], -1)


def num_freq_of(W: Tensor, c: int) -> int:
    """F of a weight with c (1 + 2F) columns."""
    return (W.shape[1] // c - 1) // 2


def fourier_linear(x: Tensor, W: Tensor, b: Tensor, freq_scale: float = 1.0) -> Tensor:
    """`[rows, P]`: angles in float32 or wider, the product in the dtype of W."""
    x = x.reshape(-1, x.shape[-1])
    wide = x.to(torch.promote_types(torch.promote_types(x.dtype, W.dtype), torch.float32))
    return F.linear(features(wide, num_freq_of(W, x.shape[1]), freq_scale).to(W.dtype), W, b.to(W.dtype))
