"""Gap of gradient norms from gradients, with its smoothing (sections 3 and 7.3)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from . import reference
from .reference import norms

__all__ = ["grad_gap", "norms"]


def grad_gap(
    g: Float[Tensor, "two_b ..."], state: Float[Tensor, " two_b"] | None, smoothing: float
) -> tuple[Float[Tensor, ""], Float[Tensor, " two_b"], Float[Tensor, " two_b"]]:
    """`(R, n, s)`: the penalty, the norms of the samples' gradients, and the smoothed norms to keep.

    n_i = |g_i|, s = n at the first call (`state` None), else (1 - smoothing) n + smoothing state;
    R = mean_i (s_i - s_{B+i})^2 with fakes in the first half of g, reals in the second.
    R and n are differentiable in g, any number of times; s is not. A zero row has norm 0 and derivative 0.
    16-bit gradients are squared and summed in float32.
    """
    return reference.grad_gap(g, state, smoothing)
