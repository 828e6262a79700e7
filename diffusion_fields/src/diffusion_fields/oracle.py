"""The exact oracle (section 6): what the best denoiser and the ideal sampler do for Gaussian fields. NumPy, float64.

K is the covariance of the field at the queries. At level abar the noisy values have S = abar K + (1 - abar) I, and the
best estimate of eps_q from the noisy context C and q's own noisy value is linear:

    row of the gain      sqrt(1 - abar) (S restricted to C u {q})^-1, the row of q
    its error            1 - (1 - abar) [ (S restricted to C u {q})^-1 ]_qq

No network of section 3 has a smaller loss. With it, each reverse step is linear in the values, so that the covariance
of samples follows from a recursion, for any context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int
from numpy.polynomial.legendre import legval

from diffusion_fields.errors import FieldError

Array = np.ndarray


# ---- bands of harmonics ----


@dataclass(frozen=True)
class Band:
    """A Gaussian field on a band of orthonormal functions.

    Args:
        basis: (N, k) functions at the points, the constant first. variances: (k,) of their coefficients, the
            constant's 0. degrees: (k,) the degree l of each function (on the circle the mode), 0 for the constant.
    """

    basis: Float64[Array, "N k"]
    variances: Float64[Array, " k"]
    degrees: Int[Array, " k"]

    @property
    def covariance(self) -> Float64[Array, "N N"]:
        return (self.basis * self.variances) @ self.basis.T


def fibonacci_sphere(n: int) -> Float64[Array, "n 3"]:
    """n points: z_i = 1 - (2 i + 1) / n, azimuth pi (1 + sqrt 5) (i + 1/2)."""
    if n < 1:
        raise FieldError(f"a sphere of {n} points: at least 1 is needed")
    i = np.arange(n)
    z, phi = 1 - (2 * i + 1) / n, np.pi * (1 + np.sqrt(5)) * (i + 0.5)
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], 1)


def real_sph_harm(points: Float64[Array, "N 3"], L: int) -> Float64[Array, "N harmonics"]:
    """Real spherical harmonics of degree l = 0..L at unit vectors; column l^2 + l + m, sine for m < 0.

    Orthonormal on the sphere, no Condon-Shortley sign: columns 1, 2, 3 are proportional to y, z, x.
    """
    x, y, z = _on_sphere(points).T
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    out = np.empty((len(z), (L + 1) ** 2))
    diagonal = np.full_like(z, np.sqrt(1 / (4 * np.pi)))  # N_mm P_m^m
    for m in range(L + 1):
        if m:
            diagonal = diagonal * np.sqrt((2 * m + 1) / (2 * m)) * r
        before, now = np.zeros_like(z), diagonal
        for l in range(m, L + 1):
            if l > m:  # the three-term recursion in l, on normalised functions: it does not overflow
                a = np.sqrt((4 * l * l - 1) / (l * l - m * m))
                b = np.sqrt(((l - 1) ** 2 - m * m) / (4 * (l - 1) ** 2 - 1))
                before, now = now, a * (z * now - b * before)
            if m:
                out[:, l * l + l + m] = np.sqrt(2) * now * np.cos(m * phi)
                out[:, l * l + l - m] = np.sqrt(2) * now * np.sin(m * phi)
            else:
                out[:, l * l + l] = now
    return out


def _on_sphere(points: Array) -> Float64[Array, "N 3"]:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.allclose((points**2).sum(1), 1, atol=1e-5):
        raise FieldError(f"points of shape {points.shape}: expected unit vectors (N, 3)")
    return points


def grf_cov(a: Float64[Array, "n 3"], b: Float64[Array, "m 3"], C_l: Float64[Array, " L"]) -> Float64[Array, "n m"]:
    """K(a, b) = sum_l C_l sum_m Y_lm(a) Y_lm(b), by the addition theorem sum_l C_l (2l + 1) / 4 pi P_l(a . b)."""
    C_l = np.asarray(C_l, dtype=np.float64)
    weights = C_l * (2 * np.arange(len(C_l)) + 1) / (4 * np.pi)
    return legval(np.clip(_on_sphere(a) @ _on_sphere(b).T, -1, 1), weights)


def sphere_spectrum(L: int, tilt: float) -> Float64[Array, " L+1"]:
    """C_l of l = 0..L: C_0 = 0, C_l proportional to (1 + l)^-tilt, sum (2l + 1) C_l / 4 pi = 1 (unit variance)."""
    l = np.arange(L + 1)
    C_l = np.where(l > 0, (1.0 + l) ** -tilt, 0)
    return C_l * 4 * np.pi / ((2 * l + 1) * C_l).sum()


def sphere_band(points: Float64[Array, "N 3"], C_l: Float64[Array, " L+1"]) -> Band:
    """The field on the sphere with this spectrum (l from 0), at unit vectors."""
    L = len(C_l) - 1
    degrees = np.repeat(np.arange(L + 1), 2 * np.arange(L + 1) + 1)
    return Band(real_sph_harm(points, L), np.asarray(C_l, dtype=np.float64)[degrees], degrees)


# ---- the best denoiser ----


class Denoiser:
    """The Bayes estimate of the noise for one context, at any level.

    S_C at all levels has the eigenvectors of K_C, so that one decomposition serves them all.
    """

    def __init__(self, K: Float64[Array, "N N"], ctx: Int[Array, " context"]) -> None:
        K, ctx = np.asarray(K, dtype=np.float64), np.asarray(ctx, dtype=np.int64)
        if K.ndim != 2 or K.shape[0] != K.shape[1] or not np.allclose(K, K.T, atol=1e-8):
            raise FieldError(f"covariance of shape {K.shape}: expected a symmetric matrix")
        if len(np.unique(ctx)) < len(ctx) or (len(ctx) and not 0 <= ctx.min() <= ctx.max() < len(K)):
            raise FieldError(f"context: expected distinct indices in 0..{len(K) - 1}")
        self.K, self.ctx = K, ctx
        self.rest = np.setdiff1d(np.arange(len(K)), ctx)
        self.eigenvalues, self.vectors = np.linalg.eigh(K[np.ix_(ctx, ctx)])
        self.cross = self.vectors.T @ K[np.ix_(ctx, self.rest)]  # K_Cq in those eigenvectors
        self.own = np.diag(K)[self.rest]

    def _levels(self, abar: Array) -> tuple[Array, Array]:
        """1 / eigenvalues of S_C, and the variance of each remaining point's noisy value given the context's."""
        inverse = 1 / (abar[:, None] * self.eigenvalues + (1 - abar)[:, None])
        explained = abar[:, None] ** 2 * (inverse @ self.cross**2)
        return inverse, abar[:, None] * self.own + (1 - abar)[:, None] - explained

    def mse(self, abar: float | Array) -> Float64[Array, "*T N"]:
        """Mean squared error of the noise at every point; at several levels at once, (T, N)."""
        levels = _open(abar)
        inverse, variance = self._levels(levels)
        out = np.empty((len(levels), len(self.K)))
        out[:, self.ctx] = 1 - (1 - levels)[:, None] * (inverse @ self.vectors.T**2)
        out[:, self.rest] = 1 - (1 - levels)[:, None] / variance
        return out if np.ndim(abar) else out[0]

    def gain(self, abar: float) -> Float64[Array, "N N"]:
        """Row q maps all noisy values to E[eps_q | context, own value]; other columns are 0."""
        inverse, variance = self._levels(_open(abar))
        scaled = self.vectors * inverse[0]
        G = np.zeros_like(self.K)
        G[np.ix_(self.ctx, self.ctx)] = scaled @ self.vectors.T
        G[np.ix_(self.rest, self.ctx)] = -abar * (scaled @ self.cross).T / variance[0][:, None]
        G[self.rest, self.rest] = 1 / variance[0]
        return np.sqrt(1 - abar) * G


def _open(abar: float | Array) -> Float64[Array, " T"]:
    levels = np.atleast_1d(np.asarray(abar, dtype=np.float64))
    if not ((levels >= 0) & (levels < 1)).all():
        raise FieldError("abar: levels of noise lie in [0, 1)")
    return levels


def bayes_gain(K: Float64[Array, "N N"], ctx: Int[Array, " context"], abar: float) -> Float64[Array, "N N"]:
    """Row q: the linear map from all noisy values to the best estimate of eps_q from the context and its own value."""
    return Denoiser(K, ctx).gain(float(abar))


def bayes_mse(K: Float64[Array, "N N"], ctx: Int[Array, " context"], abar: float | Array) -> Float64[Array, "*T N"]:
    """Error of that estimate at every point; abar may be several levels, (T, N)."""
    return Denoiser(K, ctx).mse(abar)


def bayes_floor(K: Float64[Array, "N N"], ctx: Int[Array, " context"], abars: Array) -> float:
    """The minimum of the loss for this context: the error averaged over levels and points."""
    return float(Denoiser(K, ctx).mse(np.atleast_1d(abars)).mean())


def own_only_floor(abars: Array, variance: float = 1.0) -> float:
    """The smallest loss from a point's own value alone, averaged over levels: mean abar for unit variance."""
    signal = _open(abars) * variance
    return float((signal / (signal + 1 - _open(abars))).mean())


