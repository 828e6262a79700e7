"""Attention split over the keys in Triton: a program for each block of queries and span of keys, then one that joins.

No atomics: spans are joined in a fixed order, two calls agree bit for bit.
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
LEAST = 4  # blocks of keys of a program: what they take outweighs the joining
JOIN = {"BLOCK_L": 16, "num_warps": 4, "num_stages": 1}
LOG2E = 1.4426950408889634


@triton.jit
def span_kernel(
    q, k, v, o, top, total, H, L, N, h, SPAN, rate, q_b, q_h, q_l, k_b, k_h, k_n, v_b, v_h, v_n,
    PRECISION: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Softmax attention of `BLOCK_L` queries of one head to the keys of span pid_s alone.

    Writes the largest logit (in powers of two), the sum of weights relative to it, and the weighted sum of values,
    the last two not yet divided.
    """
    head = tl.program_id(0).to(tl.int64)
    s, spans = tl.program_id(2), tl.num_programs(2)
    b, d = head // H, tl.arange(0, BLOCK_D)
    row = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    q += b * q_b + (head % H) * q_h
    k += b * k_b + (head % H) * k_h
    v += b * v_b + (head % H) * v_h
    queries = tl.load(q + row[:, None] * q_l + d[None, :], (row < L)[:, None] & (d < h)[None, :], other=0.0)
    first = s * SPAN
    last = tl.minimum(first + SPAN, N)
    best = tl.full((BLOCK_L,), float("-inf"), tl.float32)
    weights = tl.zeros((BLOCK_L,), tl.float32)
    acc = tl.zeros((BLOCK_L, BLOCK_D), tl.float32)
    for start in range(first, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        place = n.to(tl.int64)
        keys = tl.load(k + place[None, :] * k_n + d[:, None], (n < last)[None, :] & (d < h)[:, None], other=0.0)
        logit = tl.dot(queries, keys, input_precision=PRECISION) * rate
        logit = tl.where((n < last)[None, :], logit, float("-inf"))
        new = tl.maximum(best, tl.max(logit, 1))
        weight = tl.exp2(logit - new[:, None])
        shrink = tl.exp2(best - new)
        values = tl.load(v + place[:, None] * v_n + d[None, :], (n < last)[:, None] & (d < h)[None, :], other=0.0)
        acc = tl.dot(weight.to(v.dtype.element_ty), values, acc * shrink[:, None], input_precision=PRECISION)
        weights = weights * shrink + tl.sum(weight, 1)
        best = new
    place = (head * spans + s) * L + row
    tl.store(top + place, best, row < L)
    tl.store(total + place, weights, row < L)
    tl.store(o + place[:, None] * h + d[None, :], acc, (row < L)[:, None] & (d < h)[None, :])


@triton.jit
def join_kernel(o, top, total, out, L, h, SPANS, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr):
    """Spans brought to the largest logit of all, added, and divided by the sum of weights. A span without keys has
    the logit -inf, hence the weight 0.
    """
    head = tl.program_id(0).to(tl.int64)
    row, d = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L), tl.arange(0, BLOCK_D)
    best = tl.full((BLOCK_L,), float("-inf"), tl.float32)
    for s in range(0, SPANS):
        best = tl.maximum(best, tl.load(top + (head * SPANS + s) * L + row, row < L, other=0.0))
    weights = tl.zeros((BLOCK_L,), tl.float32)
    acc = tl.zeros((BLOCK_L, BLOCK_D), tl.float32)
    inside = (row < L)[:, None] & (d < h)[None, :]
    for s in range(0, SPANS):
        place = (head * SPANS + s) * L + row
        shrink = tl.exp2(tl.load(top + place, row < L, other=0.0) - best)
        weights += shrink * tl.load(total + place, row < L, other=1.0)
        acc += shrink[:, None] * tl.load(o + place[:, None] * h + d[None, :], inside, other=0.0)
    tl.store(out + (head * L + row)[:, None] * h + d[None, :], acc / weights[:, None], inside)


