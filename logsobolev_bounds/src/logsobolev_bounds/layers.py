"""Bayesian layers: every weight has a Gaussian posterior N(mu, sigma^2) and the prior N(0, sigma_p^2) (section 4).

Two ways to use one. `draws` gives explicit weights, one set shared by all examples: the only way inside a bound.
`forward` samples pre-activations for each example (local reparametrisation, Kingma et al. 2015): less noise in
training, but no function of an example that a bound could be about, so it is refused inside `explicit_weights_only`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor, nn

from logsobolev_bounds.bounds.kl import gaussian_divergence

_explicit_only: ContextVar[bool] = ContextVar("explicit_only", default=False)
MANY = 10**6  # weights of a network from which its divergence is summed in float64


class LocalReparametrisation(UserError, ValueError):
    """Pre-activations were to be sampled where one set of weights has to serve all examples."""


class Weights(NamedTuple):
    """One explicit draw of a layer, or K stacked ones [K, ...]."""

    weight: Tensor
    bias: Tensor | None


@contextmanager
def explicit_weights_only() -> Iterator[None]:
    """Within it Bayesian layers refuse to sample for each example."""
    token = _explicit_only.set(True)
    try:
        yield
    finally:
        _explicit_only.reset(token)


class Bayes(nn.Module):
    """What both layers share. Shapes: weight [out, in] or [out, in, k, k]; bias [out] or none.

    Args:
        shape: of the weight. fan_in: inputs of an output.
        sigma_p: standard deviation of the prior. init_scale: of the posterior at the start, as a part of sigma_p.
    """

    def __init__(self, shape: tuple[int, ...], fan_in: int, sigma_p: float, bias: bool, init_scale: float) -> None:
        super().__init__()
        if not sigma_p > 0:
            raise UserError(f"sigma_p is {sigma_p}: the prior's standard deviation has to be > 0")
        if not init_scale > 0:
            raise UserError(f"init_scale is {init_scale}: it has to be > 0")
        self.sigma_p, self.fan_in = sigma_p, fan_in
        scale = min(sigma_p, 1 / math.sqrt(fan_in))
        rho = math.log(math.expm1(init_scale * sigma_p))  # softplus(rho) = init_scale sigma_p
        self.mu = nn.Parameter(scale * torch.randn(shape))
        self.rho = nn.Parameter(torch.full(shape, rho))
        self.bias_mu = nn.Parameter(scale * torch.randn(shape[0])) if bias else None
        self.bias_rho = nn.Parameter(torch.full(shape[:1], rho)) if bias else None
        # The mean of the prior: 0, unless it was learnt on other examples.
        self.register_buffer("prior_mu", torch.zeros(shape))
        self.register_buffer("prior_bias_mu", torch.zeros(shape[0]) if bias else torch.zeros(0))

    prior_mu: Tensor
    prior_bias_mu: Tensor

    @property
    def sigma(self) -> Tensor:
        return F.softplus(self.rho)

    def kl(self, wide: bool = False) -> Float[Tensor, ""]:
        """KL(q || p): the sum over all weights of ln(sigma_p/sigma) + (sigma^2 + (mu - mu_p)^2)/(2 sigma_p^2) - 1/2.

        Args:
            wide: summed in float64, as a network of more than `MANY` weights needs.
        """
        pairs: list[tuple[Tensor, Tensor, Tensor]] = [(self.mu, self.sigma, self.prior_mu)]
        if self.bias_mu is not None:
            assert self.bias_rho is not None
            pairs.append((self.bias_mu, F.softplus(self.bias_rho), self.prior_bias_mu))
        if wide:
            pairs = [(mu.double(), sigma.double(), prior.double()) for mu, sigma, prior in pairs]
        return torch.stack([gaussian_divergence(*pair, self.sigma_p) for pair in pairs]).sum()

    def draws(self, k: int, generator: torch.Generator) -> Weights:
        """k explicit draws from the posterior, stacked; the generator lies on the CPU."""
        weight = _gauss(self.mu, self.sigma, k, generator)
        if self.bias_mu is None:
            return Weights(weight, None)
        assert self.bias_rho is not None
        return Weights(weight, _gauss(self.bias_mu, F.softplus(self.bias_rho), k, generator))

    def prior_draws(self, k: int, generator: torch.Generator) -> Weights:
        """k explicit draws from the prior, stacked."""
        weight = _gauss(self.prior_mu, torch.full_like(self.mu, self.sigma_p), k, generator)
        if self.bias_mu is None:
            return Weights(weight, None)
        return Weights(weight, _gauss(self.prior_bias_mu, torch.full_like(self.bias_mu, self.sigma_p), k, generator))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the pre-activations of x."""
        raise TypeError("a layer states its moments")

    def at(self, x: Tensor, weights: Weights) -> Tensor:
        """Pre-activations with one explicit draw."""
        raise TypeError("a layer states what it computes")

    def forward(self, x: Tensor) -> Tensor:
        """Pre-activations a'mu + sqrt((a^2)'sigma^2) noise, the noise of each example its own (training only).

        Raises:
            LocalReparametrisation (a ValueError): inside `explicit_weights_only`.
        """
        if _explicit_only.get():
            raise LocalReparametrisation(
                "local reparametrisation draws new weights for every example; a bound needs one draw for all of them: "
                "use draws(k, generator)"
            )
        mean, variance = self.moments(x)
        # The root has no slope at 0, where all inputs of a unit are 0.
        return mean + (variance + 1e-20).sqrt() * torch.randn_like(mean)


class BayesLinear(Bayes):
    def __init__(self, inputs: int, outputs: int, sigma_p: float, bias: bool = False, init_scale: float = 0.5) -> None:
        super().__init__((outputs, inputs), inputs, sigma_p, bias, init_scale)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        bias_variance = None if self.bias_rho is None else F.softplus(self.bias_rho).square()
        return F.linear(x, self.mu, self.bias_mu), F.linear(x.square(), self.sigma.square(), bias_variance)

    def at(self, x: Tensor, weights: Weights) -> Tensor:
        return F.linear(x, weights.weight, weights.bias)


class BayesConv2d(Bayes):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        sigma_p: float,
        padding: int = 0,
        stride: int = 1,
        bias: bool = False,
        init_scale: float = 0.5,
    ) -> None:
        super().__init__((outputs, inputs, kernel, kernel), inputs * kernel**2, sigma_p, bias, init_scale)
        self.padding, self.stride = padding, stride

    def _conv(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        bias_variance = None if self.bias_rho is None else F.softplus(self.bias_rho).square()
        return self._conv(x, self.mu, self.bias_mu), self._conv(x.square(), self.sigma.square(), bias_variance)

    def at(self, x: Tensor, weights: Weights) -> Tensor:
        return self._conv(x, weights.weight, weights.bias)


def _gauss(mu: Tensor, sigma: Tensor, k: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(k, *mu.shape, generator=generator, dtype=mu.dtype).to(mu.device)
    return mu + sigma * noise
