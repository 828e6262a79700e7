"""TaylorF2: the phase of an inspiral to 3.5 post-Newtonian orders (section 2.3), without spin."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from mma_realtime.gw.constants import EULER_GAMMA
from mma_realtime.kernels.waveform import layout

PI = math.pi


def taylorf2_phase(eta: Float64[Tensor, " batch"]) -> Float64[Tensor, "batch 9"]:
    """psi(x) of TaylorF2, x = M f, as factors of the first nine terms of `layout.PSI_INS`: x^(-5/3), ..., x^(2/3)."""
    one = torch.ones_like(eta)
    p2 = 5 * (743 / 84 + 11 * eta) / 9
    p3 = -16 * PI * one
    p4 = 5 * (3058673 / 7056 + 5429 * eta / 7 + 617 * eta**2) / 72
    l5 = 5 / 3 * (7729 / 84 - 13 * eta) * PI
    p5 = l5 / 3
    l6 = -6848 / 21 * one
    p6 = (
        11583231236531 / 4694215680
        - 640 * PI**2 / 3
        - 6848 / 21 * EULER_GAMMA
        + eta * (-15737765635 / 3048192 + 2255 * PI**2 / 12)
        + 76055 * eta**2 / 1728
        - 127825 * eta**3 / 1296
        + l6 * math.log(4)
    )
    p7 = PI * (77096675 / 254016 + 378515 * eta / 1512 - 74045 * eta**2 / 756)
    log_pi = math.log(PI) / 3  # ln v = (ln pi + ln x) / 3
    terms = torch.stack([one, p2, p3, p4, p5 + l5 * log_pi, l5 / 3, p6 + l6 * log_pi, l6 / 3, p7], 1)
    powers = torch.tensor(layout.PSI_INS_POWERS[:9], dtype=torch.float64)
    return 3 / (128 * eta[:, None]) * terms * PI ** (powers / 3)  # v = (pi x)^(1/3)
