"""Coincidences under time slides in Triton: a lane for each trigger of detector 1, a program for some and one slide.

Shifted times are never written: those from `wrap` on have passed the end of the stretch and come first. Partners of a
lane follow each other from the first that is not too early; a program walks until none of its lanes has one left.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import variant
from torch import Tensor

from ..tally import tally

TILE = {"BLOCK": 128, "num_warps": 4, "num_stages": 1}
NONE = tl.constexpr(float("-inf"))


@triton.jit
def partner(j, wrap, n2):
    """The trigger that is j-th after the shift."""
    i = j + wrap
    return tl.where(i >= n2, i - n2, i)


@triton.jit
def moved(t2, i, there, shift, livetime):
    t = tl.load(t2 + i, there, other=0.0) + shift
    return tl.where(t >= livetime, t - livetime, t)


@triton.jit
def coincidence_kernel(
    t1, s1, t2, s2, shifts, settings, edges, hist, found, cursor, count, loudest, n1, n2, N,
    SEARCH: tl.constexpr, STEPS: tl.constexpr, COLLECT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Triggers `BLOCK * pid_1 ...` in slide `pid_0`; n2 < 2^SEARCH."""
    slide = tl.program_id(0)
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = lane < n1
    livetime = tl.load(settings)
    window = tl.load(settings + 1)
    shift = tl.load(shifts + slide)
    wrap = 0  # triggers that stay before the end
    for step in tl.static_range(SEARCH):
        further = wrap + (1 << (SEARCH - 1 - step))
        t = tl.load(t2 + tl.minimum(further, n2) - 1) + shift
        wrap = tl.where((further <= n2) & (t < livetime), further, wrap)
    time = tl.load(t1 + lane, ok, other=0.0)
    j = tl.zeros((BLOCK,), tl.int32)  # shifted triggers that are too early
    for step in tl.static_range(SEARCH):
        further = j + (1 << (SEARCH - 1 - step))
        there = ok & (further <= n2)
        t = moved(t2, partner(further - 1, wrap, n2), there, shift, livetime)
        j = tl.where(there & (t < time - window), further, j)
    statistic = tl.load(s1 + lane, ok, other=0.0)
    best = tl.full((BLOCK,), NONE, tl.float32)
    number = tl.zeros((BLOCK,), tl.int64)
    t = moved(t2, partner(j, wrap, n2), ok & (j < n2), shift, livetime)
    near = ok & (j < n2) & (t <= time + window)
    while tl.max(near.to(tl.int32), 0) > 0:
        total = statistic + tl.load(s2 + partner(j, wrap, n2), near, other=0.0)
        best = tl.where(near, tl.maximum(best, total), best)
        number += near.to(tl.int64)
        tally(total, near, edges, hist, found, cursor, N, STEPS, COLLECT)
        j += 1
        t = moved(t2, partner(j, wrap, n2), near & (j < n2), shift, livetime)
        near = near & (j < n2) & (t <= time + window)
    out = slide * tl.num_programs(1) + tl.program_id(1)
    tl.store(count + out, tl.sum(number, 0))
    tl.store(loudest + out, tl.max(best, 0))


def walk(
    t1: Tensor, s1: Tensor, t2: Tensor, s2: Tensor, shifts: Tensor, livetime: float, window: float, edges: Tensor,
    found: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One launch; fills `found` if it is given."""
    K, N, device = len(shifts), len(edges), t1.device
    blocks = triton.cdiv(len(t1), TILE["BLOCK"])
    hist = torch.zeros(N - 1, dtype=torch.int64, device=device)
    cursor = torch.zeros(1, dtype=torch.int64, device=device)
    count = torch.empty(K, blocks, dtype=torch.int64, device=device)
    loudest = torch.empty(K, blocks, dtype=torch.float32, device=device)
    # A float argument is passed in float32: seconds need more.
    settings = torch.tensor([livetime, window], dtype=torch.float64, device=device)
    where = cursor if found is None else found  # never written where nothing is collected
    with torch.cuda.device_of(t1):
        coincidence_kernel[(K, blocks)](
            t1, s1, t2, s2, shifts, settings, edges, hist, where, cursor, count, loudest, len(t1), len(t2), N,
            SEARCH=len(t2).bit_length(), STEPS=N.bit_length(), COLLECT=found is not None, **TILE,
        )  # fmt: skip
    return count.sum(1), loudest.amax(1), hist


def launch_count(
    t1: Tensor, s1: Tensor, t2: Tensor, s2: Tensor, shifts: Tensor, livetime: float, window: float, edges: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`(count, loudest, hist)` for at least one trigger each and one slide."""
    return walk(t1, s1, t2, s2, shifts, livetime, window, edges, None)


def launch_sums(
    t1: Tensor,
    s1: Tensor,
    t2: Tensor,
    s2: Tensor,
    shifts: Tensor,
    livetime: float,
    window: float,
    edges: Tensor,
    n: int,
) -> Tensor:
    """The n sums, ascending."""
    found = torch.empty(n, dtype=torch.float32, device=t1.device)
    walk(t1, s1, t2, s2, shifts, livetime, window, edges, found)
    return found.sort().values


TIMES = dict.fromkeys(("t1", "t2", "shifts", "settings"), "*fp64")
COUNTS = dict.fromkeys(("hist", "cursor", "count"), "*i64")
AOT = [
    variant(
        coincidence_kernel,
        f"{'list' if collect else 'histogram'}, {2**search - 1} triggers",
        dtype="fp32",
        pointers=TIMES
        | COUNTS
        | dict.fromkeys(("s1", "s2", "edges", "loudest"), "data")
        | {"found": "data" if collect else "*i64"},
        numbers=("n1", "n2", "N"),
        constants={"SEARCH": search, "STEPS": steps, "COLLECT": collect},
        launch=TILE,
        aligned=False,
    )
    for collect, search, steps in ((False, 14, 7), (True, 14, 7), (False, 20, 10))
]
