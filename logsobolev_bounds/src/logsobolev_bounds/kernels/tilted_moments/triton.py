"""Tilted moments in Triton: a program for each span of a row and block of alphas, then one that adds the spans.

No atomics: each sum is one program's, two calls agree bit for bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

SUMS = {"BLOCK": 128, "num_warps": 4, "num_stages": 1}  # a thread for each example, all its alphas in registers
COMBINE = {"BLOCK": 64, "num_warps": 2, "num_stages": 1}
PROGRAMS = 528  # four for each multiprocessor of a large GPU
LEAST = 8  # rounds of a program: what they take outweighs the sum over its threads
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def sums_kernel(
    loss, g, low, ones, weighted, plain, N, SPAN, step, C: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Sums of e^{-alpha_j s} and e^{-alpha_j s} g over examples `SPAN` pid_p ..., s above the span's least loss.

    j = C R pid_z + R c + r + 1 with c < C, r < R: the weight is the product of two exponentials. alpha_0 = 0 needs the
    plain sum of g.
    """
    k, p, z = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    spans, blocks = tl.num_programs(1), tl.num_programs(2)
    loss += k * N
    g += k * N
    first = p * SPAN
    last = tl.minimum(first + SPAN, N)
    lowest = tl.full((BLOCK,), float("inf"), tl.float32)
    for start in range(first, last, BLOCK):
        n = start + tl.arange(0, BLOCK)
        lowest = tl.minimum(lowest, tl.load(loss + n, n < last, other=float("inf")).to(tl.float32))
    least = tl.min(lowest, 0)
    c, r = tl.arange(0, C), tl.arange(0, R)
    giant_rate = -step * LOG2E * (c * R).to(tl.float32)
    baby_rate = -step * LOG2E * (C * R * z + r + 1).to(tl.float32)
    count = tl.zeros((C, R, BLOCK), tl.float32)
    total = tl.zeros((C, R, BLOCK), tl.float32)
    sum_g = tl.zeros((BLOCK,), tl.float32)
    for start in range(first, last, BLOCK):
        n = start + tl.arange(0, BLOCK)
        valid = n < last
        s = tl.load(loss + n, valid, other=0.0).to(tl.float32) - least
        s = tl.where(valid, s, 0.0)
        value = tl.load(g + n, valid, other=0.0).to(tl.float32)
        giant = tl.exp2(giant_rate[:, None] * s[None, :])
        baby = tl.where(valid[None, :], tl.exp2(baby_rate[:, None] * s[None, :]), 0.0)
        weight = giant[:, None, :] * baby[None, :, :]
        count += weight
        total += weight * value[None, None, :]
        sum_g += value
    row = k * spans + p
    if z == 0:
        tl.store(low + row, least)
        tl.store(plain + row, tl.sum(sum_g, 0))
    place = (row * blocks + z) * (C * R) + c[:, None] * R + r[None, :]
    tl.store(ones + place, tl.sum(count, 2))
    tl.store(weighted + place, tl.sum(total, 2))


@triton.jit
def combine_kernel(low, ones, weighted, plain, log_m, tilted, N, SPANS, WIDTH, T, step, BLOCK: tl.constexpr):
    """`log M` and `G` of row `pid_k` at `BLOCK` alphas: spans brought to the row's least loss, and added in order."""
    k = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = j < T
    held = inside & (j > 0)
    alpha = j.to(tl.float32) * step
    least = tl.load(low + k * SPANS)
    for p in range(1, SPANS):
        least = tl.minimum(least, tl.load(low + k * SPANS + p))
    count = tl.zeros((BLOCK,), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    sum_g = least * 0
    for p in range(0, SPANS):
        row = k * SPANS + p
        shift = tl.exp2(-alpha * LOG2E * (tl.load(low + row) - least))
        place = row * WIDTH + j - 1
        count += shift * tl.load(ones + place, held, other=0.0)
        total += shift * tl.load(weighted + place, held, other=0.0)
        sum_g += tl.load(plain + row)
    count = tl.where(held, count / N, 1.0)
    total = tl.where(held, total, sum_g) / N
    tl.store(log_m + k * T + j, tl.log(count) - alpha * least, inside)
    tl.store(tilted + k * T + j, total / count, inside)


def tile(T: int) -> tuple[int, int]:
    """`(C, R)`: C R alphas of a program, beside alpha_0."""
    return (4, 4) if T <= 17 else (8, 4) if T <= 33 else (8, 8)


def launch_moments(loss: Tensor, g: Tensor, step: float, T: int) -> tuple[Tensor, Tensor]:
    """`(log M, G)` in float32 of loss and g [K, N] with at least one entry."""
    loss, g = loss.contiguous(), g.contiguous()
    K, N = loss.shape
    C, R = tile(T)
    blocks = triton.cdiv(max(T - 1, 1), C * R)
    rounds = triton.cdiv(N, SUMS["BLOCK"])
    spans = max(1, min(rounds // LEAST, triton.cdiv(PROGRAMS, K * blocks)))
    span = triton.cdiv(rounds, spans) * SUMS["BLOCK"]
    spans = triton.cdiv(N, span)
    low, plain = (torch.empty(K, spans, dtype=torch.float32, device=loss.device) for _ in range(2))
    width = blocks * C * R
    ones, weighted = (torch.empty(K, spans, width, dtype=torch.float32, device=loss.device) for _ in range(2))
    log_m, tilted = (torch.empty(K, T, dtype=torch.float32, device=loss.device) for _ in range(2))
    with torch.cuda.device_of(loss):
        sums_kernel[(K, spans, blocks)](loss, g, low, ones, weighted, plain, N, span, step, C=C, R=R, **SUMS)
        combine_kernel[(K, triton.cdiv(T, COMBINE["BLOCK"]))](
            low, ones, weighted, plain, log_m, tilted, N, spans, width, T, step, **COMBINE
        )
    return log_m, tilted


FLOAT = "*fp32"
PARTS = dict.fromkeys(("low", "ones", "weighted", "plain"), FLOAT)


def build(T: int, dtype: str = "fp32", aligned: bool = True) -> Build:
    C, R = tile(T)
    return variant(
        sums_kernel,
        f"T = {T} {dtype}" + ("" if aligned else " any size"),
        dtype=dtype,
        pointers={"loss": "data", "g": "data", **PARTS},
        numbers=("N", "SPAN"),
        scalars={"step": "fp32"},
        constants={"C": C, "R": R},
        launch=SUMS,
        aligned=aligned,
    )


AOT = [
    *[build(T) for T in (17, 33, 65)],
    *[build(65, dtype, aligned) for dtype, aligned in (("fp32", False), ("bf16", True), ("fp16", True))],
    *[
        variant(
            combine_kernel,
            "aligned" if aligned else "any size",
            dtype="fp32",
            pointers={**PARTS, "log_m": FLOAT, "tilted": FLOAT},
            numbers=("N", "SPANS", "WIDTH", "T"),
            scalars={"step": "fp32"},
            constants={},
            launch=COMBINE,
            aligned=aligned,
        )
        for aligned in (True, False)
    ],
]
