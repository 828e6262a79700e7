"""Gap of gradient norms in Triton: a program for each sample's norm, one for the penalty, and one launch backwards.

No atomics: each sum is one program's, two calls agree bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

from .gap import accumulator

NORMS = {"BLOCK": 2048, "num_warps": 8, "num_stages": 1}  # two rounds for an image of 32 x 32 x 3
GAP = {"BLOCK": 256, "num_warps": 4, "num_stages": 1}
GRADIENT = {"BLOCK": 2048, "num_warps": 8, "num_stages": 1}


@triton.jit
def norms_kernel(g, state, n, s, SIZE, smoothing, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """Norm of sample `pid`, and its smoothed norm."""
    sample = tl.program_id(0)
    g += sample.to(tl.int64) * SIZE
    total = tl.zeros((BLOCK,), WIDE)
    for start in range(0, SIZE, BLOCK):
        k = start + tl.arange(0, BLOCK)
        value = tl.load(g + k, k < SIZE, other=0.0).to(WIDE)
        total += value * value
    norm = tl.sqrt(tl.sum(total, 0))
    tl.store(n + sample, norm)
    if state is not None:
        norm = (1 - smoothing) * norm + smoothing * tl.load(state + sample).to(WIDE)
    tl.store(s + sample, norm)


@triton.jit
def gap_kernel(s, penalty, B, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """`mean_i (s_i - s_{B+i})^2`, in a single program."""
    total = tl.zeros((BLOCK,), WIDE)
    for start in range(0, B, BLOCK):
        i = start + tl.arange(0, BLOCK)
        gap = tl.load(s + i, i < B, other=0.0) - tl.load(s + B + i, i < B, other=0.0)
        total += gap * gap
    tl.store(penalty, tl.sum(total, 0) / B)


@triton.jit
def gradient_kernel(
    g, n, s, by_penalty, by_norms, dg, SIZE, B, kept, WIDE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """`BLOCK` entries of `c_i g_i / n_i` of sample `pid_i`."""
    sample = tl.program_id(0)
    norm = tl.load(n + sample)
    factor = norm * 0
    if by_norms is not None:
        factor += tl.load(by_norms + sample).to(WIDE)
    if by_penalty is not None:
        other = tl.where(sample < B, sample + B, sample - B)
        factor += tl.load(by_penalty).to(WIDE) * 2 * kept * (tl.load(s + sample) - tl.load(s + other)) / B
    factor = tl.where(norm > 0, factor / tl.where(norm > 0, norm, 1.0), 0.0)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place = sample.to(tl.int64) * SIZE + k
    value = tl.load(g + place, k < SIZE, other=0.0).to(WIDE) * factor
    tl.store(dg + place, value.to(dg.dtype.element_ty), k < SIZE)


def wide(g: Tensor) -> Any:
    return tl.float64 if g.dtype is torch.float64 else tl.float32


def launch_grad_gap(g: Tensor, state: Tensor | None, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """`(R, n, s)` of g [2B, ...] with at least one entry.

    Raises:
        ValueError: an odd number of samples; a state of another length.
    """
    samples = len(g)
    if samples % 2:
        raise ValueError(f"{samples} samples: there are as many fakes as reals")
    if state is not None and state.shape != (samples,):
        raise ValueError(f"state has shape {tuple(state.shape)} for {samples} samples")
    g = g.contiguous()
    state = state if state is None else state.to(g.device).contiguous()
    n, s = (torch.empty(samples, dtype=accumulator(g), device=g.device) for _ in range(2))
    penalty = torch.empty((), dtype=n.dtype, device=g.device)
    with torch.cuda.device_of(g):
        norms_kernel[(samples,)](g, state, n, s, g.numel() // samples, smoothing, WIDE=wide(g), **NORMS)
        gap_kernel[(1,)](s, penalty, samples // 2, WIDE=wide(g), **GAP)
    return penalty, n, s


def launch_backward(
    g: Tensor, n: Tensor, s: Tensor, by_penalty: Tensor | None, by_norms: Tensor | None, kept: float
) -> Tensor:
    """Gradient by g, from those by R and by the norms."""
    g = g.contiguous()
    samples, size = len(g), g.numel() // len(g)
    given = [x if x is None else x.contiguous() for x in (by_penalty, by_norms)]
    dg = torch.empty(g.shape, dtype=g.dtype, device=g.device)
    grid = (samples, triton.cdiv(size, GRADIENT["BLOCK"]))
    with torch.cuda.device_of(g):
        gradient_kernel[grid](g, n, s, *given, dg, size, samples // 2, kept, WIDE=wide(g), **GRADIENT)
    return dg


def build(
    kernel: Any, name: str, pointers: dict[str, str], launch: dict[str, int], dtype: str, absent: tuple[str, ...] = (),
    aligned: bool = True,
) -> Build:  # fmt: skip
    given = {p: kind for p, kind in pointers.items() if p not in absent}
    return variant(
        kernel,
        f"{name} {dtype}".strip() + ("" if aligned else " any size"),
        dtype=dtype,
        pointers=given,
        numbers=tuple(x for x in ("SIZE", "B") if x in kernel.arg_names),
        scalars={x: "fp32" for x in ("smoothing", "kept") if x in kernel.arg_names},
        constants={"WIDE": tl.float32, **dict.fromkeys(absent)},
        launch=launch,
        aligned=aligned,
    )


FLOAT = "*fp32"
ONES = {"g": "data", "state": FLOAT, "n": FLOAT, "s": FLOAT}
BACK = {"g": "data", "n": FLOAT, "s": FLOAT, "by_penalty": FLOAT, "by_norms": FLOAT, "dg": "data"}
VARIANTS = (("fp32", True), ("fp32", False), ("bf16", True), ("fp16", True))
AOT = [
    build(gap_kernel, "", {"s": FLOAT, "penalty": FLOAT}, GAP, "fp32"),
    *[build(norms_kernel, "smoothed", ONES, NORMS, dtype, (), aligned) for dtype, aligned in VARIANTS],
    build(norms_kernel, "first", ONES, NORMS, "fp32", ("state",)),
    *[build(gradient_kernel, "of both", BACK, GRADIENT, dtype, (), aligned) for dtype, aligned in VARIANTS],
    build(gradient_kernel, "of the penalty", BACK, GRADIENT, "fp32", ("by_norms",)),
    build(gradient_kernel, "of the norms", BACK, GRADIENT, "fp32", ("by_penalty",)),
]
