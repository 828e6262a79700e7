"""The bounds to compare with, for a loss in [0, 1] (or [0, B]), and the one with a log-MGF (sections 3.1 and 3.9).

q is the empirical Gibbs risk E_q L_S, kl = KL(posterior || prior), n or m the sample size, delta the confidence, and

    c = (kl + ln(2 sqrt(n) / delta)) / n.

Every function takes floats or tensors, which broadcast, and gives float64; values above 1 are not clipped.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from logsobolev_bounds.bounds.kl import kl_inverse_upper
from logsobolev_bounds.errors import (
    BoundError,
    Number,
    checked,
    confidence,
    finite,
    non_negative,
    positive,
    sample_size,
    unit,
)


def complexity(kl: Number, n: Number, delta: Number) -> Float[Tensor, ...]:
    """c = (kl + ln(2 sqrt(n) / delta)) / n.

    Raises (as every bound here):
        BoundError: a negative KL, n < 1, delta outside (0, 1), a risk out of the loss's range, or NaN.
    """
    n = sample_size("n", n)
    return (non_negative("KL", kl) + torch.log(2 * n.sqrt() / confidence("delta", delta))) / n


def maurer_pinsker(q: Number, kl: Number, n: Number, delta: Number) -> Float[Tensor, ...]:
    """McAllester's bound with Maurer's constant: q + sqrt(c / 2)."""
    return unit("q", q) + (complexity(kl, n, delta) / 2).sqrt()


def seeger(q: Number, kl: Number, n: Number, delta: Number) -> Float[Tensor, ...]:
    """Seeger-Maurer: sup {p : kl(q || p) <= c}, from the outer end of the bracket."""
    return kl_inverse_upper(q, complexity(kl, n, delta))


def quadratic(q: Number, kl: Number, n: Number, delta: Number) -> Float[Tensor, ...]:
    """(sqrt(q + c / 2) + sqrt(c / 2))^2."""
    half = complexity(kl, n, delta) / 2
    return ((unit("q", q) + half).sqrt() + half.sqrt()).square()


def lambda_bound(q: Number, kl: Number, n: Number, delta: Number, t: Number) -> Float[Tensor, ...]:
    """q / (1 - t / 2) + c / (t (1 - t / 2)): holds for all t in (0, 2) at once, so t may depend on the sample."""
    t = checked("t", t, lambda x: (x <= 0) | (x >= 2), "it lies in (0, 2)")
    return unit("q", q) / (1 - t / 2) + complexity(kl, n, delta) / (t * (1 - t / 2))


def best_t(q: Number, kl: Number, n: Number, delta: Number) -> Float[Tensor, ...]:
    """The t at which `lambda_bound` is least: 2 / (1 + sqrt(1 + 2 q / c)); the bound holds there, too."""
    return 2 / (1 + (1 + 2 * unit("q", q) / complexity(kl, n, delta)).sqrt())


def catoni(q: Number, kl: Number, n: Number, delta: Number, lam: Number) -> Float[Tensor, ...]:
    """(1 - exp(-(lambda q + kl + ln(1 / delta)) / n)) / (1 - exp(-lambda / n)), lambda fixed before the sample."""
    lam, n = positive("lambda", lam), sample_size("n", n)
    paid = lam * unit("q", q) + non_negative("KL", kl) - torch.log(confidence("delta", delta))
    return torch.expm1(-paid / n) / torch.expm1(-lam / n)


def alquier_bounded(q: Number, kl: Number, n: Number, delta: Number, lam: Number, bound: Number) -> Float[Tensor, ...]:
    """Alquier's bound by Hoeffding's lemma, loss in [0, B]: q + (kl + ln(1 / delta)) / lambda + lambda B^2 / (8 n)."""
    lam, n, bound = positive("lambda", lam), sample_size("n", n), positive("B", bound)
    risk, paid = _bounded_risk(q, bound), non_negative("KL", kl) - torch.log(confidence("delta", delta))
    return risk + paid / lam + lam * bound.square() / (8 * n)


def alquier_optimal(q: Number, kl: Number, n: Number, delta: Number, bound: Number) -> Float[Tensor, ...]:
    """The same at the lambda that minimises it, q + B sqrt((kl + ln(1 / delta)) / (2 n)): optimistic, an estimate."""
    n, bound = sample_size("n", n), positive("B", bound)
    paid = non_negative("KL", kl) - torch.log(confidence("delta", delta))
    return _bounded_risk(q, bound) + bound * (paid / (2 * n)).sqrt()


def seeger_clipped(q: Number, kl: Number, n: Number, delta: Number, bound: Number) -> Float[Tensor, ...]:
    """B * seeger(q / B): the kl-inverse for a loss in [0, B], such as the NLL clipped at B = ln(1 / p_min)."""
    bound = positive("B", bound)
    return bound * seeger((_bounded_risk(q, bound) / bound).clamp_max(1), kl, n, delta)


def _bounded_risk(q: Number, bound: Tensor) -> Tensor:
    risk = non_negative("q", q)
    if (risk > bound * (1 + 1e-12)).any():
        raise BoundError(f"q is {risk.max().item():.12g}, above B = {bound.min().item():.12g}: clip the loss at B")
    return risk


def elbo(q: Number, kl: Number, lam: Number) -> Float[Tensor, ...]:
    """q + kl / lambda: what variational inference minimises. No guarantee."""
    return non_negative("q", q) + non_negative("KL", kl) / positive("lambda", lam)


def pac_bayes_mgf(q: Number, kl: Number, C: Number, lam: Number, delta: Number) -> Float[Tensor, ...]:
    """q + (kl + ln(1 / delta) + C) / lambda, with C >= ln E_w E_S exp(lambda (L_D - L_S)) (section 3.1).

    The loss may be unbounded. lambda is fixed before the sample is seen; otherwise use `lambda_grid`.
    """
    lam, kl, C = positive("lambda", lam), non_negative("KL", kl), checked("C", C, torch.isneginf, "it is a log-MGF")
    return non_negative("q", q) + (kl - torch.log(confidence("delta", delta)) + C) / lam


class Grid(NamedTuple):
    """The bounds at every lambda [J], the least of them, its place and its lambda."""

    values: Tensor
    best: Tensor
    argmin: int
    lam: float


def lambda_grid(q: Number, kl: Number, C: Float[Tensor, " J"], lams: Float[Tensor, " J"], delta: Number) -> Grid:
    """`pac_bayes_mgf` at J lambdas that were fixed before the sample, each at confidence delta / J, and the least.

    Raises:
        BoundError: no lambda, as many C as lambdas are missing, or what `pac_bayes_mgf` refuses.
    """
    lams, C = finite("lambda", lams), torch.as_tensor(C, dtype=torch.float64)
    if lams.ndim != 1 or lams.shape != C.shape or not len(lams):
        raise BoundError(f"lambdas of shape {list(lams.shape)} and C of {list(C.shape)}: give one C for each of J >= 1")
    values = pac_bayes_mgf(q, kl, C, lams, confidence("delta", delta) / len(lams))
    at = int(values.argmin())
    return Grid(values, values[at], at, float(lams[at]))
