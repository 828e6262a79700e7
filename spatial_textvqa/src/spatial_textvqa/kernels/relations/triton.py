"""Relations between boxes in Triton: a program for each tile of pairs, in float64, without trigonometry."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

# No fused multiply-adds: the graph hangs on the last bit, and the definition rounds every product.
LAUNCH = {"BLOCK": 32, "num_warps": 4, "num_stages": 1, "enable_fp_fusion": False}


@triton.jit
def coordinates(boxes, row, known):
    """The four numbers of each box, in float64; zeros, which are padding, where the row is none."""
    x0 = tl.load(boxes + 4 * row, known, other=0.0).to(tl.float64)
    y0 = tl.load(boxes + 4 * row + 1, known, other=0.0).to(tl.float64)
    x1 = tl.load(boxes + 4 * row + 2, known, other=0.0).to(tl.float64)
    y1 = tl.load(boxes + 4 * row + 3, known, other=0.0).to(tl.float64)
    return x0, y0, x1, y1


@triton.jit
def relations_kernel(boxes, out, limit, N, OFFICIAL: tl.constexpr, BLOCK: tl.constexpr):
    """`BLOCK` x `BLOCK` pairs of graph `pid_1`; `reference.py` names each line."""
    across = tl.cdiv(N, BLOCK)
    row = tl.program_id(0) // across * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(0) % across * BLOCK + tl.arange(0, BLOCK)
    graph = tl.program_id(1).to(tl.int64)
    ix0, iy0, ix1, iy1 = coordinates(boxes + graph * N * 4, row, row < N)
    jx0, jy0, jx1, jy1 = coordinates(boxes + graph * N * 4, column, column < N)
    i, j = row[:, None], column[None, :]
    valid = ((ix0 + iy0 + ix1 + iy1) != 0)[:, None] & ((jx0 + jy0 + jx1 + jy1) != 0)[None, :]

    ax0, ay0, ax1, ay1 = ix0[:, None], iy0[:, None], ix1[:, None], iy1[:, None]
    bx0, by0, bx1, by1 = jx0[None, :], jy0[None, :], jx1[None, :], jy1[None, :]
    inside = (ax0 > bx0) & (ax1 < bx1) & (ay0 > by0) & (ay1 < by1)
    contains = (ax0 < bx0) & (ax1 > bx1) & (ay0 < by0) & (ay1 > by1)
    width = tl.maximum(tl.minimum(ax1, bx1) - tl.maximum(ax0, bx0), 0.0)
    common = width * tl.maximum(tl.minimum(ay1, by1) - tl.maximum(ay0, by0), 0.0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - common
    overlap = (union > 0) & (2 * common >= union)  # IoU >= 1/2 without a division

    dx, dy = (ax0 + ax1) * 0.5 - (bx0 + bx1) * 0.5, (ay0 + ay1) * 0.5 - (by0 + by1) * 0.5
    distance = tl.sqrt(dx * dx + dy * dy)
    near = distance < tl.load(limit)
    flat, steep = (tl.abs(dx) > tl.abs(dy)).to(tl.int32), (tl.abs(dy) > tl.abs(dx)).to(tl.int32)
    relation = tl.where((dy > 0) & (dx >= 0), 4 + steep, 0)
    relation = tl.where((dx < 0) & (dy >= 0), 6 + flat, relation)
    relation = tl.where((dy < 0) & (dx <= 0), 8 + steep, relation)
    relation = tl.where((dx > 0) & (dy <= 0), 10 + flat, relation)
    together = (dx == 0) & (dy == 0)
    if OFFICIAL:
        relation = tl.where((dy == 0) & (dx > 0) & (i < j), 3, relation)
        # The published rounding near an axis: of the pair i < j, and of its mirror.
        relation = tl.where((i < j) & (dy < 0) & (dx < 0) & (distance == -dx), 7, relation)
        relation = tl.where((i < j) & (dy < 0) & (dx > 0) & (distance == -dy), 9, relation)
        relation = tl.where((i > j) & (dy > 0) & (dx > 0) & (distance == dx), 3, relation)
        relation = tl.where((i > j) & (dy > 0) & (dx < 0) & (distance == dy), 5, relation)
        relation = tl.where(together, 4, relation)
    else:
        relation = tl.where(together, 3, relation)
    relation = tl.where(near, relation, 0)
    relation = tl.where(overlap, 3, relation)
    relation = tl.where(inside, 2, relation)
    relation = tl.where(contains, 1, relation)
    relation = tl.where(i == j, 12, relation)
    relation = tl.where(valid, relation, 0)
    tl.store(out + (graph * N + i) * N + j, relation.to(tl.uint8), (i < N) & (j < N))


def launch(boxes: Tensor, thr: float, mode: str) -> Tensor:
    """uint8 [..., n, n] of boxes [..., n, 4] that are not empty."""
    n = boxes.shape[-2]
    flat = boxes.reshape(-1, n, 4).contiguous()
    out = torch.empty(len(flat), n, n, dtype=torch.uint8, device=boxes.device)
    # In memory: a number of Python's would reach the kernel as float32, and the graph hangs on the last bit.
    limit = torch.full((1,), thr * math.sqrt(2.0), dtype=torch.float64, device=boxes.device)
    grid = (triton.cdiv(n, LAUNCH["BLOCK"]) ** 2, len(flat))
    with torch.cuda.device_of(flat):
        relations_kernel[grid](flat, out, limit, n, OFFICIAL=mode == "official", **LAUNCH)
    return out.view(*boxes.shape[:-2], n, n)


def build(official: bool, aligned: bool) -> Build:
    name = ("official" if official else "clean") + ("" if aligned else " any size")
    pointers = {"boxes": "data", "out": "*u8", "limit": "*fp64"}
    constants: dict[str, Any] = {"OFFICIAL": official}
    return variant(
        relations_kernel, name, dtype="fp32", pointers=pointers, numbers=("N",), constants=constants, launch=LAUNCH,
        aligned=aligned,
    )  # fmt: skip


AOT = [build(True, True), build(True, False), build(False, True)]
