"""What a caller can mend, and the checks that many functions share: each names the value that is wrong.

A check gives back a float64 tensor, so that formulas take floats and tensors alike and never lose digits to float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor

Number = float | int | Tensor


class BoundError(UserError, ValueError):
    """An input for which a bound is not defined; one line that names the fix. It is a ValueError too."""


def checked(name: str, value: Number, wrong: Callable[[Tensor], Tensor], mend: str) -> Float[Tensor, ...]:
    """`value` in float64; raises BoundError for its first entry that is NaN or `wrong`."""
    x = torch.as_tensor(value, dtype=torch.float64)
    bad = torch.isnan(x) | wrong(x)
    if bad.any():
        raise BoundError(f"{name} is {x[bad][0].item():.12g}: {mend}")
    return x


def non_negative(name: str, value: Number) -> Float[Tensor, ...]:
    return checked(name, value, lambda x: x < 0, "it is at least 0")


def unit(name: str, value: Number) -> Float[Tensor, ...]:
    return checked(name, value, lambda x: (x < 0) | (x > 1), "it lies in [0, 1]; divide a loss in [0, B] by B")


def positive(name: str, value: Number) -> Float[Tensor, ...]:
    return checked(name, value, lambda x: ~((x > 0) & x.isfinite()), "it is positive and finite")


def confidence(name: str, value: Number) -> Float[Tensor, ...]:
    return checked(name, value, lambda x: (x <= 0) | (x >= 1), "it is a probability of failure, in (0, 1)")


def sample_size(name: str, value: Number) -> Float[Tensor, ...]:
    return checked(name, value, lambda x: ~((x >= 1) & x.isfinite()), "at least one example is needed")


def finite(name: str, value: Number) -> Float[Tensor, ...]:
    return checked(name, value, lambda x: ~x.isfinite(), "every value is a finite number")


def covariance_eigenvalues(sigma: Float[Tensor, "d d"]) -> Float[Tensor, " d"]:
    """Eigenvalues of a covariance, ascending; those that rounding made negative are 0.

    Raises:
        BoundError: not square, not symmetric, or an eigenvalue below -1e-8.
    """
    if sigma.ndim != 2 or sigma.shape[0] != sigma.shape[1]:
        raise BoundError(f"Sigma has shape {list(sigma.shape)}: a covariance is a square matrix")
    sigma = finite("Sigma", sigma)
    gap = (sigma - sigma.T).abs().max().item() if len(sigma) else 0.0
    if gap > 1e-8 * max(1.0, sigma.abs().max().item() if len(sigma) else 0.0):
        raise BoundError(f"Sigma is not symmetric, entries differ by {gap:.3g}: use (Sigma + Sigma') / 2")
    kappa: Tensor = torch.linalg.eigvalsh((sigma + sigma.T) / 2)
    if (kappa < -1e-8).any():
        raise BoundError(f"Sigma has the eigenvalue {kappa.min().item():.3g}: a covariance has none below 0")
    return kappa.clamp_min(0)
