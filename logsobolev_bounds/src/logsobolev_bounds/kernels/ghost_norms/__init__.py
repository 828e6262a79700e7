"""Squared norms of the examples' gradients by a weight, without the gradients (section 7, K3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.kernels.backend import use_triton
from torch import Tensor

from .. import inputs
from . import reference
from .norms import norms

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

__all__ = ["ghost_norms", "gram_is_cheaper"]


def gram_is_cheaper(T: int, c: int, o: int) -> bool:
    """Whether 2 T^2 (c + o) FLOPs of the Gram form are fewer than 2 T c o of the gradient itself."""
    return T * (c + o) < c * o


def ghost_norms(a: Float[Tensor, "n t c"], delta: Float[Tensor, "n t o"]) -> Float[Tensor, " n"]:
    """`|sum_t a_nt delta_nt'|_F^2`: each example's squared gradient by a weight [o, c] that T positions share.

    Args:
        a: what the weight is multiplied with (features; patches of an image).
        delta: gradients at the products.

    One position: the product of two squared norms. More: `sum_{t,t'} (a_t . a_t') (delta_t . delta_t')` or the
    gradient of some examples at a time, whichever takes fewer FLOPs. Evaluation only: there is no gradient. Products
    of float32 are without TF32; 16-bit operands are summed in float32.

    Raises:
        ValueError: shapes that do not fit, nothing to evaluate, operands that want a gradient.

    The Gram form is one launch: a program for each pair of tiles of positions on or above the diagonal, both products
    in registers, their sum of products written once. FLOPs: N T^2 (c + o), half of the definition by symmetry. Bytes:
    4 N T (c + o) in float32. Floor on one H100 (67 TFLOP/s, 3.35 TB/s), N = 512, T = 64, c = 576, o = 128: 22 us for
    the FLOPs, 28 us for the bytes; the gradients would be 0.15 GB to write and to read, 90 us.
    """
    if a.ndim != 3 or delta.ndim != 3 or a.shape[:2] != delta.shape[:2]:
        raise ValueError(f"a has shape {tuple(a.shape)} and delta {tuple(delta.shape)}: [N, T, c] and [N, T, o]")
    inputs.check("ghost_norms", a=a, delta=delta)
    gram = gram_is_cheaper(a.shape[1], a.shape[2], delta.shape[2])
    if a.shape[1] > 1 and gram and use_triton(a):
        return norms(a, delta)
    dtype = inputs.wide(a.dtype)
    form = reference.single if a.shape[1] == 1 else reference.by_gram if gram else reference.direct
    with inputs.full_products():
        return form(a.to(dtype), delta.to(dtype))