def context_efficiency(own: float, val: float, floor: float) -> float:
    """(own - val) / (own - floor): 0 = the context is not used, 1 = it is used as well as can be."""
    if not own > floor:
        raise FieldError(f"context efficiency: own-only floor {own:g} is not above the Bayes floor {floor:g}")
    return (own - val) / (own - floor)


# ---- the ideal sampler ----


def sampler_covariance(
    K: Float64[Array, "N N"],
    ctx: Int[Array, " context"],
    schedule: Any,
    steps: Sequence[int] | None = None,
    eta: float = 1.0,
) -> Float64[Array, "N N"]:
    """Exact covariance of samples drawn with the best denoiser: Sigma <- A Sigma A^T + sigma^2 I, from Sigma = I.

    Args:
        schedule: has `betas` and `alphas_cumprod`. steps: None: ancestral sampling through all; else DDIM through this
            descending list. eta: of DDIM; 0 is deterministic.
    """
    denoiser = Denoiser(K, ctx)
    identity = np.eye(len(denoiser.K))
    Sigma = identity
    for mean, gain, sigma, abar in reverse_steps(schedule, steps, eta):
        A = mean * identity + gain * denoiser.gain(abar)
        Sigma = A @ Sigma @ A.T + sigma**2 * identity
    return (Sigma + Sigma.T) / 2


