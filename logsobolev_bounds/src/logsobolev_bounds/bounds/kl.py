"""Kullback-Leibler divergences: of Bernoulli variables with its two inverses, and of Gaussian weights (section 3.9).

    kl(q || p) = q ln(q / p) + (1 - q) ln((1 - q) / (1 - p))
    kl_inverse_upper(q, c) = sup {p : kl(q || p) <= c}        kl_inverse_lower(q, c) = inf {p : kl(q || p) <= c}

An inverse that is used as a bound may err to one side only. So kl is computed from the distance d = p - q, as

    q phi(d / q) + (1 - q) phi(-d / (1 - q)),        phi(x) = x - ln(1 + x) >= 0,

which cancels nothing, and the bisection over d ends at the outer end of its bracket.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from logsobolev_bounds.errors import BoundError, Number, checked, confidence, finite, non_negative, positive, unit

_STEPS = 64  # halvings of an interval of at most 1: far below the 1e-12 asked for, so small solutions have digits too
# More than the rounding of p = q + d, and, as kl is convex in d and 0 at 0, more than what kl's own makes of d.
_ROUNDING = 4e-15
_LARGEST = torch.finfo(torch.float64).max


def excess(x: Float[Tensor, ...]) -> Float[Tensor, ...]:
    """phi(x) = x - ln(1 + x), x >= -1, to full relative precision also near 0."""
    s = x / (2 + x)  # ln(1 + x) = 2 artanh(s) and x - 2 s = x s
    s2 = s * s
    tail = torch.zeros_like(s)
    for power in range(19, 1, -2):
        tail = tail * s2 + 1 / power
    return torch.where(x.abs() < 0.1, x * s - 2 * s * s2 * tail, x - torch.log1p(x))


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = torch.broadcast_tensors(a, b)
    return a, b


def _kl_at_distance(q: Tensor, d: Tensor) -> Tensor:
    """kl(q || q + d); d of either sign."""

    def part(share: Tensor, d: Tensor) -> Tensor:
        # A share of 0 leaves d; a tiny share must not divide into infinity.
        ratio = (d / share.clamp_min(torch.finfo(torch.float64).tiny)).clamp_max(_LARGEST)
        return torch.where(
            share > 0, torch.where(ratio < 1e30, share * excess(ratio), d - share * torch.log1p(ratio)), d
        )

    return part(q, d) + part(1 - q, -d)


def kl_bernoulli(q: Number, p: Number) -> Float[Tensor, ...]:
    """kl(q || p), infinite where p excludes what q allows.

    Raises:
        BoundError: q or p outside [0, 1].
    """
    q, p = _pair(unit("q", q), unit("p", p))
    impossible = ((p <= 0) & (q > 0)) | ((p >= 1) & (q < 1))
    near = (p - q).abs() < 0.1 * torch.minimum(q, 1 - q)
    # Where p is far, p - q would lose the digits of a small p (or of a small 1 - p), and nothing cancels.
    far = torch.xlogy(q, q) - torch.xlogy(q, p) + torch.special.xlog1py(1 - q, -q) - torch.special.xlog1py(1 - q, -p)
    value = torch.where(near, _kl_at_distance(q, torch.where(near, p - q, 0.0)), far)
    return torch.where(impossible, torch.inf, value).clamp_min(0)


@torch.no_grad()
def kl_inverse_upper(q: Number, c: Number) -> Float[Tensor, ...]:
    """sup {p : kl(q || p) <= c}, never below the true value and less than 1e-12 above it; 1 for infinite c.

    Raises:
        BoundError: q outside [0, 1], c negative or NaN.
    """
    q, c = _pair(unit("q", q), non_negative("c", c))
    return ((q + _outer_distance(q, c, 1 - q, 1.0)) * (1 + _ROUNDING)).clamp_max(1)


@torch.no_grad()
def kl_inverse_lower(q: Number, c: Number) -> Float[Tensor, ...]:
    """inf {p : kl(q || p) <= c}, never above the true value; 0 for infinite c.

    Raises:
        BoundError: q outside [0, 1], c negative or NaN.
    """
    q, c = _pair(unit("q", q), non_negative("c", c))
    # d near q is rounded on the scale of q, however small p is.
    return (q - _outer_distance(q, c, q, -1.0) - _ROUNDING * q).clamp_min(0)


def _outer_distance(q: Tensor, c: Tensor, limit: Tensor, sign: float) -> Tensor:
    """|p - q| where kl reaches c on one side of q, rounded away from q; `limit` where it does not."""
    inner, outer = torch.zeros_like(limit), limit.clone()
    for _ in range(_STEPS):
        middle = (inner + outer) / 2
        outside = _kl_at_distance(q, sign * middle) > c
        inner, outer = torch.where(outside, inner, middle), torch.where(outside, middle, outer)
    return outer


def kl_gaussian(
    mu_q: Float[Tensor, ...], sigma_q: Float[Tensor, ...], mu_p: Number, sigma_p: Number
) -> Float[Tensor, ""]:
    """KL(q || p) of diagonal Gaussians: the SUM over all weights (never a mean), in float64.

    ln(sigma_p / sigma_q) + (sigma_q^2 + (mu_q - mu_p)^2) / (2 sigma_p^2) - 1/2        (section 4)

    Raises:
        BoundError: a standard deviation that is not positive, NaN, means and deviations of different shapes.
    """
    if mu_q.shape != sigma_q.shape:
        raise BoundError(f"mu_q has shape {list(mu_q.shape)}, sigma_q {list(sigma_q.shape)}: one of each per weight")
    means, deviations = (finite("mu_q", mu_q), finite("mu_p", mu_p)), (positive("sigma_q", sigma_q),)
    return gaussian_divergence(means[0], *deviations, means[1], positive("sigma_p", sigma_p))


def gaussian_divergence(mu_q: Tensor, sigma_q: Tensor, mu_p: Tensor, sigma_p: float | Tensor) -> Float[Tensor, ""]:
    """`kl_gaussian` without its checks and in the weights' own precision: for every step of training."""
    scale = torch.as_tensor(sigma_p, dtype=torch.float64)
    terms = scale.log() - sigma_q.log() + (sigma_q.square() + (mu_q - mu_p).square()) / (2 * scale.square()) - 0.5
    return terms.sum()


def monte_carlo_risk(q_hat: Number, draws: Number, delta: Number = 0.01) -> Float[Tensor, ...]:
    """Upper bound on the Gibbs risk from its mean over posterior draws: inverts kl(q_hat || p) <= ln(2 / delta) / K.

    Used as q in another bound, the total confidence is 1 minus both deltas (section 3.9).

    Raises:
        BoundError: q_hat outside [0, 1], fewer than 1 draw, delta outside (0, 1).
    """
    k = checked("K", draws, lambda x: x < 1, "at least one posterior draw is needed")
    return kl_inverse_upper(q_hat, torch.log(2 / confidence("delta'", delta)) / k)
