"""Solved cases derived a second time, by another road: the theory table of the quick tier.

Each closed form of sections 3.3 to 3.6 stands beside the same number by quadrature, or by the function that users call.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from logsobolev_bounds import theory
from logsobolev_bounds.mgf import c_lipschitz, class_corrected, comonotone, herbst, on_average, psi

ALPHAS = (0.1, 1.0, 4.0)
MARGINS = ((0.0, 1.0), (1.0, 0.5), (2.0, 3.0))  # mean and deviation of the logistic loss's margin
_KAPPA = 2.0  # eigenvalue of the covariance, in two dimensions


class Solved(NamedTuple):
    """A number by its closed form and derived again; `what` names the formula, `at` where it is taken."""

    what: str
    at: str
    closed: float
    derived: float

    @property
    def error(self) -> float:
        """Relative."""
        return abs(self.derived - self.closed) / abs(self.closed)


def _of_gaussian(kind: str, alpha: float) -> tuple[float, float, float, float]:
    """E l, E g, psi and T1 at alpha by quadrature, of r^2 / 2 (`quadratic`) or 3 + r (`affine`), r ~ N(0, 1)."""
    loss, slope = {
        "quadratic": (lambda r: r.square() / 2, lambda r: r),
        "affine": (lambda r: 3 + r, torch.ones_like),
    }[kind]
    s, w = theory.legendre(0, alpha, max(1, math.ceil(alpha)), 16)
    one = torch.ones(1, dtype=torch.float64)
    at = theory.gaussian_margin(loss, slope, 0 * one, one, torch.cat([s, s.new_tensor([alpha])]))
    return float(at.risk[0]), float(at.grad_sq[0]), float(at.psi[0, -1]), alpha / 2 * float(at.G[0, :-1] @ w)


def _grid(alpha: float) -> Tensor:
    return torch.linspace(0, alpha, 17, dtype=torch.float64)


def solved_cases() -> list[Solved]:
    """Every case that has a closed form, at each of `ALPHAS`."""
    out = []
    for alpha in ALPHAS:
        at = f"alpha {alpha:g}"
        exact = theory.quadratic(1.0, alpha)
        risk, grad_sq, exponent, t1 = _of_gaussian("quadratic", alpha)
        one = torch.ones(1, dtype=torch.float64)
        t2 = float(on_average(risk * one, grad_sq * one, _grid(alpha))[0, -1])
        out += [
            Solved("psi, quadratic loss", at, exact.psi, exponent),
            Solved("T1, quadratic loss", at, exact.lsi_full_noise, t1),
            Solved("T2, quadratic loss", at, exact.on_average, t2),
        ]
        _, grad_sq, exponent, t1 = _of_gaussian("affine", alpha)
        out += [
            Solved("psi, affine loss", at, alpha**2 / 2, exponent),
            Solved("T1, affine loss", at, alpha**2 / 2, t1),
            Solved("co-monotone, affine loss", at, alpha**2 / 2, float(comonotone(grad_sq * one, _grid(alpha))[0, -1])),
        ]
        loss = torch.tensor([6 * [0.0] + 2 * [1.0]], dtype=torch.float64)
        corrected = class_corrected(loss, 0 * loss, (loss[0] > 0).long(), _grid(alpha))
        out.append(Solved("class-corrected, flat classes", at, theory.flat_classes(0.25, 0, 1, alpha).psi,
                          float(corrected[0, -1])))  # fmt: skip
        loss = torch.linspace(0, 3, 50, dtype=torch.float64)[None]
        out.append(Solved("Herbst's identity, 50 losses", at, float(psi(loss, _grid(alpha))[0, -1]),
                          float(herbst(loss, _grid(alpha))[0, -1])))  # fmt: skip
    # C of 3.5, -1/2 sum ln(1 - lambda^2 sigma^2 kappa / m): polar quadrature of E_w exp(lambda^2 w' Sigma w / (2 m)).
    for share in (0.1, 0.5):
        m, sigma = 50, 0.3
        lam = math.sqrt(share * m / _KAPPA) / sigma
        r, w = theory.legendre(0, 40, 40, 20)
        derived = math.log(float((w * r * torch.exp((share - 1) * r.square() / 2)).sum()))
        closed = float(c_lipschitz(torch.full((2,), _KAPPA, dtype=torch.float64), sigma, lam, m))
        out.append(Solved("C, linear models", f"lambda² sigma² kappa / m = {share:g}", closed, derived))
    return out


def least_slack() -> float:
    """Least relative slack in psi <= T1 <= co-monotone <= Lipschitz and T1 <= T2 for the logistic loss (3.3 to 3.5)."""
    slacks = []
    for mean, std in MARGINS:
        for alpha in ALPHAS:
            it = theory.logistic_1d(mean, std, alpha)
            ordered = (it.psi, it.lsi, it.comonotone, it.lipschitz)
            pairs = (*itertools.pairwise(ordered), (it.lsi, it.on_average))
            slacks += [(high - low) / high for low, high in pairs]
    return min(slacks)
