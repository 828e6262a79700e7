"""Quadratic rows in Triton: tiles of delta A stay in registers, are multiplied by delta and summed along the row.

A program has all columns of its rows, so that no sum is shared: two calls agree bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

from ..inputs import multiplied

TILE = {"BLOCK_N": 64, "BLOCK_J": 64, "BLOCK_H": 16, "num_warps": 4, "num_stages": 2}
ODD = {**TILE, "num_stages": 1}  # rows that are not a multiple of 16: copies ahead of time would spill registers


def tile(H: int) -> dict[str, int]:
    return TILE if H % 16 == 0 else ODD


@triton.jit
def rows_kernel(
    delta, A, out, N, H, A_k, BLOCK_N: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_H: tl.constexpr
):  # fmt: skip
    """`delta' A delta` of rows `BLOCK_N` pid_n ... of draw `pid_k`."""
    k = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = n < N
    delta += (k * N + n)[:, None] * H
    A += k * A_k
    total = tl.zeros((BLOCK_N,), tl.float32)
    for j_start in range(0, H, BLOCK_J):
        j = j_start + tl.arange(0, BLOCK_J)
        product = tl.zeros((BLOCK_N, BLOCK_J), tl.float32)
        for h_start in range(0, H, BLOCK_H):
            h = h_start + tl.arange(0, BLOCK_H)
            left = tl.load(delta + h[None, :], inside[:, None] & (h < H)[None, :], other=0.0)
            right = tl.load(A + h[:, None] * H + j[None, :], (h < H)[:, None] & (j < H)[None, :], other=0.0)
            product = tl.dot(left, right, product, input_precision="ieee")
        here = tl.load(delta + j[None, :], inside[:, None] & (j < H)[None, :], other=0.0)
        total += tl.sum(product * here.to(tl.float32), 1)
    tl.store(out + k * N + n, tl.maximum(total, 0.0), inside)


def launch_rows(delta: Tensor, A: Tensor) -> Tensor:
    """`[K, N]` in float32, for operands with at least one entry; an A that all draws share (stride 0) is not copied."""
    K, N, H = delta.shape
    delta, A = multiplied(delta.contiguous()), multiplied(A if A[0].is_contiguous() else A.contiguous())
    out = torch.empty(K, N, dtype=torch.float32, device=delta.device)
    launch: dict[str, Any] = tile(H)
    with torch.cuda.device_of(delta):
        rows_kernel[(triton.cdiv(N, launch["BLOCK_N"]), K)](delta, A, out, N, H, A.stride(0), **launch)
    return out


def build(dtype: str, aligned: bool = True) -> Build:
    return variant(
        rows_kernel,
        dtype + ("" if aligned else " any size"),
        dtype=dtype,
        pointers={"delta": "data", "A": "data", "out": "*fp32"},
        numbers=("N", "H", "A_k"),
        constants={},
        launch=TILE if aligned else ODD,
        aligned=aligned,
    )


AOT = [build("fp32"), build("fp32", False), build("bf16"), build("fp16")]
