"""`W gamma(x) + b` in plain PyTorch: the definition (sections 3 and 8.1), and the form for many points on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 2048  # points whose features are held at once


def bands(num_freq: int, freq_scale: float, like: Tensor) -> Tensor:
    """freq_scale 2^f, f = 0 ... F - 1."""
    return freq_scale * 2.0 ** torch.arange(num_freq, dtype=like.dtype, device=like.device)


def features(x: Tensor, num_freq: int, freq_scale: float = 1.0) -> Tensor:
    """gamma(x) = [x, sin(2^0 x), cos(2^0 x), ..., sin(2^{F-1} x), cos(2^{F-1} x)], each over all c coordinates."""
    angles = x[..., None, :] * bands(num_freq, freq_scale, x)[:, None]
    return torch.cat([x, torch.stack([angles.sin(), angles.cos()], -2).flatten(-3)], -1)


def slopes(x: Tensor, num_freq: int, freq_scale: float) -> Tensor:
    """Derivative of every feature by its own coordinate."""
    scale = bands(num_freq, freq_scale, x)[:, None]
    angles = x[..., None, :] * scale
    waves = torch.stack([scale * angles.cos(), -scale * angles.sin()], -2)
    return torch.cat([torch.ones_like(x), waves.flatten(-3)], -1)


def num_freq_of(W: Tensor, c: int) -> int:
    """F of a weight with c (1 + 2F) columns."""
    return (W.shape[1] // c - 1) // 2


def widened(x: Tensor, W: Tensor) -> Tensor:
    """Coordinates [rows, c] in the dtype of angles: float32, or float64 where x or W is."""
    return x.reshape(-1, x.shape[-1]).to(torch.promote_types(torch.promote_types(x.dtype, W.dtype), torch.float32))


def fourier_linear(x: Tensor, W: Tensor, b: Tensor, freq_scale: float = 1.0) -> Tensor:
    """`[rows, P]`: angles in float32 or wider, the product in the dtype of W."""
    x = widened(x, W)
    return F.linear(features(x, num_freq_of(W, x.shape[1]), freq_scale).to(W.dtype), W, b.to(W.dtype))


def by_chunks(x: Tensor, W: Tensor, b: Tensor, freq_scale: float) -> Tensor:
    """The definition, `CHUNK` points at a time."""
    y, b, num_freq = W.new_empty(len(x), len(W)), b.to(W.dtype), num_freq_of(W, x.shape[1])
    for s in range(0, len(x), CHUNK):
        gamma = features(x[s : s + CHUNK], num_freq, freq_scale).to(W.dtype)
        torch.addmm(b, gamma, W.mT, out=y[s : s + CHUNK])
    return y


def gradients_by_chunks(
    x: Tensor, W: Tensor, dy: Tensor, freq_scale: float, need_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`(dx, dW, db)`, features evaluated again; dx has no rows where it is not needed."""
    num_freq, wide = num_freq_of(W, x.shape[1]), torch.promote_types(W.dtype, torch.float32)
    dW, db = W.new_zeros(W.shape, dtype=wide), W.new_zeros(len(W), dtype=wide)
    dx = torch.empty_like(x if need_x else x[:0])
    for s in range(0, len(x), CHUNK):
        points, seeds = x[s : s + CHUNK], dy[s : s + CHUNK]
        dW += seeds.mT @ features(points, num_freq, freq_scale).to(W.dtype)
        db += seeds.sum(0, dtype=wide)
        if need_x:
            each = (seeds @ W).to(x.dtype) * slopes(points, num_freq, freq_scale)
            dx[s : s + CHUNK] = each.unflatten(1, (-1, x.shape[1])).sum(1)
    return dx, dW, db
