"""Cases that are solved exactly, by a closed form or by quadrature: what estimates are held against.

logistic_1d, quadratic            psi and its bounds for one hypothesis
prior_c_logistic(_truncated)      C(lambda, p) of the 2-d logistic model under a Gaussian prior, whole or cut off
linear_regression(_c)             Bayesian linear regression: KL, risks, C
flat_classes, label_noise         where a bound with the input's gradient alone is wrong (section 3.6)
relu_prior_grad_sq                the expected gradient norm of a random ReLU network (section 3.10)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import ncx2
from torch import Tensor
from torch.nn.functional import softplus

from logsobolev_bounds.bounds.kl import excess
from logsobolev_bounds.errors import BoundError, finite, non_negative, positive, sample_size, unit
from logsobolev_bounds.mgf import c_lipschitz, on_average

_REACH = 10.0  # standard deviations of a margin; what lies beyond weighs 1e-22
_BEND = 8.0  # deviation of a margin up to which 20 panels resolve a loss that bends within one unit
_BLOCK = 1 << 22


def legendre(low: float, high: float, panels: int, order: int) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """Nodes and weights of Gauss-Legendre quadrature on equal panels."""
    x, w = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(order))
    half = (high - low) / (2 * panels)
    middles = low + half * (2 * torch.arange(panels, dtype=torch.float64) + 1)
    return (middles[:, None] + half * x).flatten(), (half * w).repeat(panels)


def normal(panels: int = 20, order: int = 20) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """The same for the expectation over a standard normal variable; the weights have the sum 1."""
    z, w = legendre(-_REACH, _REACH, panels, order)
    w = w * torch.exp(-z.square() / 2)
    return z, w / w.sum()


class Margin(NamedTuple):
    """Of a loss l(t), t ~ N(mean, std^2), for W margins: E l, Var l, E g [W]; ln M, psi, G at every alpha [W, T]."""

    risk: Tensor
    loss_var: Tensor
    grad_sq: Tensor
    log_M: Tensor
    psi: Tensor
    G: Tensor


def gaussian_margin(
    loss: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor], Tensor],
    mean: Float[Tensor, " W"],
    std: Float[Tensor, " W"],
    alphas: Float[Tensor, " T"],
) -> Margin:
    """Section 2 for a loss of one Gaussian variable, whose squared gradient is g = std^2 l'(t)^2, by quadrature."""
    z, w = normal(20 * max(1, math.ceil(float(std.max()) / _BEND))) if std.numel() else normal()
    found = []
    for a, b in zip(*(part.split(max(1, _BLOCK // (len(z) * len(alphas)))) for part in (mean, std))):
        t = a[:, None] + b[:, None] * z
        l, g = loss(t), (b[:, None] * slope(t)).square()
        risk = l @ w
        u = l - risk[:, None]
        exponent = -alphas[:, None] * u[:, None, :]
        # psi = ln E e^{-alpha u} >= 0 from e^x - 1, so that small ones have digits; large ones would overflow.
        large = torch.logsumexp(exponent + w.log(), -1)
        psi = torch.where(large < 1, torch.log1p(torch.expm1(exponent.clamp_max(700)) @ w), large)
        G = (torch.softmax(exponent + w.log(), -1) * g[:, None, :]).sum(-1)
        found.append(Margin(risk, u.square() @ w, g @ w, psi - alphas * risk[:, None], psi, G))
    return Margin(*(torch.cat(part) for part in zip(*found)))


def logistic_margin(mean: Tensor, std: Tensor, alphas: Tensor) -> Margin:
    """Of the binary logistic loss ln(1 + e^{-t})."""
    return gaussian_margin(lambda t: softplus(-t), lambda t: -torch.sigmoid(-t), mean, std, alphas)


class Logistic1d(NamedTuple):
    """psi of the logistic loss and the bounds on it, tightest first, with what they are made of."""

    risk: float
    loss_var: float
    grad_sq: float
    G_alpha: float
    log_M: float
    psi: float
    lsi: float
    comonotone: float
    on_average: float
    lipschitz: float


def logistic_1d(margin_mean: float, margin_std: float, alpha: float) -> Logistic1d:
    """Loss ln(1 + e^{-t}), t ~ N(margin_mean, margin_std^2).

    Raises:
        BoundError: a standard deviation or an alpha that is not positive.
    """
    std, end = positive("margin_std", margin_std), float(positive("alpha", alpha))
    s, w = legendre(0, end, max(1, math.ceil(end)), 16)
    at = logistic_margin(finite("margin_mean", margin_mean)[None], std[None], torch.cat([s, s.new_tensor([end])]))
    risk, loss_var, grad_sq = (float(part) for part in at[:3])
    return Logistic1d(
        risk,
        loss_var,
        grad_sq,
        float(at.G[0, -1]),
        float(at.log_M[0, -1]),
        float(at.psi[0, -1]),
        lsi=end / 2 * float(at.G[0, :-1] @ w),
        comonotone=end**2 * grad_sq / 2,
        on_average=end / 2 * grad_sq * math.expm1(end * risk) / risk,
        lipschitz=end**2 * float(std) ** 2 / 2,
    )


class Quadratic(NamedTuple):
    """psi of the quadratic loss and the bounds on it."""

    risk: float
    grad_sq_full: float
    psi: float
    lsi_full_noise: float
    on_average: float


def quadratic(resid_var: float, alpha: float) -> Quadratic:
    """Loss r^2 / 2, r ~ N(0, resid_var), with the gradient by ALL noise in r. u = alpha resid_var.

    Raises:
        BoundError: a variance or an alpha that is not positive.
    """
    v = float(positive("resid_var", resid_var))
    u = float(positive("alpha", alpha)) * v
    return Quadratic(v / 2, v * v, float(_psi_quadratic(u)), float(_lsi_quadratic(u)), u * math.expm1(u / 2))


def _psi_quadratic(u: float | Tensor) -> Tensor:
    return excess(torch.as_tensor(u, dtype=torch.float64)) / 2


def _lsi_quadratic(u: float | Tensor) -> Tensor:
    u = torch.as_tensor(u, dtype=torch.float64)
    return u * torch.log1p(u) / 2


class PriorC(NamedTuple):
    """C(lambda, p), two bounds on it, and two formulas that are too small by Jensen's inequality."""

    C_exact: float
    C_lsi: float
    C_lipschitz: float
    wrong_inner_expectation: float
    wrong_mean_of_exponent: float


def _weights_2d(mu: tuple[float, float], sigma: float, radius: float = 26) -> tuple[Tensor, Tensor, Tensor]:
    """Of w ~ N(0, sigma^2 I_2) in polar coordinates: mean and deviation of its margin, ln of its probability [W].

    Given |w| < radius sigma; 26 leaves a tail of e^{-0.06 r^2} even where lambda^2 sigma_p^2 = m.
    """
    r, radial = legendre(0, radius, 13, 12)
    angle = torch.linspace(0, math.pi, 49, dtype=torch.float64)  # from mu's: the other half is the same
    around = torch.full_like(angle, 1 / 48)
    around[[0, -1]] /= 2
    log_p = (((r * radial).log() - r.square() / 2)[:, None] + around.log()).flatten()
    std = (sigma * r)[:, None].expand(-1, len(angle))
    return (math.hypot(*mu) * std * angle.cos()).flatten(), std.flatten(), log_p - torch.logsumexp(log_p, 0)


def prior_c_logistic_exact(
    mu: tuple[float, float], sigma_p: float, m: int, lams: Float[Tensor, " J"]
) -> Float[Tensor, " J"]:
    """`C_exact` of `prior_c_logistic` alone, at many lambdas at once.

    Raises:
        BoundError: sigma_p or lambda that is not positive, m < 1.
    """
    alphas = positive("lambda", lams) / sample_size("m", m)
    mean, std, log_p = _weights_2d(mu, float(positive("sigma_p", sigma_p)))
    return torch.logsumexp(log_p[:, None] + m * logistic_margin(mean, std, alphas).psi, 0)


@lru_cache  # a second of quadrature, which simulations ask for again and again
def prior_c_logistic(mu: tuple[float, float], sigma_p: float, m: int, lam: float) -> PriorC:
    """Binary logistic loss of w'x, x given y ~ N(y mu, I_2), w ~ N(0, sigma_p^2 I_2), in polar coordinates of w.

    Raises:
        BoundError: sigma_p or lambda that is not positive, m < 1.
    """
    sigma, end = float(positive("sigma_p", sigma_p)), float(positive("lambda", lam) / sample_size("m", m))
    mean, std, log_p = _weights_2d(mu, sigma)
    s, w = legendre(0, end, max(1, math.ceil(end)), 12)
    at = logistic_margin(mean, std, torch.cat([s, s.new_tensor([end])]))
    psi, p = at.psi[:, -1], log_p.exp()
    return PriorC(
        float(torch.logsumexp(log_p + m * psi, 0)),
        float(torch.logsumexp(log_p + lam / 2 * (at.G[:, :-1] @ w), 0)),
        float(c_lipschitz(torch.ones(2), sigma, lam, m)),
        float(m * torch.log1p(p @ torch.expm1(psi))),
        float(m * (p @ psi)),
    )


def prior_c_logistic_truncated(mu: tuple[float, float], sigma_p: float, m: int, lam: float, radius: float) -> float:
    """C by the on-average bound T2 (section 3.4) for the same model, its prior given |w| < radius sigma_p.

    Finite for every radius, and without a limit: T2 grows with e^{|w|}, the prior falls with e^{-|w|^2 / 2} only per
    draw, and the exponent of C has m of them.

    Raises:
        BoundError: sigma_p, lambda or the radius is not positive and finite, m < 1.
    """
    end = positive("lambda", lam) / sample_size("m", m)
    sigma, cut = float(positive("sigma_p", sigma_p)), float(positive("radius", radius))
    mean, std, log_p = _weights_2d(mu, sigma, cut)
    at = logistic_margin(mean, std, end[None])
    bound = on_average(at.risk, at.grad_sq, torch.stack([torch.zeros_like(end), end]))[:, -1]
    return float(torch.logsumexp(log_p + m * bound, 0))


class LinearRegression(NamedTuple):
    """Of the exact posterior: KL to the prior, mean Gibbs NLL, ln p(y | X), norm of its mean, Gibbs risk."""

    kl: float
    gibbs_nll: float
    log_marginal: float
    posterior_mean_norm: float
    gibbs_true_risk: float


def linear_regression(
    X: Float[Tensor, "n d"],
    y: Float[Tensor, " n"],
    w_true: Float[Tensor, " d"],
    sigma_prior: float,
    sigma_lik: float,
    noise: float,
) -> LinearRegression:
    """Prior N(0, sigma_prior^2 I), likelihood N(w'x, sigma_lik^2); truly x ~ N(0, I), y = w_true'x + N(0, noise^2).

    n * gibbs_nll + kl = -log_marginal: the ELBO is tight at the exact posterior.

    Raises:
        BoundError: NaN in the data, a standard deviation that is not positive, shapes that do not fit.
    """
    if X.ndim != 2 or y.shape != X.shape[:1] or w_true.shape != X.shape[1:]:
        raise BoundError(f"X {list(X.shape)}, y {list(y.shape)}, w_true {list(w_true.shape)}: give [n, d], [n] and [d]")
    X, y, w_true = finite("X", X), finite("y", y), finite("w_true", w_true)
    prior, lik = (
        float(positive(name, it)) ** 2 for name, it in (("sigma_prior", sigma_prior), ("sigma_lik", sigma_lik))
    )
    n, d = X.shape
    eye = torch.eye(d, dtype=torch.float64)
    cov = torch.linalg.inv(X.T @ X / lik + eye / prior)
    mean = cov @ X.T @ y / lik
    constant = math.log(2 * math.pi * lik) / 2
    kl = (cov.trace() / prior + mean @ mean / prior - d - torch.logdet(cov) + d * math.log(prior)) / 2
    nll = ((y - X @ mean).square() + ((X @ cov) * X).sum(1)).mean() / (2 * lik) + constant
    joint = lik * torch.eye(n, dtype=torch.float64) + prior * X @ X.T
    marginal = -(y @ torch.linalg.solve(joint, y) + torch.logdet(joint) + n * math.log(2 * math.pi)) / 2
    risk = ((mean - w_true).square().sum() + cov.trace() + noise**2) / (2 * lik) + constant
    return LinearRegression(float(kl), float(nll), float(marginal), float(mean.norm()), float(risk))


class LinearRegressionC(NamedTuple):
    """C(lambda, p), its bound by T1 up to the 1e-14 quantile (else infinite), and a formula that is too small."""

    C_exact: float
    C_lsi_truncated: float
    wrong_inner_expectation: float


def linear_regression_c(
    d: int, w_norm: float, sigma_prior: float, sigma_lik: float, noise: float, m: int, lam: float
) -> LinearRegressionC:
    """C of the NLL of the same model: |w - w_true|^2 / sigma_prior^2 is non-central chi-square (d, w_norm^2 / ...).

    T1 grows as u ln u against a Gaussian tail, so its expectation is taken up to the upper 1e-14 quantile.

    Raises:
        BoundError: a standard deviation or lambda that is not positive, m < 1.
    """
    prior, lik = float(positive("sigma_prior", sigma_prior)) ** 2, float(positive("sigma_lik", sigma_lik)) ** 2
    alpha = float(positive("lambda", lam) / sample_size("m", m))
    shift = w_norm**2 / prior
    end = float(ncx2.isf(1e-14, d, shift))
    x, w = legendre(0, end, 40, 20)
    p = w * torch.from_numpy(ncx2.pdf(x.numpy(), d, shift))
    p = p / p.sum()
    u = alpha * (prior * x + noise**2) / lik
    psi = _psi_quadratic(u)
    return LinearRegressionC(
        float(torch.logsumexp(p.log() + m * psi, 0)),
        float(torch.logsumexp(p.log() + m * _lsi_quadratic(u), 0)),
        float(m * torch.log1p(p @ torch.expm1(psi))),
    )


class FlatClasses(NamedTuple):
    """psi, the pooled bound that misses it, and the corrected one that meets it."""

    psi: float
    lsi_pooled: float
    lsi_class_corrected: float


def flat_classes(pi: float, loss0: float, loss1: float, alpha: float) -> FlatClasses:
    """A loss that is constant within each of two classes, so without input gradient; pi = P(loss1) (section 3.6).

    Raises:
        BoundError: pi outside [0, 1], a negative alpha.
    """
    pi, alpha = float(unit("pi", pi)), float(non_negative("alpha", alpha))
    x = alpha * (loss1 - loss0)
    psi = math.log1p(pi * math.expm1(-x)) + pi * x
    return FlatClasses(psi, 0.0, psi)


class LabelNoise(NamedTuple):
    """psi, the bound with the input's gradient alone, which misses it, and the one with all noise."""

    psi: float
    lsi_input_gradient_only: float
    lsi_full_noise: float


def label_noise(noise_var: float, alpha: float) -> LabelNoise:
    """Quadratic loss at the true weights, where the input's gradient vanishes and the labels' noise stays.

    Raises:
        BoundError: a variance or an alpha that is not positive.
    """
    at = quadratic(noise_var, alpha)
    return LabelNoise(at.psi, 0.0, at.lsi_full_noise)


def relu_prior_grad_sq(d: int, h: int, hidden_layers: int, sigma_p: float) -> float:
    """E_w |grad_x f_k|^2 = sigma_p^2 d (h sigma_p^2 / 2)^L of one logit of a bias-free ReLU network (section 3.10).

    Raises:
        BoundError: sizes below 1, a negative number of layers, sigma_p that is not positive.
    """
    if d < 1 or h < 1 or hidden_layers < 0:
        raise BoundError(f"d = {d}, h = {h}, {hidden_layers} hidden layers: sizes are at least 1, layers at least 0")
    variance = float(positive("sigma_p", sigma_p)) ** 2
    return variance * d * (h * variance / 2) ** hidden_layers


def relu_prior_loss_grad_sq(d: int, h: int, hidden_layers: int, sigma_p: float, classes: int = 10) -> float:
    """About E |grad_x l|^2 of the cross-entropy while logits are small: E |p - e_y|^2 = 1 - 1 / classes of it."""
    return (1 - 1 / classes) * relu_prior_grad_sq(d, h, hidden_layers, sigma_p)


def critical_sigma(h: int) -> float:
    """sqrt(2 / h): below it the gradient vanishes geometrically with depth, above it explodes."""
    return math.sqrt(2 / float(sample_size("h", h)))
