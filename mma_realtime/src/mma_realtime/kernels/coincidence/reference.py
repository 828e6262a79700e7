"""Coincidences under time slides in plain PyTorch: the definition (sections 7 and 11), and the CPU's form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..histogram import binned, binned_arrays


class Coincidences(NamedTuple):
    """What the slides of two detectors' triggers hold.

    pairs: `[K]` int64, coincidences of a slide.
    loudest: `[K]`, the largest sum of a slide; -inf without a pair.
    hist: `[bins]` int64, sums of all slides in the bins of `edges`.
    sums: `[n]`, the sums of all pairs of all slides, ascending; None unless asked for.
    """

    pairs: Tensor
    loudest: Tensor
    hist: Tensor
    sums: Tensor | None = None


def coinc_count(
    t1: Tensor,
    s1: Tensor,
    t2: Tensor,
    s2: Tensor,
    shifts: Tensor,
    livetime: float,
    window: float,
    edges: Tensor,
    sums: bool = False,
) -> Coincidences:
    """The operands and the result are those of the public function."""
    wide = torch.promote_types(s1.dtype, torch.float32)
    pairs, loudest, hist, found = by_matrices(
        t1, s1.to(wide), t2, s2.to(wide), shifts.double() % livetime, livetime, window, edges.to(wide)
    )
    return Coincidences(pairs, loudest, hist, found.sort().values if sums else None)


def by_matrices(
    t1: Tensor, s1: Tensor, t2: Tensor, s2: Tensor, shifts: Tensor, livetime: float, window: float, edges: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`(count, loudest, hist, sums)` from a matrix of all pairs for each slide."""
    found, largest = [s1.new_empty(0)], [s1.new_empty(0)]
    for shift in shifts:
        moved = (t2 + shift) % livetime
        near = (moved >= t1[:, None] - window) & (moved <= t1[:, None] + window)
        values = (s1[:, None] + s2)[near]
        found.append(values)
        largest.append(torch.cat([values, s1.new_tensor([-torch.inf])]).amax(0, keepdim=True))
    count = torch.tensor([len(v) for v in found[1:]], dtype=torch.int64, device=s1.device)
    every = torch.cat(found)
    return count, torch.cat(largest), binned(every, edges), every


def by_searches(
    t1: Tensor, s1: Tensor, t2: Tensor, s2: Tensor, shifts: Tensor, livetime: float, window: float, edges: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same by a search for each trigger's first partner; nothing more for those that have none."""
    import numpy as np  # not at the top: the kernels run where only PyTorch and Triton are installed

    a, x, b, y, bounds = (v.numpy() for v in (t1, s1, t2, s2, edges))
    K = len(shifts)
    count, loudest = np.zeros(K, np.int64), np.full(K, -np.inf, x.dtype)
    found = []
    low, high = a - window, a + window
    for i, shift in enumerate(shifts.tolist() if len(a) and len(b) else []):
        moved = b + shift
        wrap = np.searchsorted(moved, livetime)  # from here on times begin again
        moved = np.concatenate([moved[wrap:] - livetime, moved[:wrap]])
        begin = np.searchsorted(moved, low)
        has = np.flatnonzero(moved[np.minimum(begin, len(moved) - 1)] <= high)
        has = has[begin[has] < len(moved)]
        if not len(has):
            continue
        begin = begin[has]
        pairs = np.searchsorted(moved, high[has], "right") - begin
        ours = np.repeat(has, pairs)
        theirs = np.arange(len(ours)) + np.repeat(begin - (np.cumsum(pairs) - pairs), pairs)
        values = x[ours] + y[(theirs + wrap) % len(b)]
        count[i], loudest[i] = len(values), values.max()
        found.append(values)
    every = np.concatenate(found) if found else np.empty(0, x.dtype)
    out = (count, loudest, binned_arrays(found, bounds), every)
    return tuple(torch.from_numpy(v) for v in out)  # type: ignore[return-value]
