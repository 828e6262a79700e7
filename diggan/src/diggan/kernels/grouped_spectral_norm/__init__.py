"""Spectral normalisation of all layers of a network together (sections 4 and 7.2)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference
from .layers import normalise_layers

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

    Three launches for any number of layers, and two for the gradient `(g - <g, W/sigma> u v^T) / sigma`: each program
    finds its layer in a table, weights are read where they lie. Layers of several dtypes are left to the definition.

    FLOPs: 6 for each entry of W, and 5 for the gradient. Bytes (float32, P entries): W is read for v, for u and for
    W / sigma, which is written: `16 P`; gradient: W and g read for their product, g read again, the result written:
    `16 P`. The least is `12 P` each with W kept on chip between the steps, as no multiprocessor could; what fits into
    L2 (50 MB on an H100, this discriminator's 16.8 MB) comes from there at the second reading, so the floor is `8 P`:
    P = 4.2 million, 10 us on one H100 (3.35 TB/s), 15 us for the gradient (`12 P`).
    """
    alike = len({(w.dtype, w.device) for w in weights}) == 1 and all(w.numel() for w in weights)
    if alike and use_triton(weights[0]):
        return normalise_layers(weights, us, eps)
    # Mixed precision would round the iterate; the normalised weight is rounded where it is used.
    kind = weights[0].device.type if weights else "cpu"
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        return reference.grouped_spectral_norm(weights, us, eps)
