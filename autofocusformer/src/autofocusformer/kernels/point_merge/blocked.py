"""The same merging for the CPU, a block of kept tokens at a time: what is gathered outlives no block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..offsets import FEATURES, features
from .reference import INNER, rows_of

BLOCK = 2**18  # gathered entries in memory at a time
EPS = 1e-5


@dataclass(frozen=True)
class Pairs:
    """A block of rows of [B n'], their neighbours, and the steps from offsets to weights, each [4 or 5, T, M]."""

    rows: slice
    neighbours: Tensor
    phi: Tensor
    normed: Tensor
    scale: Tensor  # 1 / sqrt(var + eps), [T, M]
    before: Tensor  # what GELU is taken of
    weights: Tensor
    factor: Tensor  # s_j where j is valid, else 0: [T, M]


def layer_norm_of(z: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised over the first axis, and the factor."""
    centred = z - z.mean(0)
    scale = (centred.square().mean(0) + EPS).rsqrt()
    return centred * scale, scale


def flat(idx: Tensor, n: int) -> Tensor:
    """Rows of [B n] of each image's rows."""
    image = torch.arange(len(idx), device=idx.device).view(-1, *[1] * (idx.ndim - 1))
    return (idx + image * n).flatten(0, 1)


def blocks(
    x: Tensor, prob: Tensor, positions: Tensor, kept: Tensor, idx: Tensor, valid: Tensor, weight: Tensor, bias: Tensor,
    norm_weight: Tensor, norm_bias: Tensor,
) -> Iterator[Pairs]:  # fmt: skip
    n, dtype = x.shape[1], torch.promote_types(x.dtype, torch.float32)
    at = positions.flatten(0, 1).to(dtype)
    mine, rows, real = rows_of(positions, kept).flatten(0, 1).to(dtype), flat(idx, n), valid.flatten(0, 1)
    importance = prob.flatten().to(dtype)
    matrix, shift = weight.to(dtype), bias.to(dtype)[:, None, None]
    gain, offset = (v.to(dtype)[:, None, None] for v in (norm_weight, norm_bias))
    count, neighbours = rows.shape
    step = max(1, BLOCK // (neighbours * max(x.shape[2], 2 * INNER)))
    for first in range(0, count, step):
        part = slice(first, min(first + step, count))
        flat_rows = rows[part].flatten()
        dx, dy = (at.index_select(0, flat_rows).view(-1, neighbours, 2) - mine[part, None]).unbind(-1)
        phi = features(dx, dy)
        z = (matrix @ phi.view(FEATURES, -1)).view(INNER, *dx.shape) + shift
        normed, scale = layer_norm_of(z)
        before = normed * gain + offset
        factor = importance.index_select(0, flat_rows).view(dx.shape) * real[part]
        yield Pairs(part, flat_rows, phi, normed, scale, before, torch.nn.functional.gelu(before), factor)


def forward(
    x: Tensor, prob: Tensor, positions: Tensor, kept: Tensor, idx: Tensor, valid: Tensor, weight: Tensor, bias: Tensor,
    norm_weight: Tensor, norm_bias: Tensor,
) -> Tensor:  # fmt: skip
    batch, _, width = x.shape
    out = x.new_empty(batch * kept.shape[1], INNER, width)
    table = x.flatten(0, 1)
    for pairs in blocks(x, prob, positions, kept, idx, valid, weight, bias, norm_weight, norm_bias):
        gathered = table.index_select(0, pairs.neighbours).to(pairs.phi.dtype).view(*pairs.factor.shape, width)
        out[pairs.rows] = torch.bmm((pairs.weights * pairs.factor).transpose(0, 1), gathered).to(x.dtype)
    return out.view(batch, kept.shape[1], INNER, width)


def gelu_slope(y: Tensor) -> Tensor:
    """Derivative of GELU: Phi(y) + y phi(y)."""
    return 0.5 * (1 + torch.erf(y / math.sqrt(2))) + y * torch.exp(-0.5 * y * y) / math.sqrt(2 * math.pi)


def backward(
    grad: Tensor, x: Tensor, prob: Tensor, positions: Tensor, kept: Tensor, idx: Tensor, valid: Tensor, weight: Tensor,
    bias: Tensor, norm_weight: Tensor, norm_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients by x, prob, weight, bias, norm_weight, norm_bias."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    width = x.shape[2]
    table, given = x.flatten(0, 1), grad.flatten(0, 1).to(dtype)
    by_x, by_prob = torch.zeros_like(table, dtype=dtype), torch.zeros_like(prob, dtype=dtype).flatten()
    by_weight = torch.zeros_like(weight, dtype=dtype)
    by_bias, by_gain, by_offset = (torch.zeros_like(bias, dtype=dtype) for _ in range(3))
    gain = norm_weight.to(dtype)[:, None, None]
    for pairs in blocks(x, prob, positions, kept, idx, valid, weight, bias, norm_weight, norm_bias):
        gathered = table.index_select(0, pairs.neighbours).to(dtype).view(*pairs.factor.shape, width)
        upstream = given[pairs.rows]  # [T, 4, c]
        scaled = (pairs.weights * pairs.factor).permute(1, 2, 0)
        by_x.index_add_(0, pairs.neighbours, torch.bmm(scaled, upstream).flatten(0, 1))
        by_scaled = torch.bmm(upstream, gathered.transpose(1, 2)).transpose(0, 1)  # [4, T, M]
        # s_j is masked as the weights are: an invalid neighbour's factor is 0 whatever its s.
        real = valid.flatten(0, 1)[pairs.rows]
        by_prob.index_add_(0, pairs.neighbours, ((by_scaled * pairs.weights).sum(0) * real).flatten())
        by_before = by_scaled * pairs.factor * gelu_slope(pairs.before)
        by_gain += (by_before * pairs.normed).sum((1, 2))
        by_offset += by_before.sum((1, 2))
        by_normed = by_before * gain
        by_z = by_normed - by_normed.mean(0) - pairs.normed * (by_normed * pairs.normed).mean(0)
        by_z *= pairs.scale
        by_bias += by_z.sum((1, 2))
        by_weight += by_z.reshape(INNER, -1) @ pairs.phi.view(FEATURES, -1).T
    return (
        by_x.view(x.shape).to(x.dtype),
        by_prob.view(prob.shape).to(prob.dtype),
        by_weight.to(weight.dtype),
        by_bias.to(bias.dtype),
        by_gain.to(norm_weight.dtype),
        by_offset.to(norm_bias.dtype),
    )
