"""Spectral normalisation of all layers of a network together (sections 4 and 7.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from . import reference

__all__ = ["grouped_spectral_norm"]


def grouped_spectral_norm(
    weights: Sequence[Tensor], us: Sequence[Tensor], eps: float = 1e-8
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """One power iteration for every layer: `(W / sigma, sigma [1], new u [1, out])`, lists in the order of the layers.

    With W reshaped to [out, rest]: v = normalize(u W), u = normalize(v W^T), sigma = v W^T u^T. Differentiable any
    number of times in W, with u and v constant.

    Args:
        weights: of any shape with the output first.
        us: current left vectors [1, out], not changed.
        eps: least norm that a vector is divided by.
    """
    return reference.grouped_spectral_norm(weights, us, eps)
