"""Squared input gradients of a net whose first layer is linear (section 7, K2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from .. import inputs
from . import reference
from .rows import rows

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

__all__ = ["gram_of_first_layer", "quadratic_rows"]


def quadratic_rows(delta: Float[Tensor, "k n h"], A: Float[Tensor, "k h h"]) -> Float[Tensor, "k n"]:
    """`g_ki = delta_ki' A_k delta_ki`, not below 0.

    With delta the gradient at the first pre-activation and A = W Sigma W' (`gram_of_first_layer`) this is the squared
    norm |Sigma^{1/2} W' delta|^2 of the gradient by the input, which is never formed. Evaluation only: there is no
    gradient. A need not be symmetric. 16-bit operands are multiplied as they are and summed in float32.

    Raises:
        ValueError: shapes that do not fit, nothing to evaluate, operands that want a gradient.

    FLOPs: 2 K N h^2 (and 3 K N h), in float32 without TF32 whatever the switch says. Bytes: 4 K (N h + h^2 + N) in
    float32. Floor on one H100 (67 TFLOP/s, 3.35 TB/s), K = 4, N = 10,000, h = 256: 78 us for the FLOPs, 13 us for the
    bytes; the product delta A alone is as much again to write, and to read. Inputs of d = 784 with a Sigma take 2 N h d
    + 2 N d^2 the direct way: 9.5 times the FLOPs.
    """
    if delta.ndim != 3 or A.shape != (delta.shape[0], delta.shape[2], delta.shape[2]):
        raise ValueError(f"delta has shape {tuple(delta.shape)} and A {tuple(A.shape)}: [K, N, h] and [K, h, h]")
    inputs.check("quadratic_rows", delta=delta, A=A)
    if use_triton(delta):
        return rows(delta, A)
    with inputs.full_products():
        dtype = inputs.wide(delta.dtype)
        return reference.by_products(delta.to(dtype), A.to(dtype))


def gram_of_first_layer(W: Float[Tensor, "k h d"], Sigma: Float[Tensor, "d d"] | None = None) -> Float[Tensor, "k h h"]:
    """`A_k = W_k Sigma W_k'` of every draw; without a Sigma, `W_k W_k'`.

    FLOPs: 2 K h^2 d, with a Sigma 2 K h d^2 more; products of float32 without TF32.

    Raises:
        ValueError: shapes that do not fit, nothing to evaluate, operands that want a gradient.
    """
    if W.ndim != 3 or (Sigma is not None and Sigma.shape != (W.shape[2], W.shape[2])):
        raise ValueError(
            f"W has shape {tuple(W.shape)} and Sigma {None if Sigma is None else tuple(Sigma.shape)}: "
            "[K, h, d] and [d, d]"
        )
    inputs.check("gram_of_first_layer", W=W, **({} if Sigma is None else {"Sigma": Sigma}))
    with inputs.full_products():
        return torch.matmul(W if Sigma is None else W @ Sigma, W.mT)
