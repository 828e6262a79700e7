"""Attention to the members of each token's nearest clusters in plain PyTorch: the definition, by gathering."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..offsets import features

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Bool, Float, Int


def members(near: Int[Tensor, "b n nnc"], size: int, n: int) -> tuple[Int[Tensor, "b n M"], Bool[Tensor, "b n M"]]:
    """Rows of the members of each token's clusters, and which are real: the last cluster may have blank slots."""
    slots = torch.arange(size, device=near.device)
    idx = (near.long()[..., None] * size + slots).flatten(2)  # near may be of 16 bits, which rows are not
    valid = idx < n
    return torch.where(valid, idx, 0), valid


def everyone(batch: int, n: int, device: torch.device) -> tuple[Int[Tensor, "b n n"], Bool[Tensor, "b n n"]]:
    """Neighbours of a global stage: all tokens."""
    idx = torch.arange(n, device=device).expand(batch, n, n)
    return idx, torch.ones_like(idx, dtype=torch.bool)


def rows_of(x: Float[Tensor, "b H n e"], idx: Int[Tensor, "b n M"]) -> Float[Tensor, "b H n M e"]:
    """x_idx, one row for each neighbour."""
    batch, heads, _, width = x.shape
    at = idx.flatten(1)[:, None, :, None].expand(-1, heads, -1, width)
    return x.gather(2, at).view(batch, heads, *idx.shape[1:], width)


def cluster_attention(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor, near: Tensor | None, pos_weight: Tensor, pos_bias: Tensor,
    blank_k: Tensor, blank_v: Tensor, size: int,
) -> Tensor:  # fmt: skip
    """softmax over M + 1 logits, the blank last; blank slots of the last cluster are left out."""
    batch, _, n, _ = q.shape
    idx, valid = everyone(batch, n, q.device) if near is None else members(near, size, n)
    at = positions.gather(1, idx.flatten(1)[..., None].expand(-1, -1, 2)).view(*idx.shape, 2)
    dx, dy = (at - positions[:, :, None]).to(torch.promote_types(pos_weight.dtype, torch.float32)).unbind(-1)
    bias = torch.einsum("hf,fbnm->bhnm", pos_weight.to(dx.dtype), features(dx, dy)) + pos_bias[:, None, None]
    logits = (q[:, :, :, None] * rows_of(k, idx)).sum(-1) + bias
    logits = logits.masked_fill(~valid[:, None], float("-inf"))
    blank = (q * blank_k[:, None]).sum(-1, keepdim=True)
    weights = torch.cat([logits, blank.to(logits.dtype)], -1).softmax(-1)
    out = (weights[..., :-1, None] * rows_of(v, idx)).sum(-2) + weights[..., -1:] * blank_v[:, None]
    return out.to(q.dtype)
