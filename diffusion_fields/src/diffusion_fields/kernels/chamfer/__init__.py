"""Chamfer distances of every generated cloud to every reference cloud (sections 7 and 8.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .. import inputs
from . import reference

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

__all__ = ["chamfer_allpairs"]


def chamfer_allpairs(G: Float[Tensor, "n M d"], R: Float[Tensor, "m K d"]) -> Float[Tensor, "n m"]:
    """Mean squared distance to the nearest point of the other cloud, both ways, summed, for every pair of clouds."""
    if G.ndim != 3 or R.ndim != 3 or G.shape[2] != R.shape[2] or not G.shape[1] * R.shape[1] * G.shape[2]:
        raise ValueError(
            f"chamfer_allpairs: G has shape {tuple(G.shape)} and R {tuple(R.shape)}: "
            "[clouds, points, coordinates] both, the same coordinates and at least one point"
        )
    inputs.check("chamfer_allpairs", G=G, R=R)
    inputs.same_dtype("chamfer_allpairs", G=G, R=R)
    if inputs.wants_gradient(G, R):
        raise ValueError("chamfer_allpairs has no gradient (it evaluates): detach the clouds, or use its reference")
    return reference.chamfer_allpairs(G, R)
