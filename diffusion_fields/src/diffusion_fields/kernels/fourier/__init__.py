"""Coordinate features and the linear layer over them in one pass (sections 3 and 8.1)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from .. import inputs
from . import reference

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

__all__ = ["fourier_linear"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
MOST_COORDINATES = 8  # points of more coordinates are left to the definition: the kernel is unrolled over them


def fourier_linear(
    x: Float[Tensor, "*batch c"],
    W: Float[Tensor, "P p"],
    b: Float[Tensor, " P"],
    freq_scale: float = 1.0,
    precision: Literal["bf16", "fp32"] | None = None,
) -> Float[Tensor, "rows P"]:
    """`W gamma(x) + b` for every coordinate vector, gamma(x) = [x, sin(s x), cos(s x), sin(2 s x), cos(2 s x), ...]."""
    c = x.shape[-1] if x.ndim else 0
    if c < 1 or x.ndim < 2:
        raise ValueError(f"fourier_linear: x has shape {tuple(x.shape)}: [..., coordinates] is needed")
    if W.ndim != 2 or W.shape[1] % c or (W.shape[1] // c) % 2 != 1:
        raise ValueError(
            f"fourier_linear: W has shape {tuple(W.shape)}: [P, c (1 + 2F)] with c = {c} coordinates is needed"
        )
    if b.shape != W.shape[:1]:
        raise ValueError(f"fourier_linear: b has shape {tuple(b.shape)}: ({W.shape[0]},) goes with W {tuple(W.shape)}")
    inputs.check("fourier_linear", W=W, x=x, b=b)
    if not math.isfinite(freq_scale):
        raise ValueError(f"fourier_linear: freq_scale is {freq_scale}: a finite number is needed")
    if precision not in (None, *DTYPES):
        raise ValueError(f"fourier_linear: precision is {precision!r}: bf16 or fp32 is needed")
    kind = W.device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else W.dtype
    W = W.to(autocast if precision is None else DTYPES[precision])
    with torch.autocast(kind, enabled=False):
        return reference.fourier_linear(x, W, b, freq_scale)
