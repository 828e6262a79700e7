"""Products by neighbour lists in Triton, one program for a token of a head: no tensor of gathered rows."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

PAIRS = 16
CHANNELS = 128
LAUNCH = {"num_warps": 4, "num_stages": 1}


@triton.jit
def dot_kernel(y, x, idx, out, R, n, N, M, E, shared, PAIRS: tl.constexpr, CHANNELS: tl.constexpr):
    """`shared`: 1 where x has one head for all, else 0. Tensors are contiguous."""
    token, plane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    image = plane // R
    y += (plane * n + token) * E
    x += tl.where(shared == 1, image, plane) * N * E
    idx += (image * n + token) * M
    out += (plane * n + token) * M
    for start in range(0, M, PAIRS):
        j = start + tl.arange(0, PAIRS)
        row = tl.load(idx + j, j < M, other=0).to(tl.int64)
        total = tl.zeros((PAIRS,), tl.float32)
        for first in range(0, E, CHANNELS):
            e = first + tl.arange(0, CHANNELS)
            mine = tl.load(y + e, e < E, other=0.0).to(tl.float32)
            theirs = tl.load(x + row[:, None] * E + e[None, :], e[None, :] < E, other=0.0).to(tl.float32)
            total += tl.sum(theirs * mine[None, :], 1)
        tl.store(out + j, total.to(out.dtype.element_ty), j < M)


@triton.jit
def sum_kernel(a, x, idx, out, R, n, N, M, E, shared, PAIRS: tl.constexpr, CHANNELS: tl.constexpr):
    token, plane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    image = plane // R
    a += (plane * n + token) * M
    x += tl.where(shared == 1, image, plane) * N * E
    idx += (image * n + token) * M
    e = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    total = tl.zeros((CHANNELS,), tl.float32)
    for start in range(0, M, PAIRS):
        j = start + tl.arange(0, PAIRS)
        row = tl.load(idx + j, j < M, other=0).to(tl.int64)
        weight = tl.load(a + j, j < M, other=0.0).to(tl.float32)
        theirs = tl.load(x + row[:, None] * E + e[None, :], e[None, :] < E, other=0.0).to(tl.float32)
        total += tl.sum(theirs * weight[:, None], 0)
    tl.store(out + (plane * n + token) * E + e, total.to(out.dtype.element_ty), e < E)


@triton.jit
def scatter_kernel(a, y, idx, out, R, n, N, M, E, shared, PAIRS: tl.constexpr, CHANNELS: tl.constexpr):
    """`out` is float32 and starts from zero."""
    token, plane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    image = plane // R
    a += (plane * n + token) * M
    out += tl.where(shared == 1, image, plane) * N * E
    idx += (image * n + token) * M
    e = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    mine = tl.load(y + (plane * n + token) * E + e, e < E, other=0.0).to(tl.float32)
    for start in range(0, M, PAIRS):
        j = start + tl.arange(0, PAIRS)
        row = tl.load(idx + j, j < M, other=0).to(tl.int64)
        weight = tl.load(a + j, j < M, other=0.0).to(tl.float32)
        there = (j < M)[:, None] & (e < E)[None, :]
        tl.atomic_add(out + row[:, None] * E + e[None, :], weight[:, None] * mine[None, :], there, sem="relaxed")


def channels(width: int) -> int:
    return min(CHANNELS, max(16, triton.next_power_of_2(width)))


def run(kernel: Any, one: Tensor, two: Tensor, idx: Tensor, out: Tensor, width: int, heads: int, rows: int) -> Tensor:
    """Launch over all tokens and planes, and blocks of channels except for the dot products."""
    batch, planes, n = one.shape[:3]
    block = channels(width)
    grid = (n, batch * planes, 1 if kernel is dot_kernel else triton.cdiv(width, block))
    shared = int(heads == 1 and planes != 1)
    with torch.cuda.device_of(one):
        kernel[grid](
            one.contiguous(), two.contiguous(), idx.to(torch.int32).contiguous(), out, planes, n, rows, idx.shape[2],
            width, shared, PAIRS=PAIRS, CHANNELS=block, **LAUNCH,
        )  # fmt: skip
    return out


def launch_gather_dot(y: Tensor, x: Tensor, idx: Tensor) -> Tensor:
    out = torch.empty(*y.shape[:3], idx.shape[2], dtype=y.dtype, device=y.device)
    return run(dot_kernel, y, x, idx, out, x.shape[3], x.shape[1], x.shape[2])


def launch_gather_sum(a: Tensor, x: Tensor, idx: Tensor) -> Tensor:
    out = torch.empty(*a.shape[:3], x.shape[3], dtype=x.dtype, device=x.device)
    return run(sum_kernel, a, x, idx, out, x.shape[3], x.shape[1], x.shape[2])


def launch_scatter_sum(a: Tensor, y: Tensor, idx: Tensor, heads: int, rows: int) -> Tensor:
    out = torch.zeros(len(y), heads, rows, y.shape[3], dtype=torch.float32, device=y.device)
    return run(scatter_kernel, a, y, idx, out, y.shape[3], heads, rows).to(y.dtype)


def build(kernel: Any, dtype: str, width: int) -> Build:
    given = {"y": "data", "x": "data", "a": "data", "idx": "*i32", "out": "data"}
    if kernel is scatter_kernel:
        given["out"] = "*fp32"
    return variant(
        kernel,
        f"{dtype}, width {width}",
        dtype=dtype,
        pointers={p: t for p, t in given.items() if p in kernel.arg_names},
        numbers=("R", "n", "N", "M", "E", "shared"),
        constants={"PAIRS": PAIRS, "CHANNELS": channels(width)},
        launch=LAUNCH,
        aligned=False,
    )


AOT = [
    build(kernel, dtype, width)
    for kernel in (dot_kernel, sum_kernel, scatter_kernel)
    for dtype, width in (("fp32", 16), ("fp32", 32), ("fp32", 64), ("fp32", 256), ("bf16", 32), ("fp16", 32))
]
