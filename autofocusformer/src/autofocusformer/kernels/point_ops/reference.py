"""Sparse products by neighbour lists in plain PyTorch: the definition, by gathering. Lists may repeat an index."""

from __future__ import annotations

import torch
from torch import Tensor


def gathered(x: Tensor, idx: Tensor) -> Tensor:
    """x_idx: [b, H, n, M, e] of x [b, H, N, e] and lists [b, n, M]."""
    batch, heads, _, width = x.shape
    at = idx.long().flatten(1)[:, None, :, None].expand(-1, heads, -1, width)
    return x.gather(2, at).view(batch, heads, *idx.shape[1:], width)


def qk(q: Tensor, k: Tensor, idx: Tensor) -> Tensor:
    return (q[:, :, :, None] * gathered(k, idx)).sum(-1)


def av(a: Tensor, v: Tensor, idx: Tensor) -> Tensor:
    return torch.einsum("bhnm,bhnme->bhne", a, gathered(v, idx))


def wf(w: Tensor, x: Tensor, idx: Tensor) -> Tensor:
    return torch.einsum("bnmr,bnmc->bnrc", w, gathered(x[:, None], idx)[:, 0])
