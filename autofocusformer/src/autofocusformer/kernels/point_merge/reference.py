"""Merging of a kept token's neighbourhood in plain PyTorch: the definition, by gathering."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from ..offsets import features

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

INNER = 4  # weights of a pair


def rows_of(x: Tensor, idx: Tensor) -> Tensor:
    """x_idx: [b, n', ..., c] of x [b, n, c] and idx [b, n', ...]."""
    at = idx.flatten(1)[..., None].expand(-1, -1, x.shape[-1])
    return x.gather(1, at).view(*idx.shape, x.shape[-1])


def pair_features(positions: Tensor, kept: Tensor, idx: Tensor, dtype: torch.dtype) -> Float[Tensor, "5 b m M"]:
    """phi of neighbour minus kept token."""
    offset = rows_of(positions, idx) - rows_of(positions, kept)[:, :, None]
    dx, dy = offset.to(torch.promote_types(dtype, torch.float32)).unbind(-1)
    return features(dx, dy)


def point_merge(
    x: Tensor, prob: Tensor, positions: Tensor, kept: Tensor, idx: Tensor, valid: Tensor, weight: Tensor, bias: Tensor,
    norm_weight: Tensor, norm_bias: Tensor,
) -> Tensor:  # fmt: skip
    """`sum_j W_ij (x) x_j`, `W_ij = GELU(LN(A phi_ij + a)) s_j` where j is valid."""
    phi = pair_features(positions, kept, idx, weight.dtype)
    pre = torch.einsum("rf,fbnm->bnmr", weight.to(phi.dtype), phi) + bias
    pairs = gelu(layer_norm(pre, (INNER,), norm_weight.to(pre.dtype), norm_bias.to(pre.dtype)))
    pairs = pairs * (rows_of(prob[..., None], idx)[..., 0] * valid)[..., None]
    return torch.einsum("bnmr,bnmc->bnrc", pairs, rows_of(x, idx).to(pairs.dtype)).to(x.dtype)
