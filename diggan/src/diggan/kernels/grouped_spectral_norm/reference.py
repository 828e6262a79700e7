"""Spectral normalisation in plain PyTorch: the definition (section 4; Miyato et al. 2018), layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def power_iteration(w: Tensor, u: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(new u [1, out], v [1, rest]) of a matrix [out, rest]."""
    with torch.no_grad():
        v = F.normalize(u @ w, eps=eps)
        return F.normalize(v @ w.T, eps=eps), v


def grouped_spectral_norm(
    weights: Sequence[Tensor], us: Sequence[Tensor], eps: float
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    normalised, sigmas, new = [], [], []
    for weight, u in zip(weights, us):
        w = weight.flatten(1)
        after, v = power_iteration(w, u, eps)
        sigma = (v @ w.T @ after.T).view(1)
        normalised.append(weight / sigma)
        sigmas.append(sigma)
        new.append(after)
    return normalised, sigmas, new
