"""Losses per example, and objectives to train a posterior with (sections 3.9 and 6).

Shapes: logits [..., N, classes], y [N]; a loss is [..., N], one row for each weight draw.
An objective takes risk = E_q L_S (differentiable) and kl = KL(posterior || prior), both scalars, and n examples.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from logsobolev_bounds.errors import BoundError, confidence, sample_size


def nll(logits: Float[Tensor, "*draws N classes"], y: Int[Tensor, " N"]) -> Float[Tensor, "*draws N"]:
    """-ln p(y): unbounded.

    Raises (as the other losses):
        BoundError: not one label for each row of logits, a label that is no class.
    """
    labels = _labels(logits, y)
    return torch.logsumexp(logits, -1) - logits.gather(-1, labels)[..., 0]


def clipped_nll(
    logits: Float[Tensor, "*draws N classes"], y: Int[Tensor, " N"], p_min: float = 1e-4
) -> Float[Tensor, "*draws N"]:
    """-ln max(p(y), p_min): in [0, ln(1 / p_min)].

    Raises:
        BoundError: p_min outside (0, 1).
    """
    if not 0 < p_min < 1:
        raise BoundError(f"p_min is {p_min}: it is a probability in (0, 1)")
    return nll(logits, y).clamp_max(-math.log(p_min))


def zero_one(logits: Float[Tensor, "*draws N classes"], y: Int[Tensor, " N"]) -> Float[Tensor, "*draws N"]:
    """1 where another class has the largest logit; among equal ones the first.

    Raises:
        BoundError: a logit that is NaN: argmax would take it for the largest, and could call it right.
    """
    labels = _labels(logits, y)
    if logits.isnan().any():
        raise BoundError("a logit is nan: no class is the largest; look for NaN in the weights and the inputs")
    return (logits.argmax(-1) != labels[..., 0]).to(logits.dtype)


def _labels(logits: Tensor, y: Tensor) -> Tensor:
    if logits.ndim < 2 or y.shape != logits.shape[-2:-1]:
        raise BoundError(
            f"logits of shape {list(logits.shape)}, labels {list(y.shape)}: one label for each row of logits"
        )
    if y.numel() and (y.min() < 0 or y.max() >= logits.shape[-1]):
        raise BoundError(f"labels from {int(y.min())} to {int(y.max())}: there are classes 0 to {logits.shape[-1] - 1}")
    return y.expand(logits.shape[:-1])[..., None]


def elbo(risk: Tensor, kl: Tensor, n: int, lam: float | None = None) -> Float[Tensor, ""]:
    """risk + kl / lambda, lambda = n unless given.

    Raises:
        BoundError: lambda that is not positive and finite.
    """
    scale = n if lam is None else lam
    if not 0 < scale < math.inf:
        raise BoundError(f"lambda is {scale}: it is positive and finite")
    return risk + kl / scale


def quadratic(risk: Tensor, kl: Tensor, n: int, delta: float = 0.05) -> Float[Tensor, ""]:
    """(sqrt(risk + c / 2) + sqrt(c / 2))^2, c = (kl + ln(2 sqrt(n) / delta)) / n.

    Raises (as the objectives below):
        BoundError: n < 1, delta outside (0, 1).
    """
    half = (kl + _settings(n, delta)) / (2 * n)
    return ((risk + half).sqrt() + half.sqrt()).square()


def lambda_(risk: Tensor, kl: Tensor, n: int, delta: float = 0.05, t: Tensor | float = 1.0) -> Float[Tensor, ""]:
    """risk / (1 - t / 2) + c / (t (1 - t / 2)); t in (0, 2) may be trained too."""
    c = (kl + _settings(n, delta)) / n
    value = float(t.detach() if isinstance(t, Tensor) else t)
    if not 0 < value < 2:
        raise BoundError(f"t is {value}: it lies in (0, 2)")
    return risk / (1 - t / 2) + c / (t * (1 - t / 2))


def maurer(risk: Tensor, kl: Tensor, n: int, delta: float = 0.05) -> Float[Tensor, ""]:
    """risk + sqrt(c / 2)."""
    return risk + ((kl + _settings(n, delta)) / (2 * n)).sqrt()


def _settings(n: int, delta: float) -> float:
    """ln(2 sqrt(n) / delta), once both are found sensible."""
    return math.log(2 * math.sqrt(float(sample_size("n", n))) / float(confidence("delta", delta)))
