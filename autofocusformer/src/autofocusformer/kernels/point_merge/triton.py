"""Merging in Triton: a program for a kept token and some of the channels.

The four weights of each pair are computed on the fly. Backwards the features' and the importances' gradients are added
up by float32 atomics, in any order; in deterministic mode the blocks of plain PyTorch run instead (`op.py`).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

PAIRS = 16  # neighbours at a time
CHANNELS = 128  # at a time
BACKWARD_CHANNELS = 32  # the same backwards, where more has to be in registers
LAUNCH = {"num_warps": 4, "num_stages": 1}
COLUMNS = 32  # sums of a program: 20 of the weight, 4 each of bias, norm weight and norm bias


@triton.jit
def row_of(weight, r: tl.constexpr, dx, dy, d, sine, cosine):
    """`A_r phi + a_r`; weight is [4, 6], the bias behind the five."""
    w = weight + r * 6
    z = tl.load(w) * dx + tl.load(w + 1) * dy + tl.load(w + 2) * d + tl.load(w + 3) * sine + tl.load(w + 4) * cosine
    return z + tl.load(w + 5)


@triton.jit
def gelu(y):
    return 0.5 * y * (1 + tl.erf(y * 0.7071067811865476))


@triton.jit
def gelu_slope(y):
    return 0.5 * (1 + tl.erf(y * 0.7071067811865476)) + y * tl.exp(-0.5 * y * y) * 0.3989422804014327


@triton.jit
def pairs_of(at, idx, valid, prob, weight, x, y, j, M, EPS: tl.constexpr):
    """Of neighbours j: rows, whether real, importance (0 where not), offsets, and the four normalised values."""
    there = j < M
    row = tl.load(idx + j, there, other=0)
    real = tl.load(valid + j, there, other=0) != 0
    importance = tl.where(real, tl.load(prob + row).to(tl.float32), 0.0)
    dx = (tl.load(at + row * 2) - x).to(tl.float32)
    dy = (tl.load(at + row * 2 + 1) - y).to(tl.float32)
    d = tl.sqrt(dx * dx + dy * dy)
    inv = tl.where(d > 0, 1.0 / tl.where(d > 0, d, 1.0), 0.0)
    sine, cosine = dy * inv, dx * inv
    z0 = row_of(weight, 0, dx, dy, d, sine, cosine)
    z1 = row_of(weight, 1, dx, dy, d, sine, cosine)
    z2 = row_of(weight, 2, dx, dy, d, sine, cosine)
    z3 = row_of(weight, 3, dx, dy, d, sine, cosine)
    mean = (z0 + z1 + z2 + z3) * 0.25
    z0, z1, z2, z3 = z0 - mean, z1 - mean, z2 - mean, z3 - mean
    scale = 1.0 / tl.sqrt((z0 * z0 + z1 * z1 + z2 * z2 + z3 * z3) * 0.25 + EPS)
    return row, real, importance, dx, dy, d, sine, cosine, z0 * scale, z1 * scale, z2 * scale, z3 * scale, scale


@triton.jit
def forward_kernel(
    x, prob, at, kept, idx, valid, weight, norm, out, n, m, M, C,
    EPS: tl.constexpr, PAIRS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """`weight` [4, 6] and `norm` [2, 4] in float32; `out` [B, m, 4, C]."""
    place = tl.program_id(0).to(tl.int64)
    image = place // m
    x += image * n * C
    prob += image * n
    at += image * n * 2
    idx += place * M
    valid += place * M
    me = tl.load(kept + place)
    px, py = tl.load(at + me * 2), tl.load(at + me * 2 + 1)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    a0 = tl.zeros((CHANNELS,), tl.float32)
    a1, a2, a3 = a0, a0, a0
    for start in range(0, M, PAIRS):
        j = start + tl.arange(0, PAIRS)
        row, _, s, _, _, _, _, _, n0, n1, n2, n3, _ = pairs_of(at, idx, valid, prob, weight, px, py, j, M, EPS)
        value = tl.load(x + row[:, None].to(tl.int64) * C + c[None, :], c[None, :] < C, other=0.0).to(tl.float32)
        w0 = gelu(n0 * tl.load(norm) + tl.load(norm + 4)) * s
        w1 = gelu(n1 * tl.load(norm + 1) + tl.load(norm + 5)) * s
        w2 = gelu(n2 * tl.load(norm + 2) + tl.load(norm + 6)) * s
        w3 = gelu(n3 * tl.load(norm + 3) + tl.load(norm + 7)) * s
        a0 += tl.sum(w0[:, None] * value, 0)
        a1 += tl.sum(w1[:, None] * value, 0)
        a2 += tl.sum(w2[:, None] * value, 0)
        a3 += tl.sum(w3[:, None] * value, 0)
    out += place * 4 * C
    kind = out.dtype.element_ty
    tl.store(out + c, a0.to(kind), c < C)
    tl.store(out + C + c, a1.to(kind), c < C)
    tl.store(out + 2 * C + c, a2.to(kind), c < C)
    tl.store(out + 3 * C + c, a3.to(kind), c < C)


@triton.jit
def store_row(out, r: tl.constexpr, dz, by_y, normed, dx, dy, d, sine, cosine):
    """Sums of one of the four rows: its five weights and bias; norm weight and bias."""
    tl.store(out + r * 6, tl.sum(dz * dx, 0))
    tl.store(out + r * 6 + 1, tl.sum(dz * dy, 0))
    tl.store(out + r * 6 + 2, tl.sum(dz * d, 0))
    tl.store(out + r * 6 + 3, tl.sum(dz * sine, 0))
    tl.store(out + r * 6 + 4, tl.sum(dz * cosine, 0))
    tl.store(out + r * 6 + 5, tl.sum(dz, 0))
    tl.store(out + 24 + r, tl.sum(by_y * normed, 0))
    tl.store(out + 28 + r, tl.sum(by_y, 0))


@triton.jit
def backward_kernel(
    grad, x, prob, at, kept, idx, valid, weight, norm, by_x, by_prob, by_small, n, m, M, C,
    EPS: tl.constexpr, PAIRS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """All gradients of `PAIRS` neighbours of one kept token; each program has its own row of `by_small` [., 32]."""
    place = tl.program_id(0).to(tl.int64)
    image = place // m
    x += image * n * C
    by_x += image * n * C
    prob += image * n
    by_prob += image * n
    at += image * n * 2
    idx += place * M
    valid += place * M
    grad += place * 4 * C
    me = tl.load(kept + place)
    px, py = tl.load(at + me * 2), tl.load(at + me * 2 + 1)
    j = tl.program_id(1) * PAIRS + tl.arange(0, PAIRS)
    row, real, s, dx, dy, d, sine, cosine, n0, n1, n2, n3, scale = pairs_of(
        at, idx, valid, prob, weight, px, py, j, M, EPS
    )
    g0, g1, g2, g3 = tl.load(norm), tl.load(norm + 1), tl.load(norm + 2), tl.load(norm + 3)
    y0, y1 = n0 * g0 + tl.load(norm + 4), n1 * g1 + tl.load(norm + 5)
    y2, y3 = n2 * g2 + tl.load(norm + 6), n3 * g3 + tl.load(norm + 7)
    w0, w1, w2, w3 = gelu(y0), gelu(y1), gelu(y2), gelu(y3)
    b0 = tl.zeros((PAIRS,), tl.float32)  # gradients by the scaled weights
    b1, b2, b3 = b0, b0, b0
    for start in range(0, C, CHANNELS):
        c = start + tl.arange(0, CHANNELS)
        u0 = tl.load(grad + c, c < C, other=0.0).to(tl.float32)[None, :]
        u1 = tl.load(grad + C + c, c < C, other=0.0).to(tl.float32)[None, :]
        u2 = tl.load(grad + 2 * C + c, c < C, other=0.0).to(tl.float32)[None, :]
        u3 = tl.load(grad + 3 * C + c, c < C, other=0.0).to(tl.float32)[None, :]
        where = row[:, None].to(tl.int64) * C + c[None, :]
        value = tl.load(x + where, c[None, :] < C, other=0.0).to(tl.float32)
        b0 += tl.sum(value * u0, 1)
        b1 += tl.sum(value * u1, 1)
        b2 += tl.sum(value * u2, 1)
        b3 += tl.sum(value * u3, 1)
        dvalue = (w0 * s)[:, None] * u0 + (w1 * s)[:, None] * u1 + (w2 * s)[:, None] * u2 + (w3 * s)[:, None] * u3
        tl.atomic_add(by_x + where, dvalue, real[:, None] & (c[None, :] < C), sem="relaxed")
    tl.atomic_add(by_prob + row, b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3, real, sem="relaxed")
    y0, y1 = b0 * s * gelu_slope(y0), b1 * s * gelu_slope(y1)
    y2, y3 = b2 * s * gelu_slope(y2), b3 * s * gelu_slope(y3)
    h0, h1, h2, h3 = y0 * g0, y1 * g1, y2 * g2, y3 * g3
    mean = (h0 + h1 + h2 + h3) * 0.25
    along = (h0 * n0 + h1 * n1 + h2 * n2 + h3 * n3) * 0.25
    out = by_small + (place * tl.num_programs(1) + tl.program_id(1)) * 32
    store_row(out, 0, (h0 - mean - n0 * along) * scale, y0, n0, dx, dy, d, sine, cosine)
    store_row(out, 1, (h1 - mean - n1 * along) * scale, y1, n1, dx, dy, d, sine, cosine)
    store_row(out, 2, (h2 - mean - n2 * along) * scale, y2, n2, dx, dy, d, sine, cosine)
    store_row(out, 3, (h3 - mean - n3 * along) * scale, y3, n3, dx, dy, d, sine, cosine)


def operands(
    x: Tensor, prob: Tensor, positions: Tensor, kept: Tensor, idx: Tensor, valid: Tensor, weight: Tensor, bias: Tensor,
    norm_weight: Tensor, norm_bias: Tensor,
) -> tuple[list[Tensor], list[int]]:  # fmt: skip
    """Pointers and sizes of both kernels."""
    ints = [t.to(torch.int32).contiguous() for t in (positions, kept, idx)]
    matrix = torch.cat([weight, bias[:, None]], 1).float().contiguous()
    norm = torch.stack([norm_weight, norm_bias]).float().contiguous()
    pointers = [x.contiguous(), prob.contiguous(), *ints, valid.to(torch.int8).contiguous(), matrix, norm]
    return pointers, [x.shape[1], kept.shape[1], idx.shape[2], x.shape[2]]


def channels(width: int, most: int = CHANNELS) -> int:
    return min(most, max(16, triton.next_power_of_2(width)))


EPS = 1e-5


def launch_forward(*given: Tensor) -> Tensor:
    """[B, n', 4, c] of the operator's arguments."""
    pointers, sizes = operands(*given)
    x, kept = given[0], given[3]
    out = torch.empty(len(x), kept.shape[1], 4, x.shape[2], dtype=x.dtype, device=x.device)
    block = channels(x.shape[2])
    grid = (kept.numel(), triton.cdiv(x.shape[2], block))
    with torch.cuda.device_of(x):
        forward_kernel[grid](*pointers, out, *sizes, EPS=EPS, PAIRS=PAIRS, CHANNELS=block, **LAUNCH)
    return out


def launch_backward(grad: Tensor, *given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, prob, weight, bias, norm_weight, norm_bias."""
    pointers, sizes = operands(*given)
    x, prob, _, kept, idx, _, weight, bias, norm_weight, norm_bias = given
    by_x, by_prob = (torch.zeros(t.shape, device=x.device) for t in (x, prob))
    grid = (kept.numel(), triton.cdiv(idx.shape[2], PAIRS))
    by_small = torch.empty(*grid, COLUMNS, device=x.device)
    with torch.cuda.device_of(x):
        backward_kernel[grid](
            grad.contiguous(), *pointers, by_x, by_prob, by_small, *sizes,
            EPS=EPS, PAIRS=PAIRS, CHANNELS=channels(x.shape[2], BACKWARD_CHANNELS), **LAUNCH,
        )  # fmt: skip
    small = by_small.sum((0, 1))
    matrix = small[:24].view(4, 6)
    parts = (matrix[:, :5], matrix[:, 5], small[24:28], small[28:])
    like = (weight, bias, norm_weight, norm_bias)
    fresh = [p.to(t.dtype, copy=True, memory_format=torch.contiguous_format) for p, t in zip(parts, like)]
    return by_x.to(x.dtype), by_prob.to(prob.dtype), fresh[0], fresh[1], fresh[2], fresh[3]


def build(kernel: Any, dtype: str, width: int) -> Build:
    data = dict.fromkeys(("grad", "x", "prob", "out"), "data")
    ints = dict.fromkeys(("at", "kept", "idx"), "*i32")
    floats = dict.fromkeys(("weight", "norm", "by_x", "by_prob", "by_small"), "*fp32")
    pointers = {p: t for p, t in (data | ints | floats | {"valid": "*i8"}).items() if p in kernel.arg_names}
    most = CHANNELS if kernel is forward_kernel else BACKWARD_CHANNELS
    return variant(
        kernel,
        f"{dtype}, width {width}",
        dtype=dtype,
        pointers=pointers,
        numbers=("n", "m", "M", "C"),
        constants={"EPS": EPS, "PAIRS": PAIRS, "CHANNELS": channels(width, most)},
        launch=LAUNCH,
        aligned=False,
    )


# One width for each block of channels that the variants' stages (16 to 512 channels) lead to.
AOT = [
    build(kernel, dtype, width)
    for kernel in (forward_kernel, backward_kernel)
    for dtype, width in (
        ("fp32", 16), ("fp32", 32), ("fp32", 64), ("fp32", 96), ("fp32", 256), ("bf16", 96), ("fp16", 96),
    )
]  # fmt: skip
