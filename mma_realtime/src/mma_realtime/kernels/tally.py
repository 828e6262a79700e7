"""How the Triton kernels count values in bins and list them; imported by them alone.

Integer atomics: the order of additions cannot show. A list comes in any order: its launcher sorts it.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tally(values, there, edges, hist, found, cursor, N, STEPS: tl.constexpr, COLLECT: tl.constexpr):
    """Count `values` where `there` in the bins between N edges, N < 2^STEPS; list them in `found` if `COLLECT`."""
    below = tl.zeros_like(there.to(tl.int32))  # edges <= value
    for step in tl.static_range(STEPS):
        further = below + (1 << (STEPS - 1 - step))
        edge = tl.load(edges + further - 1, there & (further <= N), other=float("inf"))
        below = tl.where((further <= N) & (edge <= values), further, below)
    last = tl.load(edges + N - 1)
    place = tl.where(values == last, N - 2, below - 1)
    tl.atomic_add(hist + place, tl.full(place.shape, 1, tl.int64), there & (place >= 0) & (place < N - 1))
    if COLLECT:
        one = tl.full(place.shape, 1, tl.int64)
        slot = tl.atomic_add(cursor + tl.zeros_like(place), one, there)
        tl.store(found + slot, values, there)
