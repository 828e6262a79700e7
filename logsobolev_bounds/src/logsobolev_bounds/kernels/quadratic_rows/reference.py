"""Quadratic form of every row in plain PyTorch: the definition, and the form that runs on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor


def quadratic_rows(delta: Tensor, A: Tensor) -> Tensor:
    """`delta_ki' A_k delta_ki`, not below 0."""
    return torch.einsum("knh,khj,knj->kn", delta, A, delta).clamp(min=0)


def by_products(delta: Tensor, A: Tensor) -> Tensor:
    """The same, a draw at a time: one [N, h] of working memory."""
    out = delta.new_empty(delta.shape[:2])
    for k in range(len(delta)):
        product = delta[k] @ A[k]
        torch.sum(product.mul_(delta[k]), 1, out=out[k])
    return out.clamp_(min=0)
