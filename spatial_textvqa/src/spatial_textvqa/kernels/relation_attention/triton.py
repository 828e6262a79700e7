"""Attention along a spatial graph in Triton: tiles of queries x keys, and one byte of the graph for each pair in them.

What a query sees follows from the positions and from that byte; no tensor of L x L is ever made. Backward: a launch by
tiles of keys (dk, dv, and the partial sums of the bias table), and one by tiles of queries (dq). No atomics: two calls
agree bit for bit. Dropout is drawn from (seed, b, h, i, j), the same in both directions.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from shared.kernels.backend import BACKEND, input_precision
from torch import Tensor

from .subsets import RELATIONS

# By the arithmetic of the products; sizes that spill no registers on sm_80 and sm_90.
FORWARD = {
    "ieee": {"ROWS": 32, "COLUMNS": 32, "num_warps": 4, "num_stages": 2},
    "tf32": {"ROWS": 32, "COLUMNS": 32, "num_warps": 4, "num_stages": 2},
    "half": {"ROWS": 64, "COLUMNS": 32, "num_warps": 4, "num_stages": 2},
}
BACKWARD = {
    "ieee": {"ROWS": 16, "COLUMNS": 32, "num_warps": 8, "num_stages": 1},
    "tf32": {"ROWS": 32, "COLUMNS": 32, "num_warps": 4, "num_stages": 1},
    "half": {"ROWS": 32, "COLUMNS": 32, "num_warps": 8, "num_stages": 1},
}
TYPES = 16  # relations, padded to a power of two


def tiles(table: dict[str, dict[str, int]], dtype: torch.dtype, precision: str) -> dict[str, int]:
    return table[precision if dtype is torch.float32 else "half"]


@triton.jit
def pair_types(relations, i, j, T, N):
    """Bytes of the graph for positions i x j, 0 where one is no entity; and where both are."""
    both = ((i >= T) & (i < T + N))[:, None] & ((j >= T) & (j < T + N))[None, :]
    place = (i - T)[:, None] * N + (j - T)[None, :]
    return tl.load(relations + place, both, other=0).to(tl.int32), both


@triton.jit
def visible(valid, types, both, bits, i, j, T, N, L, QUADRANTS: tl.constexpr):
    """Where query i sees key j: the base mask, the blocks, and in block 5 the head's subset."""
    block = 3 * ((i >= T).to(tl.int32) + (i >= T + N).to(tl.int32))[:, None]
    block += ((j >= T).to(tl.int32) + (j >= T + N).to(tl.int32))[None, :]
    seen = (valid != 0)[None, :] & (i < L)[:, None] & (j < L)[None, :]
    seen &= (j < T + N)[None, :] | ((i >= T + N)[:, None] & (j[None, :] <= i[:, None]))
    seen &= ((QUADRANTS >> block) & 1) == 0
    return seen & ((both == 0) | (((bits >> types) & 1) != 0))


@triton.jit
def dropped(seed, first, i, j, L, dropout):
    """What the probabilities are multiplied by; `first` is the number of the entry (b, h, 0, 0)."""
    kept = tl.rand(seed, first + i[:, None] * L + j[None, :]) >= dropout
    return tl.where(kept, 1.0 / (1.0 - dropout), 0.0)


@triton.jit
def matrix(pointer, rows, stride, L, D, WIDTH: tl.constexpr, WIDE: tl.constexpr):
    """Rows of a [L, D] matrix, zeros beyond it."""
    d = tl.arange(0, WIDTH)
    out = tl.load(pointer + rows[:, None] * stride + d[None, :], (rows < L)[:, None] & (d < D)[None, :], other=0.0)
    if WIDE:
        out = out.to(tl.float32)
    return out


