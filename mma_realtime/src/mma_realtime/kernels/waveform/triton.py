"""Waveforms in Triton: powers of the frequencies in registers, once for many systems; each point is written once.

No sums over programs: two calls agree bit for bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

from . import layout as c

TILE = {"BLOCK": 256, "num_warps": 4, "num_stages": 1}
PROGRAMS = 1056  # eight for each multiprocessor of a large GPU
MOST_SYSTEMS = 32  # of a program: computing the powers is then a tenth of its work
WIDTH = tl.constexpr(c.WIDTH)
F_LOW, F_CUT, TIME, PHASE, AMPLITUDE = (tl.constexpr(k) for k in range(5))
F_AMP_INS, F_AMP_PEAK, F_PSI_INS, F_PSI_INT = (tl.constexpr(k) for k in range(c.F_AMP_INS, c.F_PSI_INT + 1))
RING_STRENGTH, RING_FREQUENCY, RING_WIDTH, RING_DECAY = (
    tl.constexpr(k) for k in range(c.RING_STRENGTH, c.RING_DECAY + 1)
)
ATAN, ATAN_FREQUENCY, ATAN_WIDTH = (tl.constexpr(k) for k in range(c.ATAN, c.ATAN_WIDTH + 1))
AMP_INS, AMP_INT, PSI_INS, PSI_INT, PSI_MRD = (
    tl.constexpr(columns.start) for columns in (c.AMP_INS, c.AMP_INT, c.PSI_INS, c.PSI_INT, c.PSI_MRD)
)
PER_TURN, HALF_PI = tl.constexpr(0.15915494309189535), tl.constexpr(1.5707963267948966)
TWO_PI = tl.constexpr(6.283185307179586)


@triton.jit
def arc(y):
    """atan(y) to 1e-7 in float32: a polynomial in the square of y or 1 / y."""
    small = tl.minimum(tl.abs(y), 1.0 / tl.maximum(tl.abs(y), 1e-30))
    z = small * small
    p = ((-1.7011701e-3 * z + 1.0487650e-2) * z - 3.0351865e-2) * z + 5.7089556e-2
    p = ((p * z - 8.3497250e-2) * z + 1.0932342e-1) * z - 1.4260016e-1
    p = ((p * z + 1.9998075e-1) * z - 3.3333276e-1) * z + 1.0
    angle = p * small
    angle = tl.where(tl.abs(y) > 1, HALF_PI - angle, angle)
    return tl.where(y < 0, -angle, angle)


@triton.jit
def circle(psi):
    """`(cos psi, -sin psi)` to 1e-7 in float32, of psi in float64 of any size: quarters of a turn are taken away
    first.
    """
    turns = psi * PER_TURN
    quarters = tl.floor(4 * turns + 0.5)
    s = (turns - 0.25 * quarters).to(tl.float32)
    z = s * s
    sine = (((41.472829 * z - 76.697866) * z + 81.605205) * z - 41.341702) * z + 6.2831853
    sine *= s
    cosine = ((((-26.058085 * z + 60.238181) * z - 85.456765) * z + 64.939394) * z - 19.739209) * z + 1.0
    place = quarters.to(tl.int64)
    odd = place & 1 == 1
    real, imaginary = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    return tl.where((place + 1) & 2 == 2, -real, real), tl.where(place & 2 == 2, imaginary, -imaginary)


@triton.jit
def waveform_kernel(table, f, asd, out, B, F, ASD_ROW, SYSTEMS, BLOCK: tl.constexpr):
    """`BLOCK` frequencies of `SYSTEMS` systems: out is [B, F, 2] in float32, asd has rows `ASD_ROW` apart (0: one)."""
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = k < F
    hertz = tl.load(f + k, there, other=0.0)
    lowest = tl.min(tl.where(there, hertz, float("inf")), 0)
    highest = tl.max(tl.where(there, hertz, float("-inf")), 0)
    g = tl.where(hertz > 0, hertz, 1.0)
    log = tl.log(g)
    inverse = 1.0 / g
    u = tl.exp(log / 3)
    u2 = u * u
    falling = tl.exp(log * (-7 / 6))
    newton = inverse / u2  # u^-5
    three_quarters = tl.sqrt(g) * tl.sqrt(tl.sqrt(g))
    both = 2 * tl.program_id(1) * BLOCK + tl.arange(0, 2 * BLOCK)

    first = tl.program_id(0) * SYSTEMS
    t = table + first.to(tl.int64) * WIDTH
    place = out + first.to(tl.int64) * F * 2 + both
    if asd is not None:
        asd += first.to(tl.int64) * ASD_ROW + k
    for _ in range(first, tl.minimum(first + SYSTEMS, B)):
        low, cut = tl.load(t + F_LOW), tl.load(t + F_CUT)
        if (highest < low) | (lowest > cut):
            tl.store(place, tl.zeros((2 * BLOCK,), tl.float32), both < 2 * F)
        else:
            end_ins, end_int = tl.load(t + F_PSI_INS), tl.load(t + F_PSI_INT)
            psi = tl.zeros((BLOCK,), tl.float64)
            if lowest <= end_ins:
                p = t + PSI_INS
                psi = tl.load(p + 12) * u + tl.load(p + 11)
                psi = (psi * u + tl.load(p + 10)) * u + tl.load(p + 9)
                psi = (psi * u + tl.load(p + 8)) * u + (tl.load(p + 7) * log + tl.load(p + 6))
                psi = psi * u + (tl.load(p + 5) * log + tl.load(p + 4))
                psi = (psi * u + tl.load(p + 3)) * u + tl.load(p + 2)
                psi = ((psi * u + tl.load(p + 1)) * u2 + tl.load(p)) * newton
            if (highest > end_ins) & (lowest <= end_int):
                p = t + PSI_INT
                middle = tl.load(p) + tl.load(p + 1) * g + tl.load(p + 2) * log
                middle += tl.load(p + 3) * inverse * inverse * inverse
                psi = tl.where(g > end_ins, middle, psi)
            if highest > end_int:
                p = t + PSI_MRD
                late = tl.load(p) + tl.load(p + 1) * g + tl.load(p + 2) * inverse + tl.load(p + 3) * three_quarters
                y = (g - tl.load(t + ATAN_FREQUENCY)).to(tl.float32) / tl.load(t + ATAN_WIDTH).to(tl.float32)
                late += tl.load(t + ATAN) * arc(y).to(tl.float64)
                psi = tl.where(g > end_int, late, psi)
            psi += tl.load(t + PHASE) + TWO_PI * tl.load(t + TIME) * g

            end_ins, peak = tl.load(t + F_AMP_INS), tl.load(t + F_AMP_PEAK)
            a = tl.zeros((BLOCK,), tl.float64)
            if lowest <= end_ins:
                p = t + AMP_INS
                a = (tl.load(p + 6) * u + tl.load(p + 5)) * u + tl.load(p + 4)
                a = ((a * u + tl.load(p + 3)) * u + tl.load(p + 2)) * u + tl.load(p + 1)
                a = (a * u2 + tl.load(p)) * u2 + 1.0
            if (highest > end_ins) & (lowest <= peak):
                p = t + AMP_INT
                middle = (tl.load(p + 4) * g + tl.load(p + 3)) * g + tl.load(p + 2)
                middle = (middle * g + tl.load(p + 1)) * g + tl.load(p)
                a = tl.where(g > end_ins, middle, a)
            if highest > peak:
                away = (g - tl.load(t + RING_FREQUENCY)).to(tl.float32)
                width = tl.load(t + RING_WIDTH).to(tl.float32)
                ring = tl.load(t + RING_STRENGTH).to(tl.float32) / (away * away + width * width)
                ring *= tl.exp(-tl.load(t + RING_DECAY).to(tl.float32) * away)
                a = tl.where(g > peak, ring.to(tl.float64), a)
            size = (tl.load(t + AMPLITUDE) * falling * a).to(tl.float32)
            if asd is not None:
                curve = tl.load(asd, there, other=1.0)
                size = size / curve.to(tl.float32)
            size = tl.where((hertz >= low) & (hertz <= cut) & (hertz > 0), size, 0.0)
            real, imaginary = circle(psi)
            tl.store(place, tl.interleave(size * real, size * imaginary), both < 2 * F)
        t += WIDTH
        place += 2 * F
        if asd is not None:
            asd += ASD_ROW


def systems(B: int, blocks: int) -> int:
    """How many systems a program goes through, where the frequencies are `blocks` programs."""
    return max(1, min(MOST_SYSTEMS, B * blocks // PROGRAMS))


def launch_waveform(table: Tensor, f: Tensor, asd: Tensor | None) -> Tensor:
    """`[B, F]` complex64 of at least one point."""
    (B, F), blocks = (len(table), len(f)), triton.cdiv(len(f), TILE["BLOCK"])
    out = torch.empty(B, F, dtype=torch.complex64, device=table.device)
    some = systems(B, blocks)
    curves = asd if asd is None else asd.contiguous()
    with torch.cuda.device_of(table):
        waveform_kernel[(triton.cdiv(B, some), blocks)](
            table.contiguous(), f.contiguous(), curves, torch.view_as_real(out), B, F,
            F if asd is not None and asd.ndim == 2 else 0, some, **TILE,
        )  # fmt: skip
    return out


def build(name: str, asd: str | None, aligned: bool) -> Build:
    pointers = {"table": "*fp64", "f": "*fp64", "out": "*fp32"} | ({"asd": asd} if asd else {})
    return variant(
        waveform_kernel,
        name + ("" if aligned else " any size"),
        dtype="fp32",
        pointers=pointers,
        numbers=("B", "F", "ASD_ROW", "SYSTEMS"),
        constants={} if asd else {"asd": None},
        launch=TILE,
        aligned=aligned,
    )


AOT = [
    build(name, asd, aligned)
    for name, asd in (("plain", None), ("whitened fp32", "*fp32"), ("whitened fp64", "*fp64"))
    for aligned in (True, False)
]
