"""Clustered maxima of time-slid sums in Triton: a lane for each slide, a program for 32 slides and a span of hops.

No K x T array: a sum lives in a register. A lane's open cluster is its last hop above the threshold and its maximum. A
cluster ends where a hop above follows more than `reach` hops after the last one, so in `reach + 1` hops at most once:
only after so many does a program ask whether any of its lanes has one to count.

A span sees neither its first cluster's beginning nor its last one's end. It counts those in between and writes the hops
and maxima of these two (one and the same where no cluster ended in the span); `join_kernel` walks each slide's spans in
order and counts what they make up, so that a cluster may cover any number of spans.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from shared.kernels.aot import variant
from torch import Tensor

from ..tally import tally

TILE = {"LANES": 32, "num_warps": 1, "num_stages": 1}
MOST_UNROLLED = 6
PROGRAMS = 4224  # 132 multiprocessors, 32 warps each
SHORTEST = 256  # hops of a span
NONE = tl.constexpr(float("-inf"))


@triton.jit
def span_kernel(
    a, b, shifts, edges, hist, found, cursor, first, first_maximum, last, last_maximum, ended, loudest, K, T, N, SPAN,
    threshold, reach, UNROLL: tl.constexpr, STEPS: tl.constexpr, COLLECT: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Hops `SPAN * pid_1 ...` of slides `LANES * pid_0 ...`; per span and slide the six numbers that are joined."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    ok = lane < K
    start = tl.program_id(1) * SPAN
    stop = tl.minimum(start + SPAN, T)
    j = start - tl.load(shifts + lane, ok, other=0).to(tl.int32)
    j = tl.where(j < 0, j + T, j)
    opening = tl.full((LANES,), -1, tl.int32)
    latest = tl.full((LANES,), -1, tl.int32)
    endings = tl.zeros((LANES,), tl.int32)
    maximum = tl.full((LANES,), NONE, tl.float32)
    opening_maximum = tl.full((LANES,), NONE, tl.float32)
    top = tl.full((LANES,), NONE, tl.float32)
    for block in range(start, stop, UNROLL):
        done = tl.full((LANES,), NONE, tl.float32)
        for u in tl.static_range(UNROLL):
            t = block + u
            x = tl.load(a + tl.minimum(t, T - 1))
            y = tl.load(b + j, ok & (lane * 0 + t < stop), other=NONE)
            total = x + y
            top = tl.maximum(top, total)
            above = total > threshold
            ends = above & (latest >= 0) & (t - latest > reach)
            opening_maximum = tl.where(ends & (endings == 0), maximum, opening_maximum)
            done = tl.where(ends & (endings > 0), maximum, done)
            endings += ends.to(tl.int32)
            maximum = tl.where(ends, total, tl.where(above, tl.maximum(maximum, total), maximum))
            opening = tl.where(above & (opening < 0), t, opening)
            latest = tl.where(above, t, latest)
            j += 1
            j = tl.where(j == T, 0, j)
        if tl.max(done, 0) > NONE:
            tally(done, done > NONE, edges, hist, found, cursor, N, STEPS, COLLECT)
    place = tl.program_id(1) * K + lane
    tl.store(first + place, opening, ok)
    tl.store(first_maximum + place, tl.where(endings == 0, maximum, opening_maximum), ok)
    tl.store(last + place, latest, ok)
    tl.store(last_maximum + place, maximum, ok)
    tl.store(ended + place, endings, ok)
    tl.store(loudest + place, top, ok)


@triton.jit
def join_kernel(
    first, first_maximum, last, last_maximum, ended, edges, hist, found, cursor, clusters, K, SPANS, N, reach,
    STEPS: tl.constexpr, COLLECT: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The spans of `LANES` slides in order: clusters that touch a span's ends are joined or counted."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    ok = lane < K
    latest = tl.full((LANES,), -1, tl.int32)
    maximum = tl.full((LANES,), NONE, tl.float32)
    number = tl.zeros((LANES,), tl.int64)
    for span in range(0, SPANS):
        place = span * K + lane
        opening = tl.load(first + place, ok, other=-1)
        opening_maximum = tl.load(first_maximum + place, ok, other=NONE)
        endings = tl.load(ended + place, ok, other=0)
        closing_maximum = tl.load(last_maximum + place, ok, other=NONE)
        holds = opening >= 0
        joined = holds & (latest >= 0) & (opening - latest <= reach)
        ends = holds & (latest >= 0) & ~joined
        if tl.max(ends.to(tl.int32), 0) > 0:
            tally(maximum, ends, edges, hist, found, cursor, N, STEPS, COLLECT)
        maximum = tl.where(joined, tl.maximum(maximum, opening_maximum), tl.where(holds, opening_maximum, maximum))
        more = holds & (endings > 0)  # the span's first cluster ended in it: what is open now is its last
        if tl.max(more.to(tl.int32), 0) > 0:
            tally(maximum, more, edges, hist, found, cursor, N, STEPS, COLLECT)
        maximum = tl.where(more, closing_maximum, maximum)
        latest = tl.where(holds, tl.load(last + place, ok, other=-1), latest)
        number += ends.to(tl.int64) + endings.to(tl.int64)
    tally(maximum, latest >= 0, edges, hist, found, cursor, N, STEPS, COLLECT)
    tl.store(clusters + lane, number + (latest >= 0).to(tl.int64), ok)


def span_of(T: int, K: int) -> int:
    """Hops of a span: enough programs for a large GPU, but no span shorter than `SHORTEST`."""
    spans = max(1, PROGRAMS // triton.cdiv(K, TILE["LANES"]))
    return max(SHORTEST, triton.cdiv(T, spans))


def walk(
    a: Tensor, b: Tensor, shifts: Tensor, edges: Tensor, threshold: float, reach: int, found: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Both launches; fills `found` if it is given."""
    T, K, N, device = len(a), len(shifts), len(edges), a.device
    span = span_of(T, K)
    spans = triton.cdiv(T, span)
    hist = torch.zeros(N - 1, dtype=torch.int64, device=device)
    cursor = torch.zeros(1, dtype=torch.int64, device=device)
    first, last, ended = torch.empty(3, spans, K, dtype=torch.int32, device=device)
    first_maximum, last_maximum, loudest = torch.empty(3, spans, K, dtype=torch.float32, device=device)
    clusters = torch.empty(K, dtype=torch.int64, device=device)
    steps, groups, collect = N.bit_length(), triton.cdiv(K, TILE["LANES"]), found is not None
    where = cursor if found is None else found  # never written where nothing is collected
    with torch.cuda.device_of(a):
        span_kernel[(groups, spans)](
            a, b, shifts, edges, hist, where, cursor, first, first_maximum, last, last_maximum, ended, loudest, K, T,
            N, span, threshold, reach, UNROLL=min(reach + 1, MOST_UNROLLED), STEPS=steps, COLLECT=collect, **TILE,
        )  # fmt: skip
        join_kernel[(groups,)](
            first, first_maximum, last, last_maximum, ended, edges, hist, where, cursor, clusters, K, spans, N, reach,
            STEPS=steps, COLLECT=collect, **TILE,
        )  # fmt: skip
    return hist, loudest.amax(0), clusters