@triton.jit
def attention_kernel(
    q, k, v, relations, valid, bits, beta, out, lse, seed, dropout, scale,
    q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l, o_b, o_h, o_l, T, N, L, H, D,
    QUADRANTS: tl.constexpr, DROP: tl.constexpr, PRECISION: tl.constexpr,
    WIDTH: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Output and log of the sum of exponentials for `ROWS` queries of head `pid_1` of sample `pid_2`."""
    h, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    last = tl.minimum(tl.program_id(0) * ROWS + ROWS, L)  # one past this tile's last query
    subset, first = tl.load(bits + h).to(tl.int32), ((b * H + h) * L * L).to(tl.int32)
    queries = matrix(q + b * q_b + h * q_h, i, q_l, L, D, WIDTH, WIDE)
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    # Queries of the decoder see up to themselves, all others no decoder position; a tile of question rows that see
    # neither question nor entities has nothing to do.
    stop = tl.where(last > T + N, last, T + N)
    if (QUADRANTS & 3) == 3:
        stop = tl.where(last <= T, 0, stop)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mean = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(0, stop, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        known = tl.load(valid + b * L + j, j < L, other=0)
        types, both = pair_types(relations + b * N * N, i, j, T, N)
        seen = visible(known, types, both, subset, i, j, T, N, L, QUADRANTS)
        keys = matrix(k, j, k_l, L, D, WIDTH, WIDE)
        scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
        if beta is not None:
            scores += tl.load(beta + h * 13 + types, both, other=0.0)
        scores = tl.where(seen, scores, float("-inf"))
        above = tl.maximum(top, tl.max(scores, 1))
        base = tl.where(above == float("-inf"), 0.0, above)
        p = tl.exp(scores - base[:, None])
        shrink = tl.exp(top - base)
        total = total * shrink + tl.sum(p, 1)
        if DROP:
            p *= dropped(seed, first, i, j, L, dropout)
        values = matrix(v, j, v_l, L, D, WIDTH, WIDE)
        mean = mean * shrink[:, None] + tl.dot(p.to(values.dtype), values, input_precision=PRECISION)
        top = above
    some = total > 0
    mean = mean / tl.where(some, total, 1.0)[:, None]
    d = tl.arange(0, WIDTH)
    place = out + b * o_b + h * o_h + i[:, None] * o_l + d[None, :]
    tl.store(place, mean.to(out.dtype.element_ty), (i < L)[:, None] & (d < D)[None, :])
    tl.store(lse + (b * H + h) * L + i, tl.where(some, top + tl.log(tl.where(some, total, 1.0)), float("-inf")), i < L)


@triton.jit
def scores_gradient(
    queries, keys, values, upstream, known, relations, valid, beta, lse, delta, seed, first, h, subset, dropout, scale,
    i, j, T, N, L, QUADRANTS: tl.constexpr, DROP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of a tile: probabilities as they met the values, gradient of the scores, types of the pairs, which have one."""
    types, both = pair_types(relations, i, j, T, N)
    seen = visible(known, types, both, subset, i, j, T, N, L, QUADRANTS)
    scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
    if beta is not None:
        scores += tl.load(beta + h * 13 + types, both, other=0.0)
    norm = tl.load(lse + i, i < L, other=0.0)
    seen &= (norm > float("-inf"))[:, None]
    p = tl.where(seen, tl.exp(tl.where(seen, scores - norm[:, None], 0.0)), 0.0)
    by_p = tl.dot(upstream, tl.trans(values), input_precision=PRECISION)
    met = p
    if DROP:
        factor = dropped(seed, first, i, j, L, dropout)
        met = p * factor
        by_p *= factor
    by_scores = p * (by_p - tl.load(delta + i, i < L, other=0.0)[:, None])
    return met, by_scores, types, both


@triton.jit
def keys_gradient_kernel(
    q, k, v, relations, valid, bits, beta, lse, delta, up, dk, dv, partial, seed, dropout, scale,
    q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l, u_b, u_h, u_l, g_b, g_h, g_l, T, N, L, H, D,
    QUADRANTS: tl.constexpr, DROP: tl.constexpr, PRECISION: tl.constexpr,
    WIDTH: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """dk and dv of `COLUMNS` keys, and their part of the gradient of the bias table."""
    h, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    subset, first = tl.load(bits + h).to(tl.int32), ((b * H + h) * L * L).to(tl.int32)
    keys, values = (
        matrix(k + b * k_b + h * k_h, j, k_l, L, D, WIDTH, WIDE),
        matrix(v + b * v_b + h * v_h, j, v_l, L, D, WIDTH, WIDE),
    )
    known = tl.load(valid + b * L + j, j < L, other=0)
    by_keys, by_values = tl.zeros((COLUMNS, WIDTH), tl.float32), tl.zeros((COLUMNS, WIDTH), tl.float32)
    of_type, t = tl.zeros((16,), tl.float32), tl.arange(0, 16)
    # Decoder keys are seen by the decoder from themselves on; question rows see nothing where 1 and 2 are masked.
    begin = tl.where(tl.program_id(0) * COLUMNS >= T + N, tl.program_id(0) * COLUMNS, 0)
    if (QUADRANTS & 3) == 3:
        begin = tl.maximum(begin, T)
    for start in range(begin // ROWS * ROWS, L, ROWS):
        i = start + tl.arange(0, ROWS)
        queries = matrix(q + b * q_b + h * q_h, i, q_l, L, D, WIDTH, WIDE)
        upstream = matrix(up + b * u_b + h * u_h, i, u_l, L, D, WIDTH, WIDE)
        met, by_scores, types, both = scores_gradient(
            queries, keys, values, upstream, known, relations + b * N * N, valid, beta, lse + (b * H + h) * L,
            delta + (b * H + h) * L, seed, first, h, subset, dropout, scale, i, j, T, N, L, QUADRANTS, DROP, PRECISION,
        )  # fmt: skip
        by_values += tl.dot(tl.trans(met.to(upstream.dtype)), upstream, input_precision=PRECISION)
        by_keys += tl.dot(tl.trans(by_scores.to(queries.dtype)), queries, input_precision=PRECISION)
        if beta is not None:
            for each in range(13):
                if (subset >> each) & 1:
                    of_type += tl.where(t == each, tl.sum(tl.where(both & (types == each), by_scores, 0.0)), 0.0)
    d = tl.arange(0, WIDTH)
    place, there = b * g_b + h * g_h + j[:, None] * g_l + d[None, :], (j < L)[:, None] & (d < D)[None, :]
    tl.store(dk + place, (by_keys * scale).to(dk.dtype.element_ty), there)
    tl.store(dv + place, by_values.to(dv.dtype.element_ty), there)
    if beta is not None:
        tl.store(partial + ((b * H + h) * tl.num_programs(0) + tl.program_id(0)) * 16 + t, of_type)


@triton.jit
def queries_gradient_kernel(
    q, k, v, relations, valid, bits, beta, lse, delta, up, dq, seed, dropout, scale,
    q_b, q_h, q_l, k_b, k_h, k_l, v_b, v_h, v_l, u_b, u_h, u_l, g_b, g_h, g_l, T, N, L, H, D,
    QUADRANTS: tl.constexpr, DROP: tl.constexpr, PRECISION: tl.constexpr,
    WIDTH: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """dq of `ROWS` queries."""
    h, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    last = tl.minimum(tl.program_id(0) * ROWS + ROWS, L)
    subset, first = tl.load(bits + h).to(tl.int32), ((b * H + h) * L * L).to(tl.int32)
    queries = matrix(q + b * q_b + h * q_h, i, q_l, L, D, WIDTH, WIDE)
    upstream = matrix(up + b * u_b + h * u_h, i, u_l, L, D, WIDTH, WIDE)
    by_queries = tl.zeros((ROWS, WIDTH), tl.float32)
    stop = tl.where(last > T + N, last, T + N)
    if (QUADRANTS & 3) == 3:
        stop = tl.where(last <= T, 0, stop)
    for start in range(0, stop, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        keys, values = (
            matrix(k + b * k_b + h * k_h, j, k_l, L, D, WIDTH, WIDE),
            matrix(v + b * v_b + h * v_h, j, v_l, L, D, WIDTH, WIDE),
        )
        known = tl.load(valid + b * L + j, j < L, other=0)
        _met, by_scores, _types, _both = scores_gradient(
            queries, keys, values, upstream, known, relations + b * N * N, valid, beta, lse + (b * H + h) * L,
            delta + (b * H + h) * L, seed, first, h, subset, dropout, scale, i, j, T, N, L, QUADRANTS, DROP, PRECISION,
        )  # fmt: skip
        by_queries += tl.dot(by_scores.to(keys.dtype), keys, input_precision=PRECISION)
    d = tl.arange(0, WIDTH)
    place = dq + b * g_b + h * g_h + i[:, None] * g_l + d[None, :]
    tl.store(place, (by_queries * scale).to(dq.dtype.element_ty), (i < L)[:, None] & (d < D)[None, :])


@cache
def on_device(bits: tuple[int, ...], device: torch.device) -> Tensor:
    """The subsets, as many int16 as heads; moved once."""
    return torch.tensor(bits, dtype=torch.int16, device=device)


def rows(x: Tensor) -> Tensor:
    """With entries of a row side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def like(q: Tensor) -> Tensor:
    """[B, H, L, d] that lies in memory as [B, L, H, d], so that the heads are joined without a copy."""
    b, h, l, d = q.shape
    return torch.empty(b, l, h, d, dtype=q.dtype, device=q.device).transpose(1, 2)


def shared_arguments(
    q: Tensor, layout: tuple[int, int, int], quadrants: int, dropout: float
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """T, N, L, H, D, and the constants."""
    width = max(16, triton.next_power_of_2(q.shape[-1]))
    sizes = (layout[0], layout[1], sum(layout), q.shape[1], q.shape[-1])
    # The interpreter multiplies bfloat16 as the integers that hold it; widening changes no product.
    wide = BACKEND == "interpret" and q.dtype is torch.bfloat16
    precision = {"PRECISION": input_precision(), "WIDE": wide}
    return sizes, {"QUADRANTS": quadrants, "DROP": dropout > 0, "WIDTH": width, **precision}


def launch_forward(
    q: Tensor, k: Tensor, v: Tensor, relations: Tensor, key_valid: Tensor, layout: tuple[int, int, int],
    bits: tuple[int, ...], beta: Tensor | None, quadrants: int, dropout: float, seed: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`(out, lse)` [B, H, L, d] and [B, H, L] float32."""
    q, k, v = rows(q), rows(k), rows(v)
    out = like(q)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    sizes, options = shared_arguments(q, layout, quadrants, dropout)
    launch = tiles(FORWARD, q.dtype, options["PRECISION"])
    grid = (triton.cdiv(q.shape[2], launch["ROWS"]), q.shape[1], q.shape[0])
    strides = [s for x in (q, k, v, out) for s in x.stride()[:3]]
    with torch.cuda.device_of(q):
        attention_kernel[grid](
            q, k, v, relations.contiguous(), key_valid.contiguous().view(torch.uint8), on_device(bits, q.device),
            beta if beta is None else beta.float().contiguous(), out, lse, seed, dropout, q.shape[-1] ** -0.5,
            *strides, *sizes, **options, **launch,
        )  # fmt: skip
    return out, lse


def launch_backward(
    up: Tensor, q: Tensor, k: Tensor, v: Tensor, relations: Tensor, key_valid: Tensor, layout: tuple[int, int, int],
    bits: tuple[int, ...], beta: Tensor | None, quadrants: int, dropout: float, seed: int, out: Tensor, lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, and the gradient of the bias table (without one, an empty tensor)."""
    up, q, k, v = rows(up), rows(q), rows(k), rows(v)
    delta = (up.float() * out.float()).sum(-1)
    dq, dk, dv = like(q), like(q), like(q)
    sizes, options = shared_arguments(q, layout, quadrants, dropout)
    launch = tiles(BACKWARD, q.dtype, options["PRECISION"])
    batch, heads, length = q.shape[:3]
    by_keys = triton.cdiv(length, launch["COLUMNS"])
    partial = q.new_empty((batch, heads, by_keys, TYPES) if beta is not None else (0,), dtype=torch.float32)
    valid, graph = key_valid.contiguous().view(torch.uint8), relations.contiguous()
    table = beta if beta is None else beta.float().contiguous()
    first = (q, k, v, graph, valid, on_device(bits, q.device), table, lse, delta, up)
    strides = [s for x in (q, k, v, up, dq) for s in x.stride()[:3]]
    last = (seed, dropout, q.shape[-1] ** -0.5, *strides, *sizes)
    with torch.cuda.device_of(q):
        keys_gradient_kernel[by_keys, heads, batch](*first, dk, dv, partial, *last, **options, **launch)
        grid = (triton.cdiv(length, launch["ROWS"]), heads, batch)
        queries_gradient_kernel[grid](*first, dq, *last, **options, **launch)
    return dq, dk, dv, partial if beta is None else partial.sum((0, 2))[:, :RELATIONS]


NUMBERS = (*(f"{x}_{s}" for x in "qkvoug" for s in "bhl"), "T", "N", "L", "H", "D")
POINTERS = {
    **dict.fromkeys(("q", "k", "v", "out", "up", "dk", "dv", "dq"), "data"), "relations": "*u8", "valid": "*u8",
    "bits": "*i16", **dict.fromkeys(("beta", "lse", "delta", "partial"), "*fp32"),
}  # fmt: skip


def build(kernel: Any, table: dict, dtype: str, precision: str = "ieee", beta: bool = True, drop: bool = True) -> Build:
    names = kernel.arg_names
    options = {"QUADRANTS": 3, "DROP": drop, "PRECISION": precision, "WIDTH": 64, "WIDE": False}
    words = [dtype, precision if dtype == "fp32" else "", "bias" if beta else "", "dropout" if drop else ""]
    return variant(
        kernel, " ".join(word for word in words if word), dtype=dtype,
        pointers={p: kind for p, kind in POINTERS.items() if p in names and (beta or p != "beta")},
        numbers=tuple(x for x in NUMBERS if x in names),
        scalars={"seed": "i32", "dropout": "fp32", "scale": "fp32"},
        constants=options | ({} if beta else {"beta": None}),
        launch=table[precision if dtype == "fp32" else "half"],
        aligned=False,
    )  # fmt: skip


KERNELS = ((attention_kernel, FORWARD), (keys_gradient_kernel, BACKWARD), (queries_gradient_kernel, BACKWARD))
AOT = [
    build(kernel, table, *options)
    for kernel, table in KERNELS
    for options in (("fp32",), ("fp32", "tf32"), ("bf16",), ("bf16", "ieee", False, False), ("fp16",))
]
