"""The field's ansatz for the distance in one pixel: p(r) = N r^2 exp(-(r - mu)^2 / (2 sigma^2)) / (sqrt(2 pi) sigma).

With t = r / sigma and x = mu / sigma the mean, the standard deviation and the norm follow from integrals of
t^2 exp(-(t - x)^2 / 2) over t > 0. Mean over standard deviation rises with x, so a table of it gives mu and sigma back.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from jaxtyping import Float64
from scipy.interpolate import CubicSpline

Numbers = Float64[np.ndarray, " n"]
LEAST_X, MOST_X = -20.0, 1e4  # of the table
NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)


def _shape(x: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Mean and standard deviation of t, and log of the integral (by quadrature: the closed form cancels for x < 0)."""
    top = (x + np.sqrt(x**2 + 8)) / 2  # of t^2 exp(-(t - x)^2 / 2)
    width = 1 / np.sqrt(2 / top**2 + 1)
    low, high = np.maximum(top - 9 * width, 0), top + 14 * width  # for x < 0 the upper tail is only exponential
    t = low[:, None] + (high - low)[:, None] * (NODES + 1) / 2
    log = 2 * np.log(t / top[:, None]) - ((t - x[:, None]) ** 2 - (top - x)[:, None] ** 2) / 2
    weight = np.exp(log) * WEIGHTS
    total = weight.sum(1)
    mean = (weight * t).sum(1) / total
    std = np.sqrt((weight * (t - mean[:, None]) ** 2).sum(1) / total)
    return mean, std, np.log(total * (high - low) / 2) + 2 * np.log(top) - (top - x) ** 2 / 2


@cache
def _x_of_ratio() -> CubicSpline:
    x = np.sinh(np.linspace(math.asinh(LEAST_X), math.asinh(MOST_X), 3001))
    mean, std, _ = _shape(x)
    return CubicSpline(mean / std, x)


def moments(mu: Numbers, sigma: Numbers) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation of the distance.

    Args:
        mu, sigma: finite, in one unit, which the result has.
    """
    mean, std, _ = _shape(np.asarray(mu) / np.asarray(sigma))
    return mean * sigma, std * sigma


def parameters(mean: Numbers, std: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """mu, sigma and norm of the ansatz with this mean and standard deviation.

    Where there are none (no finite mean, or a spread beyond an exponential's) it is infinity, 1 and 0: the standard's
    way to say that a pixel says nothing of the distance.
    """
    spline = _x_of_ratio()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(mean / std, dtype=np.float64)
    fits = (ratio >= spline.x[0]) & (ratio <= spline.x[-1])  # not so for NaN
    mu, sigma, norm = np.full(ratio.shape, np.inf), np.ones(ratio.shape), np.zeros(ratio.shape)
    x = spline(ratio[fits])
    _, unit_std, log_integral = _shape(x)
    sigma[fits] = std[fits] / unit_std
    mu[fits] = x * sigma[fits]
    norm[fits] = math.sqrt(2 * math.pi) * np.exp(-log_integral) / sigma[fits] ** 2
    return mu, sigma, norm
