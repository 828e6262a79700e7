"""Nearest centres in Triton: a program for a tile of tokens goes over all centres once for each that it takes.

Each round takes the smallest pair (distance, index) above that of the round before, so that no list is sorted and the
lower index wins among equals. The chosen are put into ascending order at the end, by counting.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import Build, variant
from torch import Tensor

LAUNCH = {"TOKENS": 16, "CENTRES": 64, "num_warps": 4, "num_stages": 1}
STEPS: tl.constexpr = tl.constexpr(2.0**30)  # squared distances within 1e-9 of one another are equal


@triton.jit
def nearest_kernel(
    at, centres, near, n, k, nnc, TOKENS: tl.constexpr, CENTRES: tl.constexpr, ROOM: tl.constexpr
):  # fmt: skip
    image = tl.program_id(1)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    inside = token < n
    at += image.to(tl.int64) * n * 2
    centres += image.to(tl.int64) * k * 2
    x, y = tl.load(at + token * 2, inside, other=0.0), tl.load(at + token * 2 + 1, inside, other=0.0)
    last = tl.full((TOKENS,), -1.0, tl.float64)
    index = tl.full((TOKENS,), -1, tl.int32)
    places = tl.arange(0, ROOM)
    chosen = tl.full((TOKENS, ROOM), 2147483647, tl.int32)
    for r in range(0, nnc):
        best = tl.full((TOKENS,), float("inf"), tl.float64)
        who = tl.full((TOKENS,), 2147483647, tl.int32)
        for start in range(0, k, CENTRES):
            j = start + tl.arange(0, CENTRES)
            dx = x[:, None] - tl.load(centres + j * 2, j < k, other=0.0)[None, :]
            dy = y[:, None] - tl.load(centres + j * 2 + 1, j < k, other=0.0)[None, :]
            squared = tl.floor((dx * dx + dy * dy) * STEPS + 0.5)
            above = (squared > last[:, None]) | ((squared == last[:, None]) & (j[None, :] > index[:, None]))
            squared = tl.where((j < k)[None, :] & above, squared, float("inf"))
            least = tl.min(squared, 1)
            first = tl.min(tl.where(squared == least[:, None], j[None, :], 2147483647), 1)
            who = tl.where(least < best, first, who)  # of equal ones the earlier chunk's stays
            best = tl.minimum(least, best)
        chosen = tl.where(places[None, :] == r, who[:, None], chosen)
        last = best
        index = who
    for r in range(0, nnc):
        lowest = tl.min(chosen, 1)
        tl.store(near + (image.to(tl.int64) * n + token) * nnc + r, lowest.to(tl.int64), inside)
        chosen = tl.where(chosen == lowest[:, None], 2147483647, chosen)


def launch(positions: Tensor, centres: Tensor, nnc: int) -> Tensor:
    """[B, n, nnc], nnc centres at most as many as there are."""
    batch, n, _ = positions.shape
    at, to = (x.to(torch.float64).contiguous() for x in (positions, centres))
    near = torch.empty(batch, n, nnc, dtype=torch.long, device=positions.device)
    grid = (triton.cdiv(n, LAUNCH["TOKENS"]), batch)
    with torch.cuda.device_of(near):
        nearest_kernel[grid](at, to, near, n, to.shape[1], nnc, ROOM=triton.next_power_of_2(nnc), **LAUNCH)
    return near


AOT: list[Build] = [
    variant(
        nearest_kernel,
        f"room for {room}",
        dtype="fp64",
        pointers={"at": "data", "centres": "data", "near": "*i64"},
        numbers=("n", "k", "nnc"),
        constants={"ROOM": room},
        launch=LAUNCH,
        aligned=False,
    )
    for room in (4, 8, 16)
]
