"""The plain form of the network's operators: every neighbour gathered into a tensor of its own.

What a first implementation in PyTorch does, and what the package's CPU path is measured against. Same signatures as the
functions of `autofocusformer.kernels`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _members(near: Tensor | None, size: int, batch: int, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    if near is None:
        idx = torch.arange(n, device=device).expand(batch, n, n)
        return idx, torch.ones_like(idx, dtype=torch.bool)
    idx = (near.long()[..., None] * size + torch.arange(size, device=device)).flatten(-2)
    return idx.where(idx < n, 0), idx < n


def _features(offset: Tensor, dtype: torch.dtype) -> Tensor:
    xy = offset.to(dtype)
    distance = xy.square().sum(-1, keepdim=True).sqrt()
    return torch.cat([xy, distance, (xy / distance.clamp(min=1.0)).flip(-1)], -1)


def _gather(x: Tensor, idx: Tensor) -> Tensor:
    """x [batch, n, *], idx [batch, q, M] -> [batch, q, M, *]."""
    return x[torch.arange(len(x), device=x.device)[:, None, None], idx]


def cluster_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    near: Tensor | None,
    pos_weight: Tensor,
    pos_bias: Tensor,
    blank_k: Tensor,
    blank_v: Tensor,
    size: int,
) -> Tensor:
    """q, k, v [B, H, n, e] -> [B, H, n, e]; keeps K and V [B, H, n, M, e] and the logits [B, H, n, M]."""
    batch, _, n, _ = q.shape
    idx, valid = _members(near, size, batch, n, q.device)
    keys = _gather(k.transpose(1, 2), idx).permute(0, 3, 1, 2, 4)
    values = _gather(v.transpose(1, 2), idx).permute(0, 3, 1, 2, 4)
    phi = _features(_gather(positions, idx) - positions[:, :, None], q.dtype)
    logits = (q[..., None, :] * keys).sum(-1)
    logits = logits + torch.nn.functional.linear(phi, pos_weight, pos_bias).permute(0, 3, 1, 2)
    logits = logits - 100.0 * (~valid)[:, None].to(q.dtype)
    blank = (q * blank_k[:, None]).sum(-1, keepdim=True)
    attention = torch.cat([logits, blank], -1).softmax(-1)
    return (attention[..., :-1, None] * values).sum(-2) + attention[..., -1:] * blank_v[:, None]


def point_merge(
    x: Tensor,
    prob: Tensor,
    positions: Tensor,
    kept: Tensor,
    idx: Tensor,
    valid: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> Tensor:
    """x [B, n, c] -> [B, n', 4, c]; keeps the gathered points [B, n', M, c] and their weights [B, n', M, 4]."""
    here = positions.gather(1, kept[..., None].expand(-1, -1, 2))
    phi = _features(_gather(positions, idx) - here[:, :, None], x.dtype)
    inner = torch.nn.functional.linear(phi, weight, bias)
    inner = torch.nn.functional.gelu(torch.nn.functional.layer_norm(inner, (4,), norm_weight, norm_bias))
    inner = inner * (_gather(prob, idx) * valid)[..., None]
    return inner.transpose(-1, -2) @ _gather(x, idx)


def nearest_clusters(positions: Tensor, centres: Tensor, nnc: int) -> Tensor:
    """The table of all distances, and the nnc least of each row, the lower index first where they are equal."""
    squared = (positions.double()[:, :, None] - centres.double()[:, None]).square().sum(-1)
    squared = (squared * 1e9).round()
    return squared.sort(dim=-1, stable=True).indices[..., :nnc].sort(-1).values
