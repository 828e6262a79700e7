"""Data by a recipe (section 5): as many fresh examples as are asked for, and the exact risk beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from logsobolev_bounds.errors import check_covariance, non_negative, positive, sample_size, unit


@dataclass(frozen=True)
class SyntheticLogistic:
    """Two classes, y in {0, 1} evenly, x = (2 y - 1) mu + N(0, Sigma): the class -1 of the formulas is called 0 here.

    Args:
        mu: of the class 1. Sigma: by rows; None: the identity.

    Raises (on use):
        BoundError: a Sigma that is no covariance of as many numbers.
    """

    mu: tuple[float, ...] = (1.0, 0.5)
    Sigma: tuple[tuple[float, ...], ...] | None = None

    def covariance(self) -> Float[Tensor, "d d"]:
        """Of x within a class, in float64."""
        d = len(self.mu)
        Sigma = torch.eye(d, dtype=torch.float64)
        if self.Sigma is not None:
            Sigma = torch.tensor(self.Sigma, dtype=torch.float64)
            check_covariance(Sigma, d)
        return Sigma

    def sample(self, n: int, seed: int) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]:
        sample_size("n", n)
        generator = torch.Generator().manual_seed(seed)
        y = torch.randint(2, (n,), generator=generator)
        noise = torch.randn(n, len(self.mu), generator=generator)
        if self.Sigma is not None:
            kappa, axes = torch.linalg.eigh(self.covariance())  # a Sigma without full rank has no Cholesky factor
            noise = noise @ (axes * kappa.clamp_min(0).sqrt()).T.to(noise)
        return (2 * y - 1)[:, None] * torch.tensor(self.mu) + noise, y

    def risk(self, w: Float[Tensor, "W d"]) -> Float[Tensor, " W"]:
        """E ln(1 + exp(-(2 y - 1) w'x)), by quadrature over the margin, which is N(w'mu, w'Sigma w)."""
        from logsobolev_bounds.theory import logistic_margin

        w = w.double()
        mu = torch.tensor(self.mu, dtype=torch.float64)
        std = (w @ self.covariance() * w).sum(1).clamp_min(0).sqrt()
        return logistic_margin(w @ mu, std, torch.zeros(1, dtype=torch.float64)).risk


@dataclass(frozen=True)
class SyntheticLinReg:
    """x ~ N(0, I), y = w'x + N(0, noise^2)."""

    w: tuple[float, ...]
    noise: float = 1.0

    def sample(self, n: int, seed: int) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        sample_size("n", n), non_negative("noise", self.noise)
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, len(self.w), generator=generator, dtype=torch.float64)
        noise = self.noise * torch.randn(n, generator=generator, dtype=torch.float64)
        return x, x @ torch.tensor(self.w, dtype=torch.float64) + noise

    def risk(self, v: Float[Tensor, "W d"], sigma_lik: float) -> Float[Tensor, " W"]:
        """E -ln N(y; v'x, sigma_lik^2)."""
        lik = float(positive("sigma_lik", sigma_lik)) ** 2
        off = (v.double() - torch.tensor(self.w, dtype=torch.float64)).square().sum(1)
        return (off + self.noise**2) / (2 * lik) + math.log(2 * math.pi * lik) / 2


@dataclass(frozen=True)
class FlatClasses:
    """Two classes with a constant loss each, whatever x: P(y = 1) = pi. No input gradient, and psi > 0 all the same."""

    pi: float = 0.5
    losses: tuple[float, float] = (0.0, 1.0)

    def sample(self, n: int, seed: int) -> tuple[Float[Tensor, " n"], Int64[Tensor, " n"]]:
        """Losses and classes."""
        sample_size("n", n), unit("pi", self.pi)
        generator = torch.Generator().manual_seed(seed)
        y = (torch.rand(n, generator=generator) < self.pi).long()
        return torch.tensor(self.losses, dtype=torch.float64)[y], y

    def risk(self) -> float:
        return (1 - self.pi) * self.losses[0] + self.pi * self.losses[1]
