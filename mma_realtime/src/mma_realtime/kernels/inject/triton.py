"""Injection of signals and glitches into noise in Triton: each sample of a window is read, summed and written once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import variant
from torch import Tensor

from .rows import Rows

TILE = {"BLOCK": 1024, "num_warps": 4, "num_stages": 1}


@triton.jit
def added(out, bank, index, delay, factor, t, size, rows, LENGTH):
    """`out + factor bank[index, t + delay]`, zero outside; NaN for a row outside the bank; nothing read for 0."""
    place = t + delay
    stop = tl.where(factor != 0.0, LENGTH, 0)
    there = (t < stop) & (place >= 0) & (place < size)
    known = (t * 0 + index >= 0) & (t * 0 + index < rows)
    value = tl.load(bank + index * size + place, there & known, other=float("nan")).to(tl.float32)
    value = tl.where(there, value, 0.0)
    return tl.where((t < stop) & (known == 0), float("nan"), out + tl.where(there, factor * value, 0.0))


@triton.jit
def inject_kernel(
    noise, signals, glitches, noise_index, roll, flip, signal_index, delay, snr, mute, glitch_index, glitch_delay,
    glitch_snr, out, noise_rows, L, signal_rows, S, glitch_rows, G, LENGTH,
    LONG: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Samples `BLOCK * pid_1 ...` of row `pid_0`; `LONG`: windows longer than the noise, which wrap more than once."""
    row = tl.program_id(0)
    t = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    index = tl.load(noise_index + row).to(tl.int64)
    first = (tl.load(roll + row).to(tl.int64) % L).to(tl.int32)  # of the sign of roll
    place = t + tl.where(first < 0, first + L, first)
    place = place % L if LONG else tl.where(place >= L, place - L, place)
    known = (t * 0 + index >= 0) & (t * 0 + index < noise_rows)
    value = tl.load(noise + index * L + place, (t < LENGTH) & known, other=float("nan")).to(tl.float32)
    total = value * tl.load(flip + row).to(tl.float32)
    factor = tl.load(snr + row).to(tl.float32) * tl.load(mute + row).to(tl.float32)
    total = added(
        total, signals, tl.load(signal_index + row).to(tl.int64), tl.load(delay + row).to(tl.int64), factor, t, S,
        signal_rows, LENGTH,
    )  # fmt: skip
    if glitches is not None:
        total = added(
            total, glitches, tl.load(glitch_index + row).to(tl.int64), tl.load(glitch_delay + row).to(tl.int64),
            tl.load(glitch_snr + row).to(tl.float32), t, G, glitch_rows, LENGTH,
        )  # fmt: skip
    tl.store(out + row.to(tl.int64) * LENGTH + t, total.to(out.dtype.element_ty), t < LENGTH)


def launch_inject(noise: Tensor, signals: Tensor, glitches: Tensor | None, rows: Rows, length: int) -> Tensor:
    """`[rows, length]` for contiguous banks and at least one sample."""
    out = torch.empty(len(rows.noise_index), length, dtype=noise.dtype, device=noise.device)
    there = (0, 0) if glitches is None else glitches.shape
    grid = (len(out), triton.cdiv(length, TILE["BLOCK"]))
    with torch.cuda.device_of(noise):
        inject_kernel[grid](
            noise, signals, glitches, *rows, out, *noise.shape, *signals.shape, *there, length,
            LONG=length > noise.shape[1], **TILE
        )  # fmt: skip
    return out


WHOLE = dict.fromkeys(("noise_index", "roll", "signal_index", "delay"), "*i64")
REAL = dict.fromkeys(("flip", "snr", "mute"), "*fp32")
GLITCH = {"glitches": "data", "glitch_index": "*i64", "glitch_delay": "*i64", "glitch_snr": "*fp32"}
AOT = [
    variant(
        inject_kernel,
        f"{dtype}, {'glitches' if with_glitches else 'no glitches'}, {'aligned' if aligned else 'any size'}",
        dtype=dtype,
        pointers={"noise": "data", "signals": "data", "out": "data"} | WHOLE | REAL | (GLITCH if with_glitches else {}),
        numbers=("noise_rows", "L", "signal_rows", "S", "glitch_rows", "G", "LENGTH"),
        constants={"LONG": not aligned} | ({} if with_glitches else dict.fromkeys(GLITCH)),
        launch=TILE,
        aligned=aligned,
    )
    for dtype, with_glitches, aligned in (
        ("fp32", False, True), ("fp32", True, True), ("fp32", True, False), ("bf16", True, True),
    )
]  # fmt: skip
