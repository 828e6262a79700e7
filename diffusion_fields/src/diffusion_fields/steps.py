"""Reverse steps (DPF section 2.4): ancestral, DDIM, rectified flow, and which steps a sampler takes.

The list of steps is the sampler's only clock: t' is read from it and never computed as t minus a stride.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_fields.diffusion import mix, network_input, to_eps, to_x0
from diffusion_fields.errors import FieldError
from diffusion_fields.schedules import Schedule

Method = Literal["ddpm", "ddim", "flow", "flow_heun"]
Spacing = Literal["leading", "linspace", "trailing"]


def step_list(T: int, n: int, spacing: str = "linspace") -> list[int]:
    """n of the steps 0..T-1, descending.

    Raises:
        FieldError (a ValueError): an unknown spacing, n outside 1..T.
    """
    if not 1 <= n <= T:
        raise FieldError(f"{n} sampling steps of a schedule with {T}: choose 1..{T}")
    if spacing == "leading":
        steps = [i * (T // n) for i in reversed(range(n))]
    elif spacing == "linspace":
        steps = np.round(np.linspace(T - 1, 0, n)).astype(int).tolist()
    elif spacing == "trailing":
        steps = [round(T - i * T / n) - 1 for i in range(n)]
    else:
        raise FieldError(f"spacing is '{spacing}'; there are: {', '.join(get_args(Spacing))}")
    return steps


def checked_steps(steps: int | Sequence[int] | None, schedule: Schedule, spacing: str) -> list[int]:
    """The steps a sampler takes: all of them (None), a number spaced as asked, or a list from the user, checked."""
    if steps is None:
        return list(range(schedule.T))[::-1]
    if isinstance(steps, (int, np.integer)):
        return step_list(schedule.T, int(steps), spacing)
    steps = [int(t) for t in steps]
    if not steps or any(t <= after for t, after in pairwise(steps)) or steps[0] >= schedule.T or steps[-1] < 0:
        raise FieldError(
            f"steps: a list of sampling steps descends strictly within {schedule.T - 1}..0; this one starts {steps[:8]}"
        )
    return steps


def _clean(x_t: Tensor, out: Tensor, abar: float, clip: float | None, prediction: str) -> tuple[Tensor, Tensor]:
    """(y_0, eps) that the output means; where y_0 is clamped, eps is computed again from it."""
    x0 = to_x0(prediction, out, x_t, abar)
    if clip is None:
        return x0, to_eps(prediction, out, x_t, abar)
    x0 = x0.clamp(-clip, clip)
    return x0, to_eps("x0", x0, x_t, abar)


def ddpm_step(
    x_t: Float[Tensor, "B N s"],
    out: Float[Tensor, "B N s"],
    t: int,
    schedule: Schedule,
    noise: Float[Tensor, "B N s"] | None,
    clip: float | None = None,
    prediction: str = "eps",
) -> Float[Tensor, "B N s"]:
    """One ancestral step from t to t - 1, variance beta_t (1 - abar_{t-1}) / (1 - abar_t); no noise at t = 0.

    Args:
        out: the network's output, read as `prediction`. clip: y_0 is clamped to [-clip, clip]; None: not at all.
    """
    t = int(t)
    abar, beta = schedule.abars[t], float(schedule.betas[t])
    if clip is None and prediction == "eps":
        mean = (x_t - beta / math.sqrt(1 - abar) * out) / math.sqrt(1 - beta)
    else:
        x0, _ = _clean(x_t, out, abar, clip, prediction)
        mean = float(schedule.coef_x0[t]) * x0 + float(schedule.coef_xt[t]) * x_t
    sigma = math.sqrt(float(schedule.posterior_variance[t]))
    return mean if sigma == 0 or noise is None else mean + sigma * noise


def ddim_step(
    x_t: Float[Tensor, "B N s"],
    out: Float[Tensor, "B N s"],
    t: int,
    t_prev: int,
    schedule: Schedule,
    eta: float,
    noise: Float[Tensor, "B N s"] | None,
    clip: float | None = None,
    prediction: str = "eps",
) -> Float[Tensor, "B N s"]:
    """One DDIM step (Song et al. 2021) from t to t_prev < t; t_prev = -1 is the clean field, abar' = 1.

    eta 0 is deterministic; eta 1 is the ancestral sampler of the sub-schedule.
    """
    t, t_prev = int(t), int(t_prev)
    if not -1 <= t_prev < t < schedule.T:
        raise FieldError(f"a DDIM step from t = {t} to {t_prev}: expected -1 <= t_prev < t < {schedule.T}")
    abar, after = schedule.abars[t], schedule.abars[t_prev]
    x0, eps = _clean(x_t, out, abar, clip, prediction)
    s = eta * math.sqrt((1 - after) / (1 - abar)) * math.sqrt(1 - abar / after)
    mean = math.sqrt(after) * x0 + math.sqrt(max(1 - after - s * s, 0.0)) * eps
    return mean if s == 0 or noise is None else mean + s * noise


Read = Callable[[Tensor, Tensor], Tensor]


class Chain(Protocol):
    """What takes noise to a field: levels of noise, the last one clean, and the ways between them."""

    @property
    def levels(self) -> Sequence[Any]: ...

    def noised(self, y0: Tensor, level: Any, noise: Tensor) -> Tensor:
        """A clean value at a level."""

    def step(self, read: Read, y: Tensor, level: Any, after: Any, noise: Callable[[], Tensor]) -> Tensor:
        """One reverse step from `level` to the cleaner `after`."""

    def back(self, y: Tensor, after: Any, level: Any, noise: Tensor) -> Tensor:
        """From `after` forward again to the noisier `level`."""


@dataclass(frozen=True)
class Diffusion:
    """Reverse steps of DDPM and DDIM. A level is a step t; -1 is the clean field."""

    schedule: Schedule
    steps: list[int]
    eta: float
    clip: float | None
    prediction: str

    @property
    def levels(self) -> list[int]:
        return [*self.steps, -1]

    def noised(self, y0: Tensor, t: int, noise: Tensor) -> Tensor:
        return mix(y0, noise, self.schedule.abars[t])

    def back(self, y: Tensor, after: int, t: int, noise: Tensor) -> Tensor:
        """From the level `after` to the noisier t: q(y_t | y_after)."""
        return mix(y, noise, self.schedule.abars[t] / self.schedule.abars[after])

    def step(self, read: Read, y: Tensor, t: int, after: int, noise: Callable[[], Tensor]) -> Tensor:
        time = torch.full((len(y),), t, device=y.device)
        signal, time = network_input(self.prediction, y, time, self.schedule.abars[t], self.schedule.T)
        out = read(signal, time)
        if self.eta == 1 and after == t - 1:
            return ddpm_step(y, out, t, self.schedule, noise() if t else None, self.clip, self.prediction)
        drawn = noise() if self.eta else None
        return ddim_step(y, out, t, after, self.schedule, self.eta, drawn, self.clip, self.prediction)


@dataclass(frozen=True)
class Flow:
    """Rectified flow dy/du = out from u = 1 to 0, by Euler's or Heun's method. A level is u; 0 is the clean field."""

    T: int
    steps: int
    heun: bool

    @property
    def levels(self) -> list[float]:
        return [1 - i / self.steps for i in range(self.steps + 1)]

    def noised(self, y0: Tensor, u: float, noise: Tensor) -> Tensor:
        return (1 - u) * y0 + u * noise

    def back(self, y: Tensor, after: float, u: float, noise: Tensor) -> Tensor:
        a = (1 - u) / (1 - after)
        return a * y + math.sqrt(u * u - (a * after) ** 2) * noise

    def step(self, read: Read, y: Tensor, u: float, after: float, noise: Callable[[], Tensor]) -> Tensor:
        def slope(y: Tensor, u: float) -> Tensor:
            return read(y, torch.full((len(y),), u * (self.T - 1), dtype=y.dtype, device=y.device))

        first = slope(y, u)
        there = y + (after - u) * first
        if not self.heun or after == 0:
            return there
        return y + (after - u) * (first + slope(there, after)) / 2


def make_chain(
    method: str, steps: Any, schedule: Schedule, eta: float, clip: float | None, prediction: str, spacing: str
) -> Chain:
    if method in ("ddpm", "ddim"):
        if clip is not None and clip <= 0:
            raise FieldError(f"clip is {clip:g}; it is positive (1 for data in [-1, 1], 5 for unit variance) or null")
        return Diffusion(
            schedule, checked_steps(steps, schedule, spacing), 1.0 if method == "ddpm" else eta, clip, prediction
        )
    if method not in get_args(Method):
        raise FieldError(f"method is '{method}'; there are: {', '.join(get_args(Method))}")
    if prediction != "flow" or not isinstance(steps, int) or steps < 1:
        raise FieldError(f"method '{method}' takes a number of steps and a network trained with prediction 'flow'")
    return Flow(schedule.T, steps, method == "flow_heun")
