"""Mixtures of narrow Gaussians in the plane (section 6). The two clusters on a line are `population.two_cluster`."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor

VARIANCE = 0.002  # covariance 0.002 I of every mode: a standard deviation of 0.045, centres are 1 or more apart
PER_MODE = 2000


def gaussian_centres(modes: int) -> Float[Tensor, "modes 2"]:
    """Centres of 2 modes (+-1, 0), of 5 on the unit circle (cos 72k deg, sin 72k deg), or of 25, {-2..2}^2.

    Raises:
        UserError: another number of modes.
    """
    if modes == 2:
        return torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    if modes == 5:
        angles = torch.arange(5, dtype=torch.float64) * (2 * math.pi / 5)
        return torch.stack([angles.cos(), angles.sin()], 1).float()
    if modes == 25:
        return torch.cartesian_prod(torch.arange(-2.0, 3.0), torch.arange(-2.0, 3.0))
    raise UserError(f"gaussians of {modes} modes: there are those of 2, 5 and 25")


def gaussians(generator: torch.Generator, modes: int = 5, per_mode: int = PER_MODE) -> Float[Tensor, "n 2"]:
    """`per_mode` points of every mode: point i belongs to mode i mod `modes`."""
    centres = gaussian_centres(modes).repeat(per_mode, 1)
    return centres + math.sqrt(VARIANCE) * torch.randn(len(centres), 2, generator=generator)
