"""Bounds on psi from the log-Sobolev inequality (sections 3.3 to 3.6).

    T1    psi(alpha) <= alpha / 2 int_0^alpha G(s) ds                                          `lsi`
    T2    psi(alpha) <= alpha / 2 g (e^{alpha b} - 1) / b,   b = E l, g = E g                  `on_average`
          psi(alpha) <= alpha^2 E g / 2, where g grows with l                                  `comonotone`

The gradient is by the input, squared, with the covariance Sigma of the input in between. All hold for Gaussian inputs
through which all randomness of the loss comes; inputs that are Gaussian within a class need `class_corrected`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from logsobolev_bounds.errors import (
    BoundError,
    Number,
    covariance_eigenvalues,
    finite,
    non_negative,
    positive,
    sample_size,
)
from logsobolev_bounds.mgf.moments import check_examples, check_grid, moments


def lsi(loss: Float[Tensor, "K N"], g: Float[Tensor, "K N"], alphas: Float[Tensor, " T"]) -> Float[Tensor, "K T"]:
    """T1: alpha / 2 int_0^alpha G(s) ds per draw, by the trapezoid rule on the uniform grid `alphas` from 0.

    Raises:
        BoundError: fewer than 17 alphas, a grid that is not uniform or not from 0; shapes that differ, an empty batch,
            NaN or infinity, a negative g.
    """
    loss, checked_g = check_examples(loss, g)
    assert checked_g is not None
    return _t1(loss, checked_g, check_grid(alphas))


def _t1(loss: Tensor, g: Tensor, alphas: Tensor) -> Tensor:
    _, G = moments(loss, g, alphas)
    integral = torch.cumulative_trapezoid(G, alphas, dim=1)
    return alphas / 2 * torch.nn.functional.pad(integral, (1, 0))


def on_average(
    b_w: Float[Tensor, " K"] | None = None,
    g_w: Float[Tensor, " K"] | None = None,
    alphas: Float[Tensor, " T"] | None = None,
) -> Float[Tensor, "K T"]:
    """T2 per draw, from the mean loss b_w and the mean squared gradient g_w of a non-negative loss.

    Not to be averaged over draws of a Gaussian prior: `c_on_average`.

    Raises:
        BoundError (a ValueError): b_w, g_w or alphas not given, negative or not finite.
    """
    b, g = (
        non_negative(name, finite(name, _given(name, value)))[..., None] for name, value in (("b_w", b_w), ("g_w", g_w))
    )
    alphas = non_negative("alpha", finite("alpha", _given("alphas", alphas)))
    return torch.where(g > 0, alphas.square() / 2 * g * _growth(alphas * b), 0.0)


def _given(name: str, value: Tensor | None) -> Tensor:
    if value is None:
        raise BoundError(
            f"{name} is not given: T2 takes each draw's mean loss b_w and mean squared gradient g_w, and alphas"
        )
    return value


def _growth(x: Tensor) -> Tensor:
    """(e^x - 1) / x, which is 1 at 0."""
    return torch.where(x > 1e-12, torch.expm1(x) / x.clamp_min(1e-12), 1 + x / 2)


def c_on_average(b: Number | None, g: Number | None, lam: Number, m: Number) -> Float[Tensor, ...]:
    """T2 for a prior on whose whole support E l <= b and E g <= g: C <= lambda g / (2 b) (e^{lambda b / m} - 1).

    Raises:
        BoundError: b or g not given as finite numbers (under a Gaussian prior with growing losses ln E_w e^{T2} is
            infinite for every lambda, and a Monte-Carlo estimate of it means nothing); lambda <= 0, m < 1.
    """
    for name, value in (("b", b), ("g", g)):
        x = torch.as_tensor(torch.nan if value is None else value, dtype=torch.float64)
        bad = ~(x.isfinite() & (x >= 0))
        if bad.any():
            found = "not given" if value is None else f"{x[bad][0].item():.6g}"
            raise BoundError(
                f"{name} is {found}: the on-average bound is infinite without finite b and g that "
                "hold on the whole support of the prior; give them, or truncate the prior"
            )
    lam, m = positive("lambda", lam), sample_size("m", m)
    b, g = torch.as_tensor(b, dtype=torch.float64), torch.as_tensor(g, dtype=torch.float64)
    return lam.square() * g * _growth(lam * b / m) / (2 * m)


def comonotone(g_mean: Float[Tensor, " K"], alphas: Float[Tensor, " T"]) -> Float[Tensor, "K T"]:
    """alpha^2 E g / 2, where g is a non-decreasing function of the loss (binary logistic loss of a linear model).

    Raises:
        BoundError: g or alpha negative or not finite.
    """
    alphas = non_negative("alpha", finite("alpha", alphas))
    return non_negative("g", finite("g", g_mean))[..., None] * alphas.square() / 2


def c_lipschitz(kappa: Float[Tensor, " d"], sigma_p: Number, lam: Number, m: Number) -> Float[Tensor, ...]:
    """C <= -1/2 sum_j ln(1 - lambda^2 sigma_p^2 kappa_j / m) of a linear model with logistic loss; else infinite.

    Sub-gamma, for g <= w' Sigma w and w ~ N(0, sigma_p^2 I). Finite iff lambda^2 sigma_p^2 max kappa < m.

    Args:
        kappa: eigenvalues of Sigma [d], or Sigma itself [d, d].

    Raises:
        BoundError: a Sigma that is not symmetric or not positive, sigma_p or lambda <= 0, m < 1.
    """
    kappa = covariance_eigenvalues(kappa) if kappa.ndim == 2 else non_negative("kappa", finite("kappa", kappa))
    lam, m, sigma_p = positive("lambda", lam), sample_size("m", m), positive("sigma_p", sigma_p)
    share = (lam * sigma_p).square()[..., None] * kappa / m[..., None]
    inside = (share < 1 - 1e-12).all(-1)  # at 1 but for rounding it is infinite too
    return torch.where(inside, -torch.log1p(-share).sum(-1) / 2, torch.inf)


def class_corrected(
    loss: Float[Tensor, "K N"], g: Float[Tensor, "K N"], y: Int[Tensor, " N"], alphas: Float[Tensor, " T"]
) -> Float[Tensor, "K T"]:
    """T1 for inputs that are Gaussian within each class: ln sum_y pi_y exp(-alpha (L_y - L) + lsi_y(alpha)).

    The pooled T1 misses the entropy between classes and does not hold then. pi_y and L_y are those of the examples.

    Args:
        g: of each example with the covariance of its own class.
        y: classes 0 ... max(y).

    Raises:
        BoundError: a class with fewer than 2 examples, labels that are negative or not one for each example, and what
            `lsi` refuses.
    """
    loss, checked_g = check_examples(loss, g)
    assert checked_g is not None
    alphas, y = check_grid(alphas), torch.as_tensor(y)
    if y.shape != loss.shape[1:] or y.is_floating_point() or (y < 0).any():
        raise BoundError(
            f"labels of shape {list(y.shape)} and {y.dtype}, {loss.shape[1]} examples: give classes 0, 1, ..."
        )
    counts = torch.bincount(y)
    if (counts < 2).any():
        k = int((counts < 2).nonzero()[0])
        raise BoundError(f"class {k} has {int(counts[k])} examples: each class from 0 to the largest needs at least 2")
    mean, parts = loss.mean(1, keepdim=True), []
    for k, count in enumerate(counts.tolist()):
        own = loss[:, y == k]
        within = _t1(own, checked_g[:, y == k], alphas)
        share = torch.tensor(count / len(y), dtype=torch.float64, device=loss.device)
        parts.append(share.log() - alphas * (own.mean(1, keepdim=True) - mean) + within)
    return torch.logsumexp(torch.stack(parts), 0)
