"""Peaks of SNR series in bins of time in Triton: every sample is read once, a bin's maximum stays in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import variant
from torch import Tensor

SAMPLES, SHORTEST = 1024, 64  # of a tile, of its part of a bin
LAUNCH = {"num_warps": 4, "num_stages": 2}


@triton.jit
def peak_kernel(z, power, sample, count, T, SIZE, BINS, limit, BLOCK_B: tl.constexpr, BLOCK_T: tl.constexpr):
    """`BLOCK_B` bins of template `pid_0`: tiles of bins by samples, real and imaginary parts side by side."""
    row = tl.program_id(0).to(tl.int64)
    bins = tl.program_id(1) * BLOCK_B + tl.arange(0, BLOCK_B)
    start = bins * SIZE
    stop = tl.minimum(start + SIZE, T)
    z += row * T * 2
    best = tl.full((BLOCK_B,), -1.0, tl.float32)
    where = start
    loud = tl.zeros((BLOCK_B,), tl.int32)
    broken = tl.zeros((BLOCK_B,), tl.int32)
    for offset in range(0, SIZE, BLOCK_T):
        place = (start + offset)[:, None] * 2 + tl.arange(0, 2 * BLOCK_T)[None, :]
        x = tl.load(z + place, (bins < BINS)[:, None] & (place < 2 * stop[:, None]), other=0.0)
        # Each square is rounded before the sum, as in the definition.
        squares = tl.sum(tl.reshape(x * x, (BLOCK_B, BLOCK_T, 2)), 2)
        t = (start + offset)[:, None] + tl.arange(0, BLOCK_T)[None, :]
        inside = t < stop[:, None]
        nan = inside & (squares != squares)
        broken |= tl.max(nan.to(tl.int32), 1)
        loud += tl.sum((inside & (squares > limit)).to(tl.int32), 1)
        top, at = tl.max(tl.where(inside & (nan == 0), squares, -1.0), 1, return_indices=True)
        where = tl.where(top > best, start + offset + at, where)
        best = tl.maximum(best, top)
    out = row * BINS + bins
    tl.store(power + out, tl.where(broken > 0, float("nan"), best), bins < BINS)
    tl.store(sample + out, where.to(tl.int64), bins < BINS)
    tl.store(count + out, loud, bins < BINS)


def tile(samples_per_bin: int) -> dict[str, int]:
    """Short bins share a program."""
    length = max(SHORTEST, min(triton.next_power_of_2(samples_per_bin), SAMPLES))
    return {"BLOCK_B": SAMPLES // length, "BLOCK_T": length} | LAUNCH


def launch_peaks(z: Tensor, samples_per_bin: int, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """`(power, sample, count)` for a contiguous complex64 z with a template."""
    M, T = z.shape
    bins, blocks = triton.cdiv(T, samples_per_bin), tile(samples_per_bin)
    power = torch.empty(M, bins, dtype=torch.float32, device=z.device)
    sample = torch.empty(M, bins, dtype=torch.int64, device=z.device)
    count = torch.empty(M, bins, dtype=torch.int32, device=z.device)
    grid = (M, triton.cdiv(bins, blocks["BLOCK_B"]))
    with torch.cuda.device_of(z):
        peak_kernel[grid](torch.view_as_real(z), power, sample, count, T, samples_per_bin, bins, limit, **blocks)
    return power, sample, count


AOT = [
    variant(
        peak_kernel,
        f"bins of {size}" + ("" if aligned else ", any length"),
        dtype="fp32",
        pointers={"z": "data", "power": "data", "sample": "*i64", "count": "*i32"},
        numbers=("T", "SIZE", "BINS"),
        constants={},
        launch=tile(size),
        scalars={"limit": "fp32"},
        aligned=aligned,
    )
    for size, aligned in ((128, True), (2048, True), (100, False), (1, False))
]
