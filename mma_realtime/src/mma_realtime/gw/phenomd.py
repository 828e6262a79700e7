"""IMRPhenomD without spin (section 2.3): the numbers of each system, in units of its total mass.

x = M f. Amplitude and phase have three pieces each: inspiral, a bridge, merger and ring-down.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from importlib.resources import files

import torch
from jaxtyping import Float64
from scipy.interpolate import CubicSpline
from torch import Tensor

from mma_realtime.gw.taylorf2 import taylorf2_phase
from mma_realtime.kernels.waveform import layout

PI = math.pi
X_AMPLITUDE, X_PHASE, X_CUT = 0.014, 0.018, 0.2  # where the inspiral's amplitude and phase end, and the signal
LARGEST_MASS_RATIO = 18.0  # of the simulations that it was fitted to
Piece = Callable[[Tensor], tuple[Tensor, Tensor]]  # value and slope at x


@cache
def _tables() -> tuple[dict[str, list[float]], CubicSpline, CubicSpline]:
    table = json.loads(files(__package__).joinpath("phenomd.json").read_text())
    qnm = table["qnm"]
    return table["coefficients"], CubicSpline(qnm["a"], qnm["fr"]), CubicSpline(qnm["a"], qnm["fd"])


def fit_coefficients(eta: Float64[Tensor, " batch"]) -> dict[str, Float64[Tensor, " batch"]]:
    """The 19 numbers of table 2.3a at symmetric mass ratio eta: L0 + L1 eta + L2 eta^2."""
    return {name: L0 + L1 * eta + L2 * eta**2 for name, (L0, L1, L2) in _tables()[0].items()}


def ringdown(eta: Float64[Tensor, " batch"]) -> tuple[Float64[Tensor, " batch"], Float64[Tensor, " batch"]]:
    """f_R and f_D, ring-down frequency and damping of the remnant times the total mass (section 2.3)."""
    spin = eta * (2 * math.sqrt(3) - 4.399247300629289 * eta + 9.397292189321194 * eta**2 - 13.180949901606242 * eta**3)
    radiated = eta * (
        0.055974469826360077 + 0.5809510763115132 * eta - 0.9606726679372312 * eta**2 + 3.352411249771192 * eta**3
    )
    _, ring, damp = _tables()
    return torch.as_tensor(ring(spin.numpy())) / (1 - radiated), torch.as_tensor(damp(spin.numpy())) / (1 - radiated)


def inspiral_terms(x: Float64[Tensor, " batch"]) -> tuple[Float64[Tensor, "batch 13"], Float64[Tensor, "batch 13"]]:
    """What `layout.PSI_INS` multiplies at x, and the slopes."""
    with_log, log = torch.tensor(layout.PSI_INS_LOG).double(), x.log()
    k = torch.tensor(layout.PSI_INS_POWERS, dtype=torch.float64) / 3
    power = (k * log[:, None]).exp()
    factor = torch.where(with_log > 0, log[:, None], 1.0)
    return power * factor, power / x[:, None] * (k * factor + with_log)


def _powers(x: Float64[Tensor, " batch"], powers: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """x^k and its slope, one column a power."""
    k = torch.tensor(powers, dtype=torch.float64)
    values = (k * x.log()[:, None]).exp()
    return values, k * values / x[:, None]


class Phase:
    """psi(x) of IMRPhenomD in its three pieces, joined; nothing subtracted for reference yet."""

    def __init__(self, eta: Tensor, fit: dict[str, Tensor], f_R: Tensor, f_D: Tensor) -> None:
        zero, one = torch.zeros_like(eta), torch.ones_like(eta)
        late = torch.stack([fit["s1"], 3 / 4 * fit["s2"], 3 / 5 * fit["s3"], 1 / 2 * fit["s4"]], 1) / eta[:, None]
        self.inspiral = torch.cat([taylorf2_phase(eta), late], 1)
        self.between = torch.stack([zero, fit["b1"], fit["b2"], -fit["b3"] / 3], 1) / eta[:, None]
        self.merger = torch.stack([zero, fit["a1"], -fit["a2"], 4 / 3 * fit["a3"]], 1) / eta[:, None]
        self.atan = torch.stack([fit["a4"] / eta, fit["a5"] * f_R, f_D], 1)
        self.x_int, self.x_mrd = X_PHASE * one, f_R / 2
        self.unjoined = self.merger.clone()  # before C3 and C4, for t0
        self._join(self.between, self.x_int, self.at_inspiral, self.at_between)  # C1, C2
        self._join(self.merger, self.x_mrd, self.at_between, self.at_merger)  # C3, C4

    @staticmethod
    def _join(piece: Tensor, x: Tensor, before: Piece, after: Piece) -> None:
        (value, slope), (own_value, own_slope) = before(x), after(x)
        piece[:, 1] += slope - own_slope
        piece[:, 0] += value - own_value - (slope - own_slope) * x

    def at_inspiral(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = inspiral_terms(x)
        return (self.inspiral * values).sum(1), (self.inspiral * slopes).sum(1)

    def at_between(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one, zero = torch.ones_like(x), torch.zeros_like(x)
        values, slopes = torch.stack([one, x, x.log(), x**-3], 1), torch.stack([zero, one, 1 / x, -3 * x**-4], 1)
        return (self.between * values).sum(1), (self.between * slopes).sum(1)

    def at_merger(self, x: Tensor, joined: bool = True) -> tuple[Tensor, Tensor]:
        values, slopes = _powers(x, (0.0, 1.0, -1.0, 0.75))
        size, centre, width = self.atan.unbind(1)
        away = x - centre
        factors = self.merger if joined else self.unjoined
        value = (factors * values).sum(1) + size * (away / width).atan()
        return value, (factors * slopes).sum(1) + size * width / (away.square() + width.square())

    def at(self, x: Tensor) -> Tensor:
        late = torch.where(x <= self.x_mrd, self.at_between(x)[0], self.at_merger(x)[0])
        return torch.where(x <= self.x_int, self.at_inspiral(x)[0], late)

    def slope_at_peak(self, x_peak: Tensor) -> Tensor:
        """t0: the slope at the amplitude's peak of the merger's piece as it was before C4."""
        return self.at_merger(x_peak, joined=False)[1]

    def shift(self, constant: Tensor, slope: Tensor) -> None:
        """Adds constant + slope x to psi, in every piece."""
        for piece, zeroth, first in ((self.inspiral, 4, 9), (self.between, 0, 1), (self.merger, 0, 1)):
            piece[:, zeroth] += constant
            piece[:, first] += slope


class Amplitude:
    """a(x) of IMRPhenomD in its three pieces, relative to the inspiral's x^(-7/6)."""

    def __init__(self, eta: Tensor, fit: dict[str, Tensor], f_R: Tensor, f_D: Tensor) -> None:
        self.inspiral = torch.stack(
            [
                (1804 * eta - 969) * PI ** (2 / 3) / 672,
                (-27312085 - 47401320 * eta + 35371056 * eta**2) * PI ** (4 / 3) / 8128512,
                42840 * (4 * eta - 1) * PI ** (8 / 3) / 32256,
                -(PI**2)
                * (
                    336 * 3248849057 * eta**2
                    - 324322727232 * eta**3
                    + 7 * 177520268561
                    + 12 * eta * (-545384828789 + 21384760320 * PI**2)
                )
                / 6.0085960704e10,
                fit["rho1"],
                fit["rho2"],
                fit["rho3"],
            ],
            1,
        )
        g1, g2, g3 = fit["g1"], fit["g2"], fit["g3"]
        self.strength, self.centre, self.width, self.decay = g1 * g3 * f_D, f_R, g3 * f_D, g2 / (g3 * f_D)
        self.x_peak = (f_R + f_D * g3 * ((1 - g2**2).sqrt() - 1) / g2).abs()
        self.between = self._quartic(fit["v2"])

    def at_inspiral(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = _powers(x, tuple(k / 3 for k in layout.AMP_INS_POWERS))
        return 1 + (self.inspiral * values).sum(1), (self.inspiral * slopes).sum(1)

    def at_merger(self, x: Tensor) -> tuple[Tensor, Tensor]:
        away = x - self.centre
        lorentzian = away.square() + self.width.square()
        value = self.strength / lorentzian * (-self.decay * away).exp()
        return value, -value * (2 * away / lorentzian + self.decay)

    def _quartic(self, v2: Tensor) -> Float64[Tensor, "batch 5"]:
        """Through a_ins, v2 and a_mrd at x1, x2, x3, with the slopes at x1 and x3; factors of x^0 .. x^4."""
        x1, x3 = torch.full_like(v2, X_AMPLITUDE), self.x_peak
        (low, low_slope), (high, high_slope) = self.at_inspiral(x1), self.at_merger(x3)
        y1, y2, y3 = x1 / x3, (x1 + x3) / 2 / x3, torch.ones_like(x3)  # of order 1: a well conditioned system
        k = torch.arange(5, dtype=torch.float64)
        rows = [y[:, None] ** k for y in (y1, y2, y3)] + [k * y[:, None] ** (k - 1).clamp(min=0) for y in (y1, y3)]
        right = torch.stack([low, v2, high, low_slope * x3, high_slope * x3], 1)
        return torch.linalg.solve(torch.stack(rows, 1), right) / x3[:, None] ** k
