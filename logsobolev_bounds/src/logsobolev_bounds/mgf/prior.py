"""From bounds per weight draw to C(lambda, p), and the curve that the papers fit to it (sections 3.7 and 3.8)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from logsobolev_bounds.bounds.result import RELIABLE_ESS
from logsobolev_bounds.errors import BoundError, checked, finite, positive


class LogC(NamedTuple):
    """C [T] and the effective number of draws behind it, ess [T]."""

    C: Tensor
    ess: Tensor

    @property
    def unreliable(self) -> Bool[Tensor, " T"]:
        """Where ESS < 10: C is then close to a maximum over draws, and too small."""
        return self.ess < RELIABLE_ESS


def log_c(H: Float[Tensor, "K T"]) -> LogC:
    """C = ln 1/K sum_k e^{H_k}, with H_k = m psi_k(lambda / m) or a bound on it: the power m is INSIDE the mean.

    ESS = (sum e^H)^2 / sum e^{2H}. An infinite H gives an infinite C, with ESS 1.

    Raises:
        BoundError: no draw, NaN or -infinity.
    """
    H = torch.as_tensor(H, dtype=torch.float64)
    if H.ndim < 1 or not H.shape[0]:
        raise BoundError(f"H has shape {list(H.shape)}: at least one draw is needed")
    H = checked("H", H, torch.isneginf, "it is m times a log-MGF, at least 0")
    total = torch.logsumexp(H, 0)
    ess = torch.exp(2 * total - torch.logsumexp(2 * H, 0))
    return LogC(total - math.log(len(H)), torch.where(total.isposinf(), 1.0, ess))


class SubGamma(NamedTuple):
    """C(lambda) = lambda^2 v / (2 (1 - c lambda)): variance factor v, scale c, root mean square of the log residual."""

    v: float
    c: float
    rms: float


def subgamma_fit(lam: Float[Tensor, " J"], C: Float[Tensor, " J"]) -> SubGamma:
    """Least squares of ln C over the grid, v > 0 and c < 1 / max lambda (Figure 1 of the 2020 paper).

    For a given c the best ln v is a mean, so one variable is left: t with c = (1 - e^t) / max lambda.

    Raises:
        BoundError: fewer than 3 lambdas, different shapes, lambda or C not positive and finite.
    """
    lam, C = (torch.as_tensor(each, dtype=torch.float64) for each in (lam, C))
    if lam.ndim != 1 or lam.shape != C.shape or len(lam) < 3:
        raise BoundError(
            f"lambdas of shape {list(lam.shape)}, C {list(C.shape)}: two constants need at least 3 of each"
        )
    x, value = positive("lambda", finite("lambda", lam)).cpu().numpy(), positive("C", C).cpu().numpy()
    height, largest = np.log(2 * value / x**2), float(x.max())

    def residual(t: float) -> np.ndarray:
        # ln C - ln(lambda^2 / 2) + ln(1 - c lambda), less its mean, which is ln v.
        scaled = height + np.log1p(np.expm1(t) * x / largest)
        return scaled - scaled.mean()

    def cost(t: float) -> float:
        return float(np.square(residual(t)).sum())

    grid = np.linspace(-30, 30, 601)
    at = int(np.argmin([cost(t) for t in grid]))
    bounds = (grid[max(0, at - 1)], grid[min(600, at + 1)])
    t = float(minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x)
    log_v = float((height + np.log1p(np.expm1(t) * x / largest)).mean())
    return SubGamma(math.exp(log_v), -math.expm1(t) / largest, float(np.sqrt(np.square(residual(t)).mean())))
