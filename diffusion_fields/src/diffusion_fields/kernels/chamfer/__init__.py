"""Chamfer distances of every generated cloud to every reference cloud (sections 7 and 8.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import inputs
from .clouds import allpairs

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

__all__ = ["chamfer_allpairs"]


def chamfer_allpairs(G: Float[Tensor, "n M d"], R: Float[Tensor, "m K d"]) -> Float[Tensor, "n m"]:
    """Mean squared distance to the nearest point of the other cloud, both ways, summed, for every pair of clouds.

    float64 gives float64, all else float32. A cloud with an entry that is not finite has the distance NaN to all.
    Evaluation only: there is no gradient (`kernels.reference.chamfer_allpairs` has one).

    Args:
        G, R: generated and reference clouds. More than three coordinates are left to plain PyTorch.

    Raises:
        ValueError: shapes that do not fit, no point, operands that differ in dtype or device, that are not real
            numbers or that want a gradient.

    The kernel: a program for 128 points of one cloud and all of another; distances are differences squared in float32,
    each computed once for both directions and never written. FLOPs: 8 n m M K, and two minima for each pair of points.
    Bytes: clouds read once, 12 (n M + m K), and partial minima of 8 n m M K / 128 written and read. Floor for n = m =
    1000, M = K = 2048 on one H200: 0.6 s for the FLOPs at 60 TFLOP/s, 0.06 s for the bytes; a `cdist` of each pair
    moves 50 TB, 11 s. On a CPU: k-d trees for large clouds, products of thin matrices in float64 for small ones.
    """
    if G.ndim != 3 or R.ndim != 3 or G.shape[2] != R.shape[2] or not G.shape[1] * R.shape[1] * G.shape[2]:
        raise ValueError(
            f"chamfer_allpairs: G has shape {tuple(G.shape)} and R {tuple(R.shape)}: "
            "[clouds, points, coordinates] both, the same coordinates and at least one point"
        )
    inputs.check("chamfer_allpairs", G=G, R=R)
    inputs.same_dtype("chamfer_allpairs", G=G, R=R)
    if inputs.wants_gradient(G, R):
        raise ValueError("chamfer_allpairs has no gradient (it evaluates): detach the clouds, or use its reference")
    finite_G, finite_R = (x.isfinite().flatten(1).all(1) for x in (G, R))
    clean_G, clean_R = (x.detach().nan_to_num(0.0, 0.0, 0.0) for x in (G, R))
    return allpairs(clean_G, clean_R).masked_fill(~(finite_G[:, None] & finite_R), torch.nan)
