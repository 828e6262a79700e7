"""What `make gpu-check` compares besides the kernels: the whole of K2, W Sigma W' included, with the gradient itself.

The target: four times as fast as forming the gradient by the input, with a covariance, at d = 3,072.
"""

from __future__ import annotations

import torch
from shared.kernels.harness import Check
from torch import Tensor

from logsobolev_bounds.kernels.quadratic_rows import gram_of_first_layer, quadratic_rows


def by_rows(delta: Tensor, W: Tensor, Sigma: Tensor) -> tuple[Tensor]:
    """g = delta' (W Sigma W') delta: nothing of the size of the inputs but W and Sigma."""
    return (quadratic_rows(delta, gram_of_first_layer(W, Sigma)),)


def by_gradient(delta: Tensor, W: Tensor, Sigma: Tensor) -> tuple[Tensor]:
    """The definition: the gradient W' delta [K, N, d], materialised, and its quadratic form."""
    gradient = delta @ W
    return ((gradient @ Sigma * gradient).sum(2),)


def operands(generator: torch.Generator, K: int, N: int, H: int, D: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients at the first pre-activation, weights of the first layer, a covariance."""
    delta, W, root = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((K, N, H), (K, H, D), (D, D))
    )
    return delta, W / D**0.5, root @ root.T / D


def cost(K: int, N: int, H: int, D: int) -> tuple[float, float]:
    return K * (2.0 * H * D * D + 2.0 * H * H * D + 2.0 * N * H * H), float(K * (N * H + H * D + N) + D * D)


CHECK = Check(
    "quadratic_rows",
    by_rows,
    by_gradient,
    operands,
    small=[{"K": 2, "N": 37, "H": 40, "D": 65}],
    timed=[{"K": 1, "N": 10000, "H": 256, "D": 3072}],
    cost=cost,
    part="with_covariance",
    gradients=False,
    modes=("fp32",),
)
CHECKS = [CHECK]
