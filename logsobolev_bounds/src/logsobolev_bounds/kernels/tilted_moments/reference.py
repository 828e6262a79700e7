"""Tilted moments of a loss in plain PyTorch: the definition, and the form that runs on a CPU.

M_j = mean_i e^{-alpha_j l_i}, G_j = mean_i e^{-alpha_j l_i} g_i / M_j (section 2), alpha_j = j step. Losses count from
the least of their row: every weight lies in (0, 1] and one of them is 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHUNK = 8192  # pairs of draw and example whose powers are held at once


def alphas(step: float, T: int, like: Tensor) -> Tensor:
    return (step * torch.arange(T, dtype=torch.float64, device=like.device)).to(like.dtype)


def tilted_moments(loss: Tensor, g: Tensor, step: float, T: int) -> tuple[Tensor, Tensor]:
    """`(log M, G)`, all weights [K, N, T] at once."""
    alpha, low = alphas(step, T, loss), loss.amin(1, keepdim=True)
    weights = torch.exp(-alpha * (loss - low)[..., None])
    total = weights.sum(1)
    return (total / loss.shape[1]).log() - alpha * low, (weights * g[..., None]).sum(1) / total


def by_powers(loss: Tensor, g: Tensor, step: float, T: int) -> tuple[Tensor, Tensor]:
    """The same from powers of e^{-step s} in O(N) memory.

    With R = ceil(sqrt T) and j = c R + r, e^{-alpha_j s} = (e^{-R step s})^c (e^{-step s})^r: some 2 sqrt(T)
    exponentials for an example in place of T, and the sums over examples are the product of two thin matrices.
    """
    K, N = loss.shape
    R = math.isqrt(T - 1) + 1
    C = -(-T // R)
    low = loss.amin(1, keepdim=True)
    giants, babies = -alphas(step * R, C, loss), -alphas(step, R, loss)
    sums = loss.new_zeros(K, 2 * C, R)
    draws = max(1, CHUNK // N)
    for k in (slice(first, first + draws) for first in range(0, K, draws)):
        for start in range(0, N, CHUNK):
            s = (loss[k, start : start + CHUNK] - low[k])[:, None]
            left = s.new_empty(len(s), 2, C, s.shape[2])
            torch.mul(giants[:, None], s, out=left[:, 0]).exp_()
            torch.mul(left[:, 0], g[k, None, start : start + CHUNK], out=left[:, 1])
            sums[k].baddbmm_(left.flatten(1, 2), (babies[:, None] * s).exp_().mT)
    total, weighted = sums.view(K, 2, C * R)[..., :T].unbind(1)
    return (total / N).log() - alphas(step, T, loss) * low, weighted / total
