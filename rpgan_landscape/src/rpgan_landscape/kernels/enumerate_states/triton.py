"""K2 in Triton: a state is one number, decoded and classified in registers; only histograms leave the chip.

A map of up to 10 nodes (n real points and "outside") is a word of 4-bit entries: its square is n shifts.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import variant
from torch import Tensor

from .codes import BINS, code, occupancies, weights

TILE = {"BLOCK": 512, "num_warps": 4, "num_stages": 1}
PROGRAMS = 2112  # 16 for each multiprocessor of a large GPU
SQUARINGS = 4  # 2^4 steps: more than any path of up to 9 nodes


@triton.jit
def enumerate_kernel(
    cycles, occupied, total, span, N: tl.constexpr, A: tl.constexpr, B: tl.constexpr, BINS: tl.constexpr,
    SQUARINGS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """States `span` pid .. of (N + 1)^N: histograms of (on data, cyclic nodes) in 32 bins and of occupancy codes."""
    pid = tl.program_id(0).to(tl.int64)
    by_cycles = tl.zeros((32,), tl.int32)
    by_code = tl.zeros((BINS,), tl.int32)
    first = pid * span
    last = tl.minimum(first + span, total)
    for start in range(first, last, BLOCK):
        ids = start + tl.arange(0, BLOCK)
        valid = ids < last
        rest = ids
        successor = tl.full((BLOCK,), N, tl.int64) << (4 * N)  # outside stays outside
        fakes = tl.zeros((BLOCK,), tl.int64)
        for i in tl.static_range(N):
            digit = rest % (N + 1)
            rest = rest // (N + 1)
            successor |= digit << (4 * i)
            fakes += tl.full((BLOCK,), 1, tl.int64) << (4 * digit)
        for _ in tl.static_range(SQUARINGS):
            square = tl.full((BLOCK,), N, tl.int64) << (4 * N)
            for i in tl.static_range(N):
                here = (successor >> (4 * i)) & 15
                square |= ((successor >> (4 * here)) & 15) << (4 * i)
            successor = square
        on_cycle = tl.zeros((BLOCK,), tl.int32)
        number = tl.zeros((BLOCK,), tl.int32)
        for i in tl.static_range(N):
            end = ((successor >> (4 * i)) & 15).to(tl.int32)
            on_cycle |= tl.full((BLOCK,), 1, tl.int32) << end
            m = ((fakes >> (4 * i)) & 15).to(tl.int32)
            number += m + A * m * m + B * m * m * m
        c = tl.zeros((BLOCK,), tl.int32)
        for i in tl.static_range(N):
            c += (on_cycle >> i) & 1
        outside = ((fakes >> (4 * N)) & 15) > 0
        key = tl.where(outside, c, c + 16)
        by_cycles += tl.histogram(key, 32, mask=valid)
        by_code += tl.histogram(number & (BINS - 1), BINS, mask=valid)
    tl.store(cycles + pid * 32 + tl.arange(0, 32), by_cycles)
    tl.store(occupied + pid * BINS + tl.arange(0, BINS), by_code)


def state_histograms(anchor: Tensor, n: int) -> tuple[Tensor, Tensor]:
    total = (n + 1) ** n
    blocks = triton.cdiv(total, TILE["BLOCK"])
    programs = min(PROGRAMS, blocks)
    span = triton.cdiv(blocks, programs) * TILE["BLOCK"]
    programs = triton.cdiv(total, span)
    cycles = torch.empty(programs, 32, dtype=torch.int32, device=anchor.device)
    occupied = torch.empty(programs, BINS, dtype=torch.int32, device=anchor.device)
    a, b = weights(n)
    with torch.cuda.device_of(anchor):
        enumerate_kernel[(programs,)](
            cycles, occupied, total, span, N=n, A=a, B=b, BINS=BINS, SQUARINGS=SQUARINGS, **TILE
        )
    by_cycles = cycles.sum(0, dtype=torch.int64).view(2, 16)[:, : n + 1]
    place = torch.tensor([code(m, a, b) for m in occupancies(n)], device=anchor.device)
    return torch.stack([by_cycles.sum(0), by_cycles[1]]), occupied.sum(0, dtype=torch.int64)[place]


def _build(n: int) -> object:
    a, b = weights(n)
    return variant(
        enumerate_kernel,
        f"n = {n}",
        dtype="i32",
        pointers={"cycles": "data", "occupied": "data"},
        numbers=(),
        scalars={"total": "i64", "span": "i64"},
        constants={"N": n, "A": a, "B": b, "BINS": BINS, "SQUARINGS": SQUARINGS},
        launch=TILE,
        aligned=False,
    )


AOT = [_build(n) for n in (5, 7, 8, 9)]
