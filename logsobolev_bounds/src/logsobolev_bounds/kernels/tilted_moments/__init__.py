"""Tilted moments of a loss over a uniform grid of alphas (sections 2 and 7, K1)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shared.kernels.backend import use_triton
from torch import Tensor

from .. import inputs
from . import reference
from .moments import moments

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

__all__ = ["tilted_moments"]


def tilted_moments(
    loss: Float[Tensor, "k n"], g: Float[Tensor, "k n"], step: float, T: int
) -> tuple[Float[Tensor, "k t"], Float[Tensor, "k t"]]:
    """`(log M, G)` of each of K draws at alpha_j = j step, j = 0 ... T - 1.

    M = mean_i e^{-alpha l_i} and G = sum_i e^{-alpha l_i} g_i / sum_i e^{-alpha l_i}: the tilted mean of the squared
    gradient norm. A constant added to the loss leaves G as it is; losses up to 1e4 and beyond are fine. float64 gives
    float64, 16-bit operands float32. The log-MGF psi = log M + alpha mean l is a difference of near-equal numbers where
    alpha is small: give float64 losses for it. Evaluation only: there is no gradient.

    Args:
        loss: l, finite, one row for each draw of the weights.
        g: squared gradient norms.
        step: distance of two alphas, positive.
        T: how many alphas.

    Raises:
        ValueError: shapes that differ, nothing to evaluate, a step or T that is not positive, operands that want a
            gradient.

    Two launches, one pass over the losses and norms: a program holds the sums of 64 alphas over its span of a row in
    registers, relative to the least loss of the span; a second pass adds the spans in a fixed order, so that two calls
    agree bit for bit. FLOPs: 4 K N T, as e^{-alpha_j s} is a product of two of some 2 sqrt(T) exponentials for each
    example (17 for T = 65). Bytes: 8 K N read in float32. Floor on one H100 (3.35 TB/s, 67 TFLOP/s), K = 200,
    N = 10,000, T = 65: 4.8 us for the bytes, 7.8 us for the FLOPs; the materialised definition writes and reads
    K N T = 130 million weights several times over, 0.5 GB each.
    """
    if loss.ndim != 2 or loss.shape != g.shape:
        raise ValueError(f"loss has shape {tuple(loss.shape)} and g {tuple(g.shape)}: [draws, examples] both")
    inputs.check("tilted_moments", loss=loss, g=g)
    if not (step > 0 and math.isfinite(step)) or T < 1:
        raise ValueError(f"step is {step} and T is {T}: a positive step and at least one alpha")
    if use_triton(loss):
        log_m, tilted = moments(loss, g, float(step), T)
        return log_m, tilted
    dtype = inputs.wide(loss.dtype)
    return reference.by_powers(loss.to(dtype), g.to(dtype), step, T)
