"""Squared norms of sums of outer products in plain PyTorch: the definition both ways (section 7, K3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BUDGET = 2**22  # entries of working memory; a single example may need more


def ghost_norms(a: Tensor, delta: Tensor) -> Tensor:
    """`|sum_t a_t delta_t'|_F^2` of every example, from all [N, c, o] gradients at once."""
    return torch.einsum("ntc,nto->nco", a, delta).square().sum((1, 2))


def by_gram(a: Tensor, delta: Tensor) -> Tensor:
    """`sum_{t,t'} (a_t . a_t') (delta_t . delta_t')`, some examples at a time."""
    return chunked(a, delta, 2 * a.shape[1] ** 2, lambda x, d: (x @ x.mT).mul_(d @ d.mT).sum((1, 2)).clamp_(min=0))


def direct(a: Tensor, delta: Tensor) -> Tensor:
    """The definition, some examples at a time."""

    def squares(x: Tensor, d: Tensor) -> Tensor:
        gradient = x.mT @ d
        return gradient.mul_(gradient).sum((1, 2))

    return chunked(a, delta, a.shape[2] * delta.shape[2], squares)


def single(a: Tensor, delta: Tensor) -> Tensor:
    """One position: the gradient is an outer product."""
    return a[:, 0].square().sum(1) * delta[:, 0].square().sum(1)


def chunked(a: Tensor, delta: Tensor, entries: int, squares: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    n = max(1, BUDGET // entries)
    out = a.new_empty(len(a))
    for start in range(0, len(a), n):
        out[start : start + n] = squares(a[start : start + n], delta[start : start + n])
    return out
