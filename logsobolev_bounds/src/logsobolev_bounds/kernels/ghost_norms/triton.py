"""The Gram form of ghost norms in Triton: both [T, T] products stay in registers, a tile at a time.

Each pair of tiles writes its own sum; they are added in a fixed order: two calls agree bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

from ..inputs import multiplied

SMALL = {"BLOCK_T": 16, "BLOCK_C": 32, "num_warps": 2, "num_stages": 2}
LARGE = {"BLOCK_T": 32, "BLOCK_C": 32, "num_warps": 4, "num_stages": 2}


@triton.jit
def gram_kernel(
    a, delta, sums, T, C, O, PAIRS, a_n, a_t, a_c, d_n, d_t, d_o, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """`sum (a_t . a_u) (delta_t . delta_u)` over a pair of tiles of example `pid_n`, twice off the diagonal.

    Pair p = i (i + 1) / 2 + j, j <= i: rows from tile i, columns from tile j.
    """
    n = tl.program_id(0).to(tl.int64)
    pair = tl.program_id(1)
    i = 0
    while (i + 1) * (i + 2) // 2 <= pair:
        i += 1
    j = pair - i * (i + 1) // 2
    t = i * BLOCK_T + tl.arange(0, BLOCK_T)
    u = j * BLOCK_T + tl.arange(0, BLOCK_T)
    a += n * a_n
    delta += n * d_n
    gram = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        left = tl.load(a + t[:, None] * a_t + c[None, :] * a_c, (t < T)[:, None] & (c < C)[None, :], other=0.0)
        right = tl.load(a + u[None, :] * a_t + c[:, None] * a_c, (u < T)[None, :] & (c < C)[:, None], other=0.0)
        gram = tl.dot(left, right, gram, input_precision="ieee")
    other = tl.zeros((BLOCK_T, BLOCK_T), tl.float32)
    for start in range(0, O, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        left = tl.load(delta + t[:, None] * d_t + c[None, :] * d_o, (t < T)[:, None] & (c < O)[None, :], other=0.0)
        right = tl.load(delta + u[None, :] * d_t + c[:, None] * d_o, (u < T)[None, :] & (c < O)[:, None], other=0.0)
        other = tl.dot(left, right, other, input_precision="ieee")
    total = tl.sum(tl.sum(gram * other, 1), 0)
    tl.store(sums + n * PAIRS + pair, total * tl.where(i == j, 1.0, 2.0))


def tile(T: int) -> dict[str, int]:
    return LARGE if SMALL["BLOCK_T"] < T else SMALL


def launch_norms(a: Tensor, delta: Tensor) -> Tensor:
    """`[N]` in float32, for operands of any strides with at least one entry."""
    N, T, C = a.shape
    a, delta = multiplied(a), multiplied(delta)
    launch: dict[str, Any] = tile(T)
    tiles = triton.cdiv(T, launch["BLOCK_T"])
    pairs = tiles * (tiles + 1) // 2
    sums = torch.empty(N, pairs, dtype=torch.float32, device=a.device)
    with torch.cuda.device_of(a):
        gram_kernel[(N, pairs)](
            a, delta, sums, T, C, delta.shape[2], pairs, *a.stride(), *delta.stride(), **launch
        )  # fmt: skip
    return sums.sum(1).clamp_(min=0)


def build(name: str, launch: dict[str, int], dtype: str, aligned: bool = True) -> Build:
    strides = ("a_n", "a_t", "a_c", "d_n", "d_t", "d_o")
    return variant(
        gram_kernel,
        f"{name} tile {dtype}" + ("" if aligned else " any size"),
        dtype=dtype,
        pointers={"a": "data", "delta": "data", "sums": "*fp32"},
        numbers=("T", "C", "O", "PAIRS", *strides),
        constants={"a_c": 1, "d_o": 1} if aligned else {},
        launch=launch,
        aligned=aligned,
    )


AOT = [
    build(name, launch, dtype, aligned)
    for name, launch in (("small", SMALL), ("large", LARGE))
    for dtype, aligned in (("fp32", True), ("fp32", False), ("bf16", True), ("fp16", True))
]
