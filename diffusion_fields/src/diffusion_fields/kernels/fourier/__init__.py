"""Coordinate features and the linear layer over them in one pass (sections 3 and 8.1)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from .. import inputs
from . import reference
from .linear import linear

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

__all__ = ["fourier_linear"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
MOST_FEATURES = 2**26  # entries that the definition may hold on a CPU: it is faster than chunks, and larger
MOST_COORDINATES = 8  # points of more coordinates are left to the definition: the kernel is unrolled over them


def fourier_linear(
    x: Float[Tensor, "*batch c"],
    W: Float[Tensor, "P p"],
    b: Float[Tensor, " P"],
    freq_scale: float = 1.0,
    precision: Literal["bf16", "fp32"] | None = None,
) -> Float[Tensor, "rows P"]:
    """`W gamma(x) + b` for every point, gamma(x) = [x, sin(s x), cos(s x), sin(2 s x), ...], s = freq_scale.

    Differentiable in all operands, once where the kernel or chunks run. Angles, sines and cosines are in float32; the
    product and the result are in the dtype of W (of the surrounding autocast, if any), sums in float32.
    With float64 all is float64.

    Args:
        x: coordinates; points are flattened to rows.
        W, b: a linear layer over c (1 + 2F) features in the order of section 3, each entry over all c coordinates.
        freq_scale: of the lowest band. Angles (freq_scale 2^{F-1} |x|) up to 1e4 keep their digits.
        precision: arithmetic of the product whatever the dtypes are; "fp32" is TF32 where PyTorch's own switch says so.

    Raises:
        ValueError: shapes that do not fit, no coordinate, integers, operands on different devices.

    Worth it where coordinates differ for every field; a grid that all fields share is embedded once.

    The kernel writes no features: a tile of them lives in registers, sine or cosine by one polynomial each, and the
    backward pass keeps x alone (of c (1 + 2F) entries) and evaluates them again: one launch forward, one (and with dx
    two) backward. FLOPs: 2 N p P for N points, as many for dW and for dx. Bytes in bf16: 4 N c in, 2 N P out. Floor
    for N = 64 x 8192, c = 3, F = 10, P = 128 on one H200 (4.3 TB/s, 600 TFLOP/s): 14 us for the FLOPs, 33 us for
    the bytes, and about as long for some 30 instructions a feature (counted, not measured); unfused about 0.7 GB,
    160 us. On a CPU it is the definition, or a chunk of features at a time where all
    would take more than 256 MB.
    """
    c = x.shape[-1] if x.ndim else 0
    if c < 1:
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
        rows = x.numel() // c
        kernel = rows and len(W) and c <= MOST_COORDINATES and use_triton(W)
        if kernel or (rows * W.shape[1] > MOST_FEATURES and not W.is_cuda):
            x = reference.widened(x, W)
            return linear(x.float() if kernel else x, W, b, float(freq_scale))
        return reference.fourier_linear(x, W, b, freq_scale)
