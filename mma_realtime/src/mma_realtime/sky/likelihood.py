"""What one arrival time in one direction says, with the distance integrated out (section 8).

With z_i = (r_i / D) [(1 + u^2)/2 F+ + i u Fx] e^(i phi), phase integrated: -A/(2 D^2) + ln I0(B/D), A = sum |m_i|^2,
B = |sum conj(m_i) z_i|. Two reductions make it cheap, and neither approximates:

- F+ and Fx turn with twice the polarisation angle, so A and B^2 are linear in three and four numbers that know neither
  psi nor u, and of period pi/2 in psi: half of the nodes in [0, pi) repeat the others.
- with a = sqrt(A) / D_max, the SNR expected at the largest distance, and b = B / sqrt(A), the SNR found, the integral
  over the distance is 3 a^3 * integral over w > a of w^-4 exp(-w^2/2) I0(b w) dw, w = a D_max / D: a table in
  (ln a, b), one running sum from large w down. The distance's mean and mean square have w^-5 and w^-6 instead.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

U_NODES = 10  # Gauss-Legendre in [-1, 1]
PSI_NODES = 10  # even in [0, pi)
LEAST_LN_A = -10.0  # of the table: directions that a network as good as does not hear
STEP_LN_A, STEP_B = 0.01, 0.04
BEYOND = 12.0  # above b, where nothing is left of the integral
SUBNODES, SUBWEIGHTS = np.polynomial.legendre.leggauss(5)  # in each step of ln w
LEAST = 1e-300  # of an integral


def nodes() -> tuple[Float64[Tensor, "4 node"], Float64[Tensor, "3 node"], Float64[Tensor, " node"]]:
    """How B^2 and A depend on inclination and polarisation, and ln of the nodes' weights (which add up to 1).

    Returns:
        coefficients of |X|^2, |Y|^2, Re X Y*, Im X Y* in B^2, X = sum r_i a_i z_i, Y = sum r_i b_i z_i, a_i and b_i the
        antenna patterns at psi = 0; and those of sum r_i^2 a_i^2, r_i^2 b_i^2, r_i^2 a_i b_i in A.
    """
    u, weight = np.polynomial.legendre.leggauss(U_NODES)
    psi = np.pi * np.arange(PSI_NODES // 2) / PSI_NODES
    u, psi, weight = (x.ravel() for x in np.broadcast_arrays(u[:, None], psi, weight[:, None]))
    h, c, s = (1 + u**2) / 2, np.cos(2 * psi), np.sin(2 * psi)
    # F+ = a c + b s, Fx = b c - a s
    squares = np.stack([h**2 * c**2 + u**2 * s**2, h**2 * s**2 + u**2 * c**2, 2 * c * s * (h**2 - u**2)])
    found = np.concatenate([squares, [-2 * h * u]])
    return torch.from_numpy(found), torch.from_numpy(squares), torch.from_numpy(np.log(weight / weight.sum()))


class DistanceTable:
    """ln of the distance integral less b^2/2, and mean and mean square of D / D_max, between the points of a grid.

    Args:
        most_a: up to which a.
        most_b: up to which b.
    """

    def __init__(self, most_a: float, most_b: float) -> None:
        ln_a = torch.arange(LEAST_LN_A, math.log(most_a) + 2 * STEP_LN_A, STEP_LN_A, dtype=torch.float64)
        b = torch.arange(0, most_b + 2 * STEP_B, STEP_B, dtype=torch.float64)
        table = integrals(ln_a, b)
        self._b, self._ln_a = float(b[-1]), (LEAST_LN_A, float(ln_a[-1]))
        self._table = table[None].float()
        # The largest value at any a and at any b up to this one, at the upper end of each step.
        self._at_most = (table[0].amax(0) + b**2 / 2).cummax(0).values

    def row(self, ln_a: Float64[Tensor, "n m"]) -> Float32[Tensor, "n m"]:
        """Place of each ln a in the table."""
        low, high = self._ln_a
        return ((ln_a - low) * (2 / (high - low)) - 1).float()

    def at_most(self, squared: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """What ln of the integral does not exceed at any a and at any b of at most this square (b^2/2 included)."""
        step = (squared.sqrt() * (1 / STEP_B)).long() + 1
        return self._at_most[step.clamp_(max=len(self._at_most) - 1)]

    def __call__(self, row: Float32[Tensor, "n m"], b: Float32[Tensor, "n m"]) -> Float32[Tensor, "3 n m"]:
        """ln of the integral, and the mean of D / D_max and of its square."""
        grid = torch.empty(1, *row.shape, 2)
        torch.mul(b, 2 / self._b, out=grid[0, ..., 0]).sub_(1)
        grid[0, ..., 1] = row
        return torch.nn.functional.grid_sample(self._table, grid, padding_mode="border", align_corners=True)[0]


def integrals(ln_a: Float64[Tensor, " a"], b: Float64[Tensor, " b"]) -> Float64[Tensor, "3 a b"]:
    """The table, by one running sum in ln w.

    Args:
        ln_a: evenly spaced.
    """
    step = float(ln_a[1] - ln_a[0])
    cells = max(len(ln_a), math.ceil((math.log(float(b[-1]) + BEYOND) - float(ln_a[0])) / step))
    begin = float(ln_a[0]) + step * torch.arange(cells, dtype=torch.float64)
    sums = torch.zeros(3, cells, len(b), dtype=torch.float64)
    for node, weight in zip((SUBNODES + 1) / 2, SUBWEIGHTS / 2):
        w = (begin + step * node).exp()[:, None]
        integrand = torch.special.i0e(b * w) * torch.exp(-((w - b) ** 2) / 2) * (step * weight)
        for k in range(3):
            sums[k] += integrand * w ** -(3 + k)  # w^-(4 + k) dw = w^-(3 + k) d ln w
    upward = sums.flip(1).cumsum_(1).flip(1)[:, : len(ln_a)]
    a = ln_a.exp()[:, None]
    log = math.log(3) + 3 * ln_a[:, None] + upward[0].clamp(min=LEAST).log()
    known = upward[0] > LEAST
    mean, square = (torch.where(known, a**k * upward[k] / upward[0], 1.0) for k in (1, 2))
    return torch.stack([log, mean, square])
