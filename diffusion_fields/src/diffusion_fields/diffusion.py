"""The idea (DPF section 2): diffuse a field through its coordinate-signal pairs, denoise queries from a context.

    noise drawn once per field, then indexed:  y_t = sqrt(abar_t) y_0 + sqrt(1 - abar_t) eps
    context C_t = (x[C], y_t[C]),  queries Q_t = (x[Q], y_t[Q])
    L = E || eps[Q] - eps_theta(C_t, t, Q_t) ||^2        (queries only)

A network may predict something else than eps, each an affine change of variables at a given y_t:

    v    = sqrt(abar) eps - sqrt(1 - abar) y_0        x0 = y_0
    flow = eps - y_0 on y_u = (1 - u) y_0 + u eps     (rectified flow, beyond the paper)

y_u is y_t / (sqrt(abar) + sqrt(1 - abar)) at u = sqrt(1 - abar) / (sqrt(abar) + sqrt(1 - abar)), so that a flow network
is read at any abar, by the same samplers and on the same eps error. It is told the time as u (T - 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diffusion_fields.errors import FieldError
from diffusion_fields.schedules import Schedule

Prediction = Literal["eps", "v", "x0", "flow"]
Noise = Literal["shared", "independent"]
Net = Callable[..., Tensor]
Level = float | Tensor  # abar: a number, or a tensor that broadcasts against the signal


class Fields(Protocol):
    """A batch of fields: coordinates (N, c) shared or (B, N, c), signal (B, N, s), and perhaps labels and a mask."""

    @property
    def coords(self) -> Tensor: ...
    @property
    def signal(self) -> Tensor: ...
    @property
    def label(self) -> Tensor | None: ...
    @property
    def mask(self) -> Tensor | None: ...


def normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers of `like`'s dtype and device; drawn where the generator lives."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def draw_sets(
    n: int,
    num_context: int,
    num_query: int,
    generator: torch.Generator | None = None,
    batch: int | None = None,
    mask: Bool[Tensor, "B N"] | None = None,
) -> tuple[Int64[Tensor, "*B context"], Int64[Tensor, "*B query"]]:
    """Context and query indices into N = n pairs: each uniform without replacement, independent of the other.

    Args:
        n: pairs of a field. num_context, num_query: N_c and N_q. generator: where it lives the indices are made.
        batch: None: one draw that the whole batch shares (a shared grid); a number: one draw for each field.
        mask: valid pairs of each field (it implies `batch`): valid ones come first, in random order; a field with
            fewer than N_c of them is filled up with invalid ones, which the mask then takes out again.

    Raises:
        FieldError (a ValueError): a set that is empty or larger than n.
    """
    for name, size in (("num_context", num_context), ("num_query", num_query)):
        if not 1 <= size <= n:
            raise FieldError(f"{name} is {size}, of fields with {n} pairs: choose it in 1..{n}")
    rows = (1 if batch is None else batch) if mask is None else len(mask)
    sets = []
    for size in (num_context, num_query):
        key = torch.rand(rows, n, generator=generator, device=generator.device if generator else None)
        if mask is not None:
            key = key + (~mask).to(key)
        sets.append(key.argsort(1)[:, :size])
    if batch is None and mask is None:
        return sets[0][0], sets[1][0]
    return sets[0], sets[1]


def gather(values: Tensor, index: Tensor) -> Tensor:
    """values[index] along the points, shared or not: (N, k) by (n,) stays (n, k), everything else is (B, n, k)."""
    if index.ndim == 1:
        return values[..., index, :]
    if values.ndim == 2:
        return values[index]
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def gather_mask(mask: Bool[Tensor, "B N"], index: Int64[Tensor, "*B n"]) -> Bool[Tensor, "B n"]:
    return mask[:, index] if index.ndim == 1 else mask.gather(1, index)


def level(schedule: Schedule, t: Int64[Tensor, " B"]) -> Float[Tensor, "B 1 1"]:
    """abar_t of each field, in float64, to broadcast against a signal."""
    return schedule.alphas_cumprod.to(t.device)[t].reshape(-1, 1, 1)


def _roots(abar: Level, dtype: torch.dtype) -> tuple[Level, Level]:
    """sqrt(abar), sqrt(1 - abar): in float64, then in the signal's dtype."""
    if isinstance(abar, Tensor):
        abar = abar.double()
        return abar.sqrt().to(dtype), (1 - abar).sqrt().to(dtype)
    return math.sqrt(abar), math.sqrt(1 - abar)


def mix(y0: Tensor, eps: Tensor, abar: Level) -> Tensor:
    """y_t = sqrt(abar) y_0 + sqrt(1 - abar) eps (section 2.2)."""
    a, b = _roots(abar, y0.dtype)
    return a * y0 + b * eps


def forward_noise(
    y0: Float[Tensor, "B N s"], t: Int64[Tensor, " B"] | int, schedule: Schedule, eps: Float[Tensor, "B N s"]
) -> Float[Tensor, "B N s"]:
    """y_t of the forward process, one t for each field or one for all."""
    return mix(y0, eps, schedule.abars[t] if isinstance(t, int) else level(schedule, t))


def target(prediction: str, y0: Tensor, eps: Tensor, abar: Level) -> Tensor:
    """What a network of this prediction should give."""
    if prediction == "eps":
        return eps
    if prediction == "x0":
        return y0
    if prediction == "flow":
        return eps - y0
    _check(prediction)
    a, b = _roots(abar, y0.dtype)
    return a * eps - b * y0


