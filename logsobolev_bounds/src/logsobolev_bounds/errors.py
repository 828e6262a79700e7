"""What a caller can mend, and the checks that many functions share: each names the value that is wrong.

A check gives back a float64 tensor, so that formulas take floats and tensors alike and never lose digits to float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

import torch
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor

Number = float | int | Tensor
LEAST_EIGENVALUE = -1e-8  # of a covariance: below it, it is none


class BoundError(UserError, ValueError):
    """An input for which a bound is not defined; one line that names the fix. It is a ValueError too."""


class OneLineParser(argparse.ArgumentParser):
    """One line for a wrong argument, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise BoundError(message)


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


def check_covariance(Sigma: Tensor, d: int | None = None) -> None:
    """Refuse what is no covariance (of d numbers, where d is given).

    Raises:
        BoundError: another shape, not finite, not symmetric, an eigenvalue below -1e-8 (below the rounding of its
            entries, for float32); the line names the value.
    """
    if Sigma.ndim != 2 or Sigma.shape[0] != Sigma.shape[1] or d not in (None, len(Sigma)):
        wanted = "a covariance is a square matrix" if d is None else f"inputs have {d} entries"
        raise BoundError(f"Sigma has shape {tuple(Sigma.shape)}: {wanted}")
    wide = Sigma.detach().double()
    scale = float(wide.abs().max()) if len(wide) else 0.0
    if not scale < float("inf"):
        raise BoundError(f"Sigma has an entry that is not finite: {scale}")
    rounding = torch.finfo(Sigma.dtype).eps
    uneven = float((wide - wide.T).abs().max()) if len(wide) else 0.0
    if uneven > max(-LEAST_EIGENVALUE, 10 * rounding) * scale:
        raise BoundError(f"Sigma is not symmetric: entries differ by {uneven:.3g}, use (Sigma + Sigma') / 2")
    allowed = max(-LEAST_EIGENVALUE, rounding * float(wide.norm()))
    shifted = (wide + wide.T) / 2 + allowed * torch.eye(len(wide), dtype=wide.dtype, device=wide.device)
    if int(torch.linalg.cholesky_ex(shifted)[1]):  # cheaper than the eigenvalues, which only the message needs
        least = float(torch.linalg.eigvalsh((wide + wide.T) / 2)[0])
        if least < -allowed:
            raise BoundError(f"Sigma has the eigenvalue {least:.3g}: a covariance has none below 0")


def covariance_eigenvalues(Sigma: Float[Tensor, "d d"]) -> Float[Tensor, " d"]:
    """Eigenvalues of a covariance, ascending, in float64; those that rounding made negative are 0.

    Raises:
        BoundError: what `check_covariance` refuses.
    """
    check_covariance(Sigma)
    wide = Sigma.double()
    kappa: Tensor = torch.linalg.eigvalsh((wide + wide.T) / 2)
    return kappa.clamp_min(0)
