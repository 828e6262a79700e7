"""Noise schedules (DPF section 2; DDPM and improved DDPM): beta_t for t = 0..T-1 and what the samplers read off it.

    alpha_t = 1 - beta_t,   abar_t = prod_{u <= t} alpha_u,   abar_{-1} = 1
    q(y_{t-1} | y_t, y_0) = N(coef_x0_t y_0 + coef_xt_t y_t, posterior_variance_t)

Everything is kept in float64 and cast where a step uses it: at the end of the cosine schedule abar is about 2e-9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion_fields.errors import FieldError

Kind = Literal["linear", "cosine"]
OFFSET = 0.008  # of the cosine schedule: beta_0 is not too small
LARGEST_BETA = 0.999


@dataclass(frozen=True)
class Schedule:
    """Tensors over t = 0..T-1, float64.

    Args:
        betas: beta_t. alphas_cumprod: abar_t. posterior_variance: beta_t (1 - abar_{t-1}) / (1 - abar_t), 0 at t = 0.
        coef_x0, coef_xt: of the posterior mean of y_{t-1} given y_0 and y_t.
    """

    betas: Float64[Tensor, " T"]
    alphas_cumprod: Float64[Tensor, " T"]
    posterior_variance: Float64[Tensor, " T"]
    coef_x0: Float64[Tensor, " T"]
    coef_xt: Float64[Tensor, " T"]

    @property
    def T(self) -> int:
        return len(self.betas)

    @cached_property
    def abars(self) -> tuple[float, ...]:
        """abar_0, ..., abar_{T-1}, abar_{-1} as numbers: index -1 gives 1, as the last step of a sampler wants."""
        return (*self.alphas_cumprod.tolist(), 1.0)


def make_schedule(kind: str, T: int, beta_start: float = 1e-4, beta_end: float = 2e-2) -> Schedule:
    """The schedule of T steps; `beta_start` and `beta_end` are the ends of `linear` (times 1000/T for a shorter one).

    Raises:
        FieldError (a ValueError): an unknown kind, T < 1, or ends outside 0 < beta_start <= beta_end < 1.
    """
    if isinstance(T, bool) or int(T) != T or T < 1:
        raise FieldError(f"schedule: T is {T}; the number of diffusion steps is a whole number of at least 1")
    T = int(T)
    if kind == "linear":
        if not 0 < beta_start <= beta_end < 1:
            raise FieldError(
                f"schedule: betas from {beta_start:g} to {beta_end:g}; expected 0 < beta_start <= beta_end < 1"
            )
        betas = torch.linspace(beta_start, beta_end, T, dtype=torch.float64)
    elif kind == "cosine":
        f = [math.cos((t / T + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2 for t in range(T + 1)]
        betas = torch.tensor([min(1 - f[t + 1] / f[t], LARGEST_BETA) for t in range(T)], dtype=torch.float64)
    else:
        raise FieldError(f"schedule: unknown kind '{kind}'; there are: linear, cosine")
    alphas = 1 - betas
    abar = alphas.cumprod(0)
    before = torch.cat([abar.new_ones(1), abar[:-1]])  # abar_{t-1}
    return Schedule(
        betas=betas,
        alphas_cumprod=abar,
        posterior_variance=betas * (1 - before) / (1 - abar),
        coef_x0=betas * before.sqrt() / (1 - abar),
        coef_xt=(1 - before) * alphas.sqrt() / (1 - abar),
    )