def to_eps(prediction: str, out: Tensor, y_t: Tensor, abar: Level) -> Tensor:
    """The noise that the network's output means, at y_t = sqrt(abar) y_0 + sqrt(1 - abar) eps."""
    a, b = _roots(abar, y_t.dtype)
    if prediction == "eps":
        return out
    if prediction == "x0":
        return (y_t - a * out) / b
    if prediction == "flow":
        return (y_t + a * out) / (a + b)  # y_u + (1 - u) out
    _check(prediction)
    return b * y_t + a * out


def to_x0(prediction: str, out: Tensor, y_t: Tensor, abar: Level) -> Tensor:
    """The clean signal that the network's output means, at y_t = sqrt(abar) y_0 + sqrt(1 - abar) eps."""
    a, b = _roots(abar, y_t.dtype)
    if prediction == "eps":
        return (y_t - b * out) / a
    if prediction == "x0":
        return out
    if prediction == "flow":
        return (y_t - b * out) / (a + b)  # y_u - u out
    _check(prediction)
    return a * y_t - b * out


def network_input(prediction: str, y_t: Tensor, t: Tensor, abar: Level, T: int) -> tuple[Tensor, Tensor]:
    """(signal, time) as a network of this prediction was trained to read them, for y_t at step t."""
    if prediction != "flow":
        return y_t, t
    a, b = _roots(abar, y_t.dtype)
    u = torch.as_tensor(b / (a + b), dtype=y_t.dtype, device=y_t.device).reshape(-1)
    return y_t / (a + b), (u * (T - 1)).expand(len(t))


def draw_times(
    batch: int, schedule: Schedule, prediction: str = "eps", generator: torch.Generator | None = None
) -> Tensor:
    """One time for each field: t uniform on 0..T-1; for `flow` u (T - 1) with u uniform on [0, 1)."""
    device = generator.device if generator else None
    if prediction == "flow":
        return torch.rand(batch, generator=generator, device=device) * (schedule.T - 1)
    return torch.randint(schedule.T, (batch,), generator=generator, device=device)


def field_errors(
    net: Net,
    batch: Fields,
    t: Tensor,
    context_index: Int64[Tensor, "*B context"],
    query_index: Int64[Tensor, "*B query"],
    schedule: Schedule,
    *,
    prediction: str = "eps",
    noise: str = "shared",
    measure: Literal["target", "eps"] = "target",
    generator: torch.Generator | None = None,
) -> Float[Tensor, " B"]:
    """Mean squared error of each field over its valid queries and channels (section 2.3).

    Args:
        net: (context_coords, context_signal, t, query_coords, query_signal, label=, context_mask=) -> (B, N_q, s).
        t: (B,) steps 0..T-1; for the target of `flow`, u (T - 1) as a float.
        noise: shared (one draw per field, then indexed) or independent (context and queries drawn apart, an ablation).
        measure: in the network's own target (training), or in eps (every validation loss and floor).

    Raises:
        FieldError (a ValueError): an unknown prediction or noise; a field without one valid query.
    """
    _check(prediction)
    if noise not in get_args(Noise):
        raise FieldError(f"noise is '{noise}'; there are: {', '.join(get_args(Noise))}")
    y0 = batch.signal
    drawn = [normal(tuple(y0.shape), y0, generator) for _ in range(1 if noise == "shared" else 2)]
    eps_context, eps = drawn[0], drawn[-1]
    if prediction == "flow" and measure == "target":
        u = (t / (schedule.T - 1)).to(y0.dtype).reshape(-1, 1, 1)
        context_y, query_y = (1 - u) * y0 + u * eps_context, (1 - u) * y0 + u * eps
        abar, time = torch.zeros_like(u), t
    else:
        abar = level(schedule, t)
        context_y, time = network_input(prediction, mix(y0, eps_context, abar), t, abar, schedule.T)
        query_y, _ = network_input(prediction, mix(y0, eps, abar), t, abar, schedule.T)
    query_y = gather(query_y, query_index)
    known = {"label": batch.label}
    if batch.mask is not None:
        known["context_mask"] = gather_mask(batch.mask, context_index)
    out = net(
        gather(batch.coords, context_index),
        gather(context_y, context_index),
        time,
        gather(batch.coords, query_index),
        query_y,
        **{name: value for name, value in known.items() if value is not None},
    )
    y0, eps = gather(y0, query_index), gather(eps, query_index)
    if measure == "eps":
        error = to_eps(prediction, out, mix(y0, eps, abar), abar) - eps
    else:
        error = out - target(prediction, y0, eps, abar)
    square = error.square().mean(2)
    if batch.mask is None:
        return square.mean(1)
    valid = gather_mask(batch.mask, query_index)
    if not valid.any(1).all():
        raise FieldError("a field of the batch has no valid query: leave empty fields out of the data")
    return square.where(valid, 0).sum(1) / valid.sum(1)


def field_loss(
    net: Net,
    batch: Fields,
    t: Tensor,
    context_index: Int64[Tensor, "*B context"],
    query_index: Int64[Tensor, "*B query"],
    schedule: Schedule,
    *,
    prediction: str = "eps",
    noise: str = "shared",
    measure: Literal["target", "eps"] = "target",
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """`field_errors`, averaged over the batch."""
    return field_errors(
        net, batch, t, context_index, query_index, schedule,
        prediction=prediction, noise=noise, measure=measure, generator=generator,
    ).mean()  # fmt: skip


def _check(prediction: str) -> None:
    if prediction not in get_args(Prediction):
        raise FieldError(f"prediction is '{prediction}'; there are: {', '.join(get_args(Prediction))}")