def launch_slides(
    a: Tensor, b: Tensor, shifts: Tensor, edges: Tensor, threshold: float, reach: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`(hist, loudest, clusters)` for at least one hop and one slide."""
    return walk(a, b, shifts, edges, threshold, reach, None)


def launch_maxima(a: Tensor, b: Tensor, shifts: Tensor, edges: Tensor, threshold: float, reach: int, n: int) -> Tensor:
    """The n maxima, ascending."""
    found = torch.empty(n, dtype=torch.float32, device=a.device)
    walk(a, b, shifts, edges, threshold, reach, found)
    return found.sort().values


LISTS = {"edges": "*fp32", "hist": "*i64", "cursor": "*i64", "first": "*i32", "last": "*i32", "ended": "*i32"}
MAXIMA = dict.fromkeys(("first_maximum", "last_maximum"), "*fp32")
VARIANTS = [("histogram", False, 6, 7), ("histogram, neighbours only", False, 2, 4), ("list", True, 6, 10)]
AOT = [
    variant(
        kernel,
        name,
        dtype="fp32",
        pointers=LISTS | MAXIMA | {"found": "*fp32" if collect else "*i64"} | own,
        numbers=("K", "N", "reach", *sizes),
        constants={"STEPS": steps, "COLLECT": collect} | unrolled,
        launch=TILE,
        scalars=scalars,
        aligned=False,
    )
    for name, collect, unroll, steps in VARIANTS
    for kernel, own, sizes, unrolled, scalars in (
        (
            span_kernel,
            {"a": "*fp32", "b": "*fp32", "shifts": "*i64", "loudest": "*fp32"},
            ("T", "SPAN"),
            {"UNROLL": unroll},
            {"threshold": "fp32"},
        ),
        (join_kernel, {"clusters": "*i64"}, ("SPANS",), {}, {}),
    )
]
