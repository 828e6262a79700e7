"""Coordinate features and their linear layer in Triton: features live in registers only, forward and backward.

No atomics: sums over points are taken span by span and added in a fixed order, two calls agree bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from shared.kernels.backend import input_precision
from torch import Tensor

from ..inputs import multiplied

PROGRAMS = 528  # four for each multiprocessor of a large GPU
# pi/2 in three parts: a whole number below 2^13 times the first two is exact in float32 (Cody and Waite)
PART_1, PART_2, PART_3 = (tl.constexpr(v) for v in (1.5703125, 4.837512969970703125e-4, 7.549789948768648e-8))
PER_QUARTER = tl.constexpr(0.6366197723675814)  # 2 / pi


@triton.jit
def wave(angle, quarters):
    """sin(angle + quarters pi/2) to 1e-7 for angles up to 1e4: sine and cosine for the price of one."""
    turns = tl.floor(angle * PER_QUARTER + 0.5)
    r = angle - turns * PART_1
    r = r - turns * PART_2
    r = r - turns * PART_3
    z = r * r
    sine = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r
    cosine = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1
    place = turns.to(tl.int32) + quarters
    value = tl.where(place & 1 == 1, cosine, sine)
    return tl.where(place & 2 == 2, -value, value)


@triton.jit
def phase(x, n, k, N, p, freq_scale, C: tl.constexpr):
    """`(coordinate, band, quarters)` of features k of points n: feature k belongs to coordinate k mod c of group k / c.

    Group 0 is x itself, group 1 + 2 f the sine and 2 + 2 f the cosine of band f.
    """
    group = k // C
    x += n.to(tl.int64)[:, None] * C + (k % C)[None, :]
    value = tl.load(x, (n < N)[:, None] & (k < p)[None, :], other=0.0).to(tl.float32)
    f = tl.maximum(group - 1, 0) // 2
    band = freq_scale * ((f + 127) << 23).to(tl.float32, bitcast=True)
    return value, band[None, :], (1 - group % 2)[None, :]


@triton.jit
def features(x, n, k, N, p, freq_scale, C: tl.constexpr):
    """gamma(x)[n, k], 0 for k past the end."""
    value, band, quarters = phase(x, n, k, N, p, freq_scale, C)
    feature = tl.where((k < C)[None, :], value, wave(value * band, quarters))
    return tl.where((k < p)[None, :], feature, 0.0)


@triton.jit
def linear_kernel(
    x, W, b, y, N, P, p, freq_scale, C: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """`y = W gamma(x) + b` for `BLOCK_N` points and `BLOCK_P` outputs."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    o = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    acc = tl.zeros((BLOCK_N, BLOCK_P), tl.float32)
    for start in range(0, p, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        gamma = features(x, n, k, N, p, freq_scale, C).to(W.dtype.element_ty)
        weight = tl.load(W + o[None, :] * p + k[:, None], (o < P)[None, :] & (k < p)[:, None], other=0.0)
        acc = tl.dot(gamma, weight, acc, input_precision=PRECISION)
    acc += tl.load(b + o, o < P, other=0.0).to(tl.float32)[None, :]
    tl.store(y + n.to(tl.int64)[:, None] * P + o[None, :], acc, (n < N)[:, None] & (o < P)[None, :])


@triton.jit
def weight_kernel(
    x, dy, dW, db, N, P, p, SPAN, freq_scale, C: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """`dy' gamma(x)` and the column sums of dy over the points of span pid_s, for a tile of W."""
    s = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    k = tl.program_id(2) * BLOCK_K + tl.arange(0, BLOCK_K)
    first = tl.program_id(0) * SPAN
    last = tl.minimum(first + SPAN, N)
    acc = tl.zeros((BLOCK_P, BLOCK_K), tl.float32)
    total = tl.zeros((BLOCK_P,), tl.float32)
    for start in range(first, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        inside = (n < last)[None, :] & (o < P)[:, None]
        seeds = tl.load(dy + n.to(tl.int64)[None, :] * P + o[:, None], inside, other=0.0)
        gamma = features(x, n, k, last, p, freq_scale, C).to(dy.dtype.element_ty)
        acc = tl.dot(seeds, gamma, acc, input_precision=PRECISION)
        total += tl.sum(seeds.to(tl.float32), 1)
    tl.store(dW + (s * P + o[:, None]) * p + k[None, :], acc, (o < P)[:, None] & (k < p)[None, :])
    if tl.program_id(2) == 0:
        tl.store(db + s * P + o, total, o < P)


@triton.jit
def point_kernel(
    x, W, dy, dx, N, P, p, freq_scale, C: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`dx`: each feature's gradient `dy W` times its slope, added up over the features of a coordinate."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    j = tl.arange(0, BLOCK_C)
    out = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(0, p, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        acc = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
        for first in range(0, P, BLOCK_P):
            o = first + tl.arange(0, BLOCK_P)
            place = dy + n.to(tl.int64)[:, None] * P + o[None, :]
            seeds = tl.load(place, (n < N)[:, None] & (o < P)[None, :], other=0.0)
            weight = tl.load(W + o[:, None] * p + k[None, :], (o < P)[:, None] & (k < p)[None, :], other=0.0)
            acc = tl.dot(seeds, weight, acc, input_precision=PRECISION)
        value, band, quarters = phase(x, n, k, N, p, freq_scale, C)
        slope = tl.where((k < C)[None, :], 1.0, band * wave(value * band, quarters + 1))
        each = acc * slope
        for coordinate in tl.static_range(C):
            part = tl.sum(tl.where((k % C == coordinate)[None, :], each, 0.0), 1)
            out += tl.where((j == coordinate)[None, :], part[:, None], 0.0)
    tl.store(dx + n.to(tl.int64)[:, None] * C + j[None, :], out, (n < N)[:, None] & (j < C)[None, :])


def tile(P: int, itemsize: int) -> dict[str, int]:
    """Points, outputs and features of a program's tiles. float32 is multiplied without tensor cores, in registers."""
    narrow = max(16, triton.next_power_of_2(P))
    if itemsize == 4:
        return {"BLOCK_N": 32, "BLOCK_P": min(64, narrow), "BLOCK_K": 16, "num_warps": 4, "num_stages": 1}
    return {"BLOCK_N": 64, "BLOCK_P": min(128, narrow), "BLOCK_K": 16, "num_warps": 4, "num_stages": 1}


def point_tile(P: int, itemsize: int) -> dict[str, int]:
    """The same for `dx`, where outputs are summed over."""
    launch = tile(P, itemsize)
    return launch | {"BLOCK_P": min(32, launch["BLOCK_P"])}


def launch_linear(x: Tensor, W: Tensor, b: Tensor, freq_scale: float) -> Tensor:
    """`[N, P]` in the dtype of W for x [N, c] of at least one point."""
    N, C = x.shape
    P, p = W.shape
    y = torch.empty(N, P, dtype=W.dtype, device=W.device)
    launch: dict[str, Any] = tile(P, W.element_size())
    with torch.cuda.device_of(W):
        linear_kernel[(triton.cdiv(N, launch["BLOCK_N"]), triton.cdiv(P, launch["BLOCK_P"]))](
            x.contiguous(), multiplied(W).contiguous(), b.contiguous(), y, N, P, p, float(freq_scale),
            C=C, PRECISION=input_precision(), **launch,
        )  # fmt: skip
    return y


def launch_backward(x: Tensor, W: Tensor, dy: Tensor, freq_scale: float, need_x: bool) -> tuple[Tensor, Tensor, Tensor]:
    """`(dx, dW, db)` in float32; dx has no rows where it is not needed."""
    N, C = x.shape
    P, p = W.shape
    x, dy, W = x.contiguous(), multiplied(dy).contiguous(), multiplied(W).contiguous()
    launch: dict[str, Any] = tile(P, W.element_size())
    grid_p, grid_k = triton.cdiv(P, launch["BLOCK_P"]), triton.cdiv(p, launch["BLOCK_K"])
    rounds = triton.cdiv(N, launch["BLOCK_N"])
    span = triton.cdiv(rounds, min(rounds, triton.cdiv(PROGRAMS, grid_p * grid_k))) * launch["BLOCK_N"]
    spans = triton.cdiv(N, span)
    dW = torch.empty(spans, P, p, dtype=torch.float32, device=W.device)
    db = torch.empty(spans, P, dtype=torch.float32, device=W.device)
    dx = torch.empty(N if need_x else 0, C, dtype=torch.float32, device=W.device)
    with torch.cuda.device_of(W):
        weight_kernel[(spans, grid_p, grid_k)](
            x, dy, dW, db, N, P, p, span, float(freq_scale), C=C, PRECISION=input_precision(), **launch
        )
        if need_x:
            launch = point_tile(P, W.element_size())
            point_kernel[(triton.cdiv(N, launch["BLOCK_N"]),)](
                x, W, dy, dx, N, P, p, float(freq_scale),
                C=C, PRECISION=input_precision(), BLOCK_C=triton.next_power_of_2(C), **launch,
            )  # fmt: skip
    return dx, dW.sum(0), db.sum(0)


POINTERS = {
    linear_kernel: {"x": "*fp32", "W": "data", "b": "*fp32", "y": "data"},
    weight_kernel: {"x": "*fp32", "dy": "data", "dW": "*fp32", "db": "*fp32"},
    point_kernel: {"x": "*fp32", "W": "data", "dy": "data", "dx": "*fp32"},
}


def build(kernel: Any, C: int, P: int, dtype: str, precision: str) -> Build:
    inner = kernel is point_kernel
    return variant(
        kernel,
        f"c={C} P={P} {dtype} {precision}",
        dtype=dtype,
        pointers=POINTERS[kernel],
        numbers=("N", "P", "p", "SPAN") if kernel is weight_kernel else ("N", "P", "p"),
        scalars={"freq_scale": "fp32"},
        constants={"C": C, "PRECISION": precision} | ({"BLOCK_C": triton.next_power_of_2(C)} if inner else {}),
        launch=(point_tile if inner else tile)(P, 4 if dtype == "fp32" else 2),
        aligned=False,  # c (1 + 2F) is a multiple of 16 for no usual layer
    )


AOT = [
    build(kernel, C, P, dtype, precision)
    for kernel in (linear_kernel, weight_kernel, point_kernel)
    for C, P, dtype, precision in (
        (3, 128, "fp32", "ieee"),
        (3, 128, "fp32", "tf32"),
        (3, 128, "bf16", "ieee"),
        (3, 128, "fp16", "ieee"),
        (3, 63, "bf16", "ieee"),
        (2, 18, "fp32", "ieee"),
        (2, 18, "bf16", "ieee"),
    )
]