def tile(L: int, h: int, itemsize: int) -> dict[str, int]:
    """Queries, keys and head entries of a program. float32 is multiplied without tensor cores, in registers."""
    width = max(16, triton.next_power_of_2(h))
    queries = max(16, triton.next_power_of_2(L))
    if itemsize == 4:
        return {"BLOCK_L": min(16, queries), "BLOCK_N": 32, "BLOCK_D": width, "num_warps": 4, "num_stages": 2}
    keys = 16 if h % 16 else 64  # rows that are not aligned are loaded an entry at a time
    return {"BLOCK_L": min(64, queries), "BLOCK_N": keys, "BLOCK_D": width, "num_warps": 4, "num_stages": 2}


def rows_aligned(x: Tensor) -> Tensor:
    """x, or a copy of it where its rows could be aligned and are not, or their entries lie apart."""
    loose = x.stride(3) != 1 or (x.shape[3] % 16 == 0 and any(s % 16 for s in x.stride()[:3]))
    return x.contiguous() if loose else x


def spans(programs: int, blocks: int) -> int:
    """Into how many spans to split `blocks` blocks of keys, where there are `programs` heads and blocks of queries."""
    return max(1, min(blocks // LEAST, triton.cdiv(PROGRAMS, programs)))


def launch_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`[B, H, L, h]` for operands of any strides with at least one entry."""
    B, H, L, h = q.shape
    N = k.shape[2]
    out = torch.empty(B, H, L, h, dtype=q.dtype, device=q.device)
    q, k, v = (rows_aligned(multiplied(x)) for x in (q, k, v))
    launch: dict[str, Any] = tile(L, h, q.element_size())
    grid_l, blocks = triton.cdiv(L, launch["BLOCK_L"]), triton.cdiv(N, launch["BLOCK_N"])
    span = triton.cdiv(blocks, spans(B * H * grid_l, blocks)) * launch["BLOCK_N"]
    parts = triton.cdiv(N, span)
    o = torch.empty(B * H, parts, L, h, dtype=torch.float32, device=q.device)
    top, total = (torch.empty(B * H, parts, L, dtype=torch.float32, device=q.device) for _ in range(2))
    with torch.cuda.device_of(q):
        span_kernel[(B * H, grid_l, parts)](
            q, k, v, o, top, total, H, L, N, h, span, LOG2E / h**0.5, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
            PRECISION=input_precision(), **launch,
        )  # fmt: skip
        join_kernel[(B * H, triton.cdiv(L, JOIN["BLOCK_L"]))](
            o, top, total, out, L, h, parts, BLOCK_D=launch["BLOCK_D"], **JOIN
        )
    return out


PARTS = dict.fromkeys(("o", "top", "total"), "*fp32")


def build_span(h: int, dtype: str, precision: str = "ieee", aligned: bool = True) -> Build:
    strides = tuple(f"{x}_{axis}" for x, last in zip("qkv", "lnn") for axis in ("b", "h", last))
    return variant(
        span_kernel,
        f"h={h} {dtype} {precision}" + ("" if aligned else " any size"),
        dtype=dtype,
        pointers={"q": "data", "k": "data", "v": "data", **PARTS},
        numbers=("H", "L", "N", "h", "SPAN", *strides),
        scalars={"rate": "fp32"},
        constants={"PRECISION": precision},
        launch=tile(64, h, 4 if dtype == "fp32" else 2),
        aligned=aligned,
    )


def build_join(h: int, dtype: str) -> Build:
    return variant(
        join_kernel,
        f"h={h} {dtype}",
        dtype=dtype,
        pointers={**PARTS, "out": "data"},
        numbers=("L", "h", "SPANS"),
        constants={"BLOCK_D": max(16, triton.next_power_of_2(h))},
        launch=JOIN,
        aligned=False,
    )


AOT = [
    *[build_span(h, "bf16") for h in (8, 32, 64, 128)],
    *[build_span(h, "fp32", precision) for h in (64, 128) for precision in ("ieee", "tf32")],
    build_span(64, "fp16"),
    build_span(40, "bf16", aligned=False),
    build_span(40, "fp32", aligned=False),
    build_span(120, "bf16", aligned=False),
    *[build_join(h, dtype) for h, dtype in ((8, "fp32"), (64, "fp32"), (64, "bf16"), (64, "fp16"), (128, "bf16"))],
]