def reverse_steps(
    schedule: Any, steps: Sequence[int] | None = None, eta: float = 1.0
) -> list[tuple[float, float, float, float]]:
    """(m, g, sigma, abar) of each step Y <- m Y + g eps_hat + sigma z: section 2.4 without clamping."""
    betas, abars = np.asarray(schedule.betas), np.append(np.asarray(schedule.alphas_cumprod), 1.0)
    if steps is None:
        steps, eta = range(len(betas))[::-1], 1.0
    out = []
    for t, after in zip(steps, [*steps[1:], -1]):
        abar, to = abars[t], abars[after]
        s = eta * np.sqrt((1 - to) / (1 - abar)) * np.sqrt(1 - abar / to)
        m = np.sqrt(to / abar)
        out.append((m, np.sqrt(max(1 - to - s * s, 0)) - m * np.sqrt(1 - abar), s, abar))
    return out


def gaussian_posterior(
    K: Float64[Array, "N N"], observed_index: Int[Array, " o"], values: Float64[Array, "*B o"]
) -> tuple[Float64[Array, "*B N"], Float64[Array, "N N"]]:
    """Mean K_qo K_oo^-1 y_o and covariance of the field given exact values: the truth of a completion.

    K_oo of a band-limited field is singular when it is observed often enough: its pseudo-inverse is taken.
    """
    K, values = np.asarray(K, dtype=np.float64), np.asarray(values, dtype=np.float64)
    o = np.asarray(observed_index, dtype=np.int64)
    if values.shape[-1] != len(o):
        raise FieldError(f"{values.shape[-1]} observed values at {len(o)} points")
    weights = K[:, o] @ np.linalg.pinv(K[np.ix_(o, o)], rcond=1e-10, hermitian=True)
    covariance = K - weights @ K[o]
    return values @ weights.T, (covariance + covariance.T) / 2


