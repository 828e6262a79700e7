"""Sampling a field at any set of coordinates (DPF section 2.4): ancestral, DDIM, and rectified flow.

    Y ~ N(0, I) at all queries; S, the context, is a subset of the queries chosen once
    for t downwards: out = net((x[S], Y[S]), t, (x, Y));  Y <- one reverse step

The latents are computed once per step from the context, queries are read from them in chunks of any size, and a grid
that fields share is embedded once per call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from diffusion_fields.completion import Pairs, choose_context, place
from diffusion_fields.diffusion import gather
from diffusion_fields.errors import FieldError
from diffusion_fields.guidance import Guided
from diffusion_fields.noise import NoiseSource, hashed_noise
from diffusion_fields.schedules import Schedule
from diffusion_fields.steps import ddim_step, ddpm_step, make_chain, step_list

__all__ = ["Guided", "ddim_step", "ddpm_step", "hashed_noise", "sample", "step_list"]

Callback = Callable[[float, Tensor, Tensor], None]


class _Reader:
    """The network at fixed queries: the context is encoded once per call, the queries are read in chunks."""

    def __init__(self, net: Any, coords: Tensor, label: Tensor | None, mask: Tensor | None, chunk: int) -> None:
        self.net = net
        self.coords, self.label, self.mask = coords, label, mask
        self.chunks = [slice(i, i + chunk) for i in range(0, coords.shape[-2], chunk)]
        self.split = all(hasattr(net, name) for name in ("embed", "encode_context", "decode"))
        if self.split:
            self.as_query = self.net.embed(coords, "query")  # once, over the whole set
        self.context_index: Tensor | None = None

    def __call__(self, context_index: Tensor, y: Tensor, time: Tensor) -> Tensor:
        x = self.coords
        if context_index is not self.context_index:
            self.context_index, self.context = context_index, gather(x, context_index)
            alone = self.split and self.mask is None  # a masked context is embedded where its mask is known
            self.as_context = self.net.embed(self.context, "context") if alone else None
        context = self.context, gather(y, context_index), time
        known = {"label": self.label, "context_mask": self.mask}
        known = {name: value for name, value in known.items() if value is not None}
        if not self.split:
            parts = [self.net(*context, x[..., c, :], y[..., c, :], **known) for c in self.chunks]
        else:
            z = self.net.encode_context(*context, **known, embedded=self.as_context)
            parts = [
                self.net.decode(
                    z, time, x[..., c, :], y[..., c, :], label=self.label, embedded=self.as_query[..., c, :]
                )
                for c in self.chunks
            ]
        return torch.cat(parts, 1).to(y.dtype)


@torch.no_grad()
def sample(
    net: Any,
    query_coords: Float[Tensor, "*B N c"],
    batch: int,
    num_context: int | None,
    schedule: Schedule,
    method: str,
    steps: int | Sequence[int] | None,
    eta: float,
    clip: float | None,
    prediction: str,
    generator: torch.Generator | None,
    query_chunk: int | None = None,
    context_index: Int64[Tensor, "*B context"] | None = None,
    observed: Pairs | None = None,
    spacing: str = "linspace",
    *,
    label: Int64[Tensor, " B"] | None = None,
    guidance_weight: float | None = None,
    context: str = "random",
    context_mask: Bool[Tensor, "*B context"] | None = None,
    noise: str = "random",
    noise_seed: int = 0,
    resample: int = 1,
    callback: Callback | None = None,
    allow_redrawn_context: bool = False,
    signal_dim: int | None = None,
) -> Float[Tensor, "B N s"]:
    """`batch` fields at the query coordinates.

    Args:
        net: a score network, or any function with its `forward`. query_coords: one grid, or one for each field.
        num_context: size of the context, the one of training; None: as many as `context_index` has.
        method: ddpm (eta and clip as in ddim with eta 1; a list with gaps is its sub-schedule), ddim, flow (Euler),
            flow_heun. steps: how many, or the list itself, or None for all. spacing: see `step_list`.
        eta: of ddim. clip: clamp of y_0, None for none. prediction: eps, v, x0 or flow, as trained.
        query_chunk: queries read at once; it changes memory, not the result.
        context_index: which queries are context; None: chosen here by `context` (random or farthest_point).
        observed: (points, values) as `completion.place` takes them: the field is completed from them.
        label, guidance_weight: classes, and the w of (1 + w) out(label) - w out(null).
        context_mask: which of the context are valid. noise: random, or hash: a function of noise_seed and coordinate.
        resample: how often each step is taken in a completion, with jumps back between (RePaint).
        callback: called before each step with (level, context indices, values).
        allow_redrawn_context: an ablation: another context at every step; samples lose variance.
        signal_dim: channels, where neither the network nor the observed values say.

    Raises:
        FieldError (a ValueError): what is wrong, and what is expected.
    """
    coords = query_coords
    if coords.ndim not in (2, 3) or 0 in coords.shape or batch < 1 or (coords.ndim == 3 and len(coords) != batch):
        raise FieldError(
            f"query coordinates of shape {tuple(coords.shape)} for {batch} fields: expected (N, c) or ({batch}, N, c)"
        )
    if not coords.isfinite().all():
        raise FieldError("query coordinates: not all are finite numbers")
    if resample < 1 or (query_chunk is not None and query_chunk < 1):
        raise FieldError(f"resample is {resample} and query_chunk {query_chunk}: both are at least 1")
    if noise not in ("random", "hash"):
        raise FieldError(f"noise is '{noise}'; there are: random, hash")
    chain = make_chain(method, steps, schedule, eta, clip, prediction, spacing)
    asked = coords.shape[-2]
    known = None
    if observed is not None:
        coords, known = place(coords, observed)
        signal_dim = known.values.shape[2]
        if signal_dim != getattr(net, "signal_dim", signal_dim):
            raise FieldError(f"observed: {signal_dim} channels; this network has {net.signal_dim}")
    fixed = None if known is None else known.index
    if context_index is None:
        if num_context is None:
            raise FieldError("num_context: say how many of the queries are context (as many as in training)")
        context_index = choose_context(coords, num_context, context, generator, fixed)
    else:
        context_index = context_index.to(coords.device, torch.int64)
        _check_context(context_index, num_context, coords.shape[-2], batch, fixed)
    channels = signal_dim if signal_dim is not None else getattr(net, "signal_dim", 1)
    draw = NoiseSource(coords, batch, channels, generator, noise_seed if noise == "hash" else None)
    if context_mask is not None:
        context_mask = context_mask.expand(batch, -1)
    read = _Reader(
        net if guidance_weight is None else Guided(net, guidance_weight),
        coords, label, context_mask, query_chunk or coords.shape[-2],
    )  # fmt: skip
    modes = [(m, m.training) for m in net.modules()] if isinstance(net, nn.Module) else []
    for module, _ in modes:
        module.training = False  # dropout is for training only
    try:
        y = draw()
        for now, after in pairwise(chain.levels):
            last = known is None or after == chain.levels[-1]
            for again in reversed(range(1 if last else resample)):
                if known is not None:
                    values = known.values.expand(batch, -1, -1)
                    y = known.impose(y, chain.noised(values, now, draw()[:, known.index]))
                if allow_redrawn_context:
                    context_index = choose_context(coords, context_index.shape[-1], context, generator, fixed)
                if callback is not None:
                    callback(now, context_index, y)
                y = chain.step(partial(read, context_index), y, now, after, draw)
                if again:
                    y = chain.back(y, after, now, draw())
    finally:
        for module, mode in modes:
            module.training = mode
    if known is not None:
        y = known.impose(y, known.values.expand(batch, -1, -1))
    return y[:, :asked]


def _check_context(index: Tensor, num_context: int | None, n: int, batch: int, fixed: Tensor | None) -> None:
    shape = tuple(index.shape)
    if index.ndim not in (1, 2) or index.shape[-1] == 0 or (index.ndim == 2 and len(index) != batch):
        raise FieldError(f"context_index of shape {shape}: expected (N_c,) or ({batch}, N_c), with N_c at least 1")
    if num_context is not None and index.shape[-1] != num_context:
        raise FieldError(f"context_index has {index.shape[-1]} points and num_context is {num_context}")
    if int(index.min()) < 0 or int(index.max()) >= n:
        raise FieldError(f"context_index from {int(index.min())} to {int(index.max())}, of {n} queries")
    ordered = index.sort(-1).values
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        raise FieldError("context_index: a point is given twice; a context is a subset of the queries")
    if fixed is not None and not (index[..., None] == fixed).any(-2).all():
        raise FieldError("context_index: every observed point has to be among it")
