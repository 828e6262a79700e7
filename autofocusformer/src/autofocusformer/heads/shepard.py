"""Interpolation between scattered tokens by inverse distances (Shepard 1968).

f = sum_k w_k f_k / sum_k w_k over the tokens nearest to a place, w_k = 1 / (d_k^(2p) + 1e-11), d Euclidean in canvas
cells.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from autofocusformer.kernels.nearest_clusters import nearest_clusters

TINY = 1e-11


def rows_of(x: Num[Tensor, "b n *c"], idx: Int[Tensor, b * q]) -> Num[Tensor, b * q * c]:
    """Rows idx of each image's x."""
    image = torch.arange(len(x), device=x.device).view(-1, *[1] * (idx.ndim - 1))
    return x[image, idx]


def nearest_tokens(
    query_positions: Num[Tensor, "b q 2"], positions: Num[Tensor, "b n 2"], k: int
) -> Int[Tensor, "b q k"]:
    """The k tokens nearest to each query, in ascending order; of equally near ones the first. All where n < k."""
    return nearest_clusters(query_positions, positions, k)


def weights(
    query_positions: Num[Tensor, "b *q 2"], neighbours: Num[Tensor, "b *q k 2"], p: float | Float[Tensor, ""] = 3
) -> Float[Tensor, "b *q k"]:
    """Normalised weights of the neighbours of each query; differentiable in the queries' place and in p."""
    squared = (query_positions[..., None, :].float() - neighbours.float()).square().sum(-1)
    if isinstance(p, Tensor):  # 0^p has no slope in p that a computer finds
        squared = squared.clamp_min(torch.finfo(squared.dtype).tiny)
    inverse = 1 / (squared**p + TINY)
    return inverse / inverse.sum(-1, keepdim=True)


def shepard(
    query_positions: Num[Tensor, "b q 2"],
    positions: Num[Tensor, "b n 2"],
    features: Float[Tensor, "b n c"],
    k: int = 4,
    p: float = 3,
) -> Float[Tensor, "b q c"]:
    """Features at the queries' positions, from the k nearest tokens. At a token's own position: that token's."""
    idx = nearest_tokens(query_positions, positions, k)
    w = weights(query_positions, rows_of(positions, idx), p).to(features.dtype)
    return torch.einsum("bqk,bqkc->bqc", w, rows_of(features, idx))