def completion_scores(
    samples: Float64[Array, "n N"], mean: Float64[Array, " N"], covariance: Float64[Array, "N N"]
) -> dict[str, float]:
    """How completions of one observation compare with the exact posterior, at points that it leaves open.

    rmse: of the samples' mean to the posterior mean. z_mean, z_std: of (sample - mean) / posterior deviation, 0 and 1
    if calibrated. z_within_90: share within the central 90 %.
    """
    deviation = np.sqrt(np.clip(np.diag(covariance), 0, None))
    open_points = deviation > 1e-3
    if not open_points.any():
        raise FieldError("completion: the observed values determine the whole field; observe fewer points to calibrate")
    samples = np.asarray(samples, dtype=np.float64)[:, open_points]
    z = (samples - mean[open_points]) / deviation[open_points]
    return {
        "rmse": float(np.sqrt(((samples.mean(0) - mean[open_points]) ** 2).mean())),
        "z_mean": float(z.mean()),
        "z_std": float(np.sqrt((z**2).mean())),
        "z_within_90": float((np.abs(z) < 1.6448536269514722).mean()),
    }


# ---- reading samples ----


def _root(S: Array) -> Array:
    values, vectors = np.linalg.eigh((S + S.T) / 2)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def w2_sq_gaussian(S_a: Float64[Array, "k k"], S_b: Float64[Array, "k k"]) -> float:
    """Squared 2-Wasserstein distance of N(0, S_a) and N(0, S_b): tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)."""
    S_a, S_b = np.asarray(S_a, dtype=np.float64), np.asarray(S_b, dtype=np.float64)
    if S_a.shape != S_b.shape or S_a.ndim != 2 or S_a.shape[0] != S_a.shape[1]:
        raise FieldError(f"covariances of shapes {S_a.shape} and {S_b.shape}: expected two square ones of one size")
    overlap = np.linalg.norm(_root(S_a) @ _root(S_b), "nuc")  # the trace of that root, without a root of a product
    return float(np.trace(S_a) + np.trace(S_b) - 2 * overlap)


@dataclass(frozen=True)
class Reading:
    """What samples with a known covariance look like on a band; `metrics.grf_metrics` reads drawn samples.

    Args:
        ratio: r_l = C_l(sample) / C_l of each degree from 1. grain: g, mean square off the band. w2_sq: between the
            coefficients' Gaussians, the constant included.
    """

    ratio: Float64[Array, " L"]
    grain: float
    w2_sq: float


def read_covariance(Sigma: Float64[Array, "N N"], band: Band) -> Reading:
    """Of samples with this second-moment matrix about 0."""
    project = np.linalg.pinv(band.basis)  # least squares
    C = project @ Sigma @ project.T
    power, degrees = np.diag(C), range(1, int(band.degrees.max()) + 1)
    ratio = [power[band.degrees == l].mean() / band.variances[band.degrees == l].mean() for l in degrees]
    grain = (np.trace(Sigma) - np.trace(band.basis @ C @ band.basis.T)) / len(Sigma)
    return Reading(np.array(ratio), float(grain), w2_sq_gaussian(C, np.diag(band.variances)))


@dataclass(frozen=True)
class ContextRate:
    """One row of the table of section 6: what is the best possible with this many context pairs."""

    num_context: int
    floor: float
    error: float  # ||Sigma - K||_F / ||K||_F
    reading: Reading


def context_rate(band: Band, contexts: Sequence[Int[Array, " context"]], schedule: Any) -> list[ContextRate]:
    """Bayes floor over all t and the ideal ancestral sampler's covariance, for each context."""
    K, abars, rows = band.covariance, np.asarray(schedule.alphas_cumprod), []
    for ctx in contexts:
        Sigma = sampler_covariance(K, ctx, schedule)
        error = np.linalg.norm(Sigma - K) / np.linalg.norm(K)
        rows.append(ContextRate(len(ctx), bayes_floor(K, ctx, abars), float(error), read_covariance(Sigma, band)))
    return rows


def context_rate_table(
    schedule: Any, counts: Sequence[int] = (0, 9, 18, 25, 36, 50, 70, 100), L: int = 5, tilt: float = 2.0, n: int = 100
) -> list[ContextRate]:
    """The table of section 6: n Fibonacci points, contexts the first N_c of `default_rng(0).permutation(n)`."""
    order = np.random.default_rng(0).permutation(n)
    band = sphere_band(fibonacci_sphere(n), sphere_spectrum(L, tilt))
    return context_rate(band, [order[:count] for count in counts], schedule)
