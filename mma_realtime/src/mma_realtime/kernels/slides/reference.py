"""Clustered maxima of time-slid sums in plain PyTorch: the definition (sections 7 and 11), and the CPU's form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..histogram import binned, binned_arrays

HELD = 2**24  # sums that the definition holds at once
BLOCK = 2**15  # sums that the CPU's form holds at once: 128 kB of float32 stay in the cache


class Slides(NamedTuple):
    """What the slides of two detectors' scores hold.

    hist: `[bins]` int64, maxima of clusters of all slides in the bins of `edges`.
    loudest: `[K]`, the largest sum of a slide, above the threshold or not; -inf where no pair of hops is valid.
    clusters: `[K]` int64, clusters of a slide.
    valid_hops: `[K]` int64, pairs of valid hops of a slide: its livetime in hops.
    maxima: `[n]`, the maxima of all clusters of all slides, ascending; None unless asked for.
    """

    hist: Tensor
    loudest: Tensor
    clusters: Tensor
    valid_hops: Tensor
    maxima: Tensor | None = None


def overlap(valid1: Tensor, valid2: Tensor, shifts: Tensor) -> Tensor:
    """`[K]` int64: hops t with `valid1[t]` and `valid2[(t - k) mod T]`, from sums over the valid runs of detector 2."""
    T = len(valid1)
    before = torch.zeros(2 * T + 1, dtype=torch.int64, device=valid1.device)
    before[1:] = torch.cat([valid1, valid1]).cumsum(0)
    edges = torch.nn.functional.pad(valid2.to(torch.int8), (1, 1)).diff()
    starts, stops = (edges == 1).nonzero().flatten(), (edges == -1).nonzero().flatten()
    out = torch.zeros(len(shifts), dtype=torch.int64, device=valid1.device)
    some = max(1, HELD // max(1, len(starts)))
    for first in range(0, len(shifts), some):
        k = (shifts[first : first + some] % max(T, 1)).to(torch.int64)[:, None]
        out[first : first + some] = (before[stops + k] - before[starts + k]).sum(1)
    return out


def masked(s: Tensor, valid: Tensor, single: float) -> Tensor:
    """Scores that take part in sums, -inf where none does."""
    return torch.where(valid & (s > single), s, -torch.inf)


def slide_hist(
    s1: Tensor,
    s2: Tensor,
    shifts: Tensor,
    edges: Tensor,
    threshold: float,
    gap: float,
    valid1: Tensor | None = None,
    valid2: Tensor | None = None,
    single: float = -torch.inf,
    maxima: bool = False,
) -> Slides:
    """The operands and the result are those of the public function."""
    from .pairs import prepared

    a, b, k, bins, reach, hops = prepared(s1, s2, shifts, edges, threshold, gap, valid1, valid2, single)
    hist, loudest, clusters, found = by_matrices(a, b, k, bins, threshold, reach)
    return Slides(hist, loudest, clusters, hops, found.sort().values if maxima else None)


def by_matrices(
    a: Tensor, b: Tensor, shifts: Tensor, edges: Tensor, threshold: float, reach: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`(hist, loudest, clusters, maxima)` from matrices of slides by hops, a cluster's number at each hop."""
    T, K = len(a), len(shifts)
    hist = torch.zeros(len(edges) - 1, dtype=torch.int64, device=a.device)
    loudest, clusters = a.new_full((K,), -torch.inf), torch.zeros(K, dtype=torch.int64, device=a.device)
    found = [a.new_empty(0)]
    if not T:
        return hist, loudest, clusters, found[0]
    t, some = torch.arange(T, device=a.device), max(1, HELD // T)
    for first in range(0, K, some):
        k = shifts[first : first + some, None]
        sums = a + b[(t - k) % T]
        above = sums > threshold
        last = torch.where(above, t, -reach - 1).cummax(1).values  # the latest hop above, this one included
        opens = above.clone()
        opens[:, 1:] &= t[1:] - last[:, :-1] > reach
        number = opens.flatten().cumsum(0) - 1
        peaks = a.new_full((int(opens.sum()),), -torch.inf)
        peaks.scatter_reduce_(0, number[above.flatten()], sums[above], "amax")
        loudest[first : first + some], clusters[first : first + some] = sums.amax(1), opens.sum(1)
        hist += binned(peaks, edges)
        found.append(peaks)
    return hist, loudest, clusters, torch.cat(found)


def by_slides(
    a: Tensor, b: Tensor, shifts: Tensor, edges: Tensor, threshold: float, reach: int, collect: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same in blocks of sums: of several short slides, or of a part of a long one.

    Only hops above the threshold are ever listed. `maxima` is empty unless `collect`.
    """
    import numpy as np  # not at the top: the kernels run where only PyTorch and Triton are installed

    T, K = len(a), len(shifts)
    kind = a.numpy().dtype
    hist, loudest, clusters = np.zeros(len(edges) - 1, np.int64), np.full(K, -np.inf, kind), np.zeros(K, np.int64)
    bounds, found = edges.numpy(), list[np.ndarray]()
    some = max(1, BLOCK // max(T, 1))
    for first in range(0, K if T else 0, some):
        here = slice(first, first + some)
        hop, slide, value, loudest[here] = above_threshold(a.numpy(), b.numpy(), shifts.numpy()[here], threshold)
        if not len(hop):
            continue
        # Slides in a row, too far apart to share a cluster.
        apart = hop + slide * (T + reach)
        starts = np.concatenate([[0], np.flatnonzero(apart[1:] - apart[:-1] > reach) + 1])
        found.append(np.maximum.reduceat(value, starts))
        clusters[here] = np.bincount(slide[starts], minlength=len(clusters[here]))
        if not collect and len(found) >= 64:  # one count for many slides, and no list that grows
            hist += binned_arrays(found, bounds)
            found.clear()
    hist += binned_arrays(found, bounds)
    peaks = np.concatenate(found) if collect and found else np.empty(0, kind)
    return tuple(torch.from_numpy(v) for v in (hist, loudest, clusters, peaks))  # type: ignore[return-value]


def above_threshold(a, b, shifts, threshold: float):
    """`(hop, slide, sum)` of the sums above the threshold in order, and each slide's largest sum.

    More slides than one only where they are shorter than a block.
    """
    import numpy as np

    T, limit = len(a), a.dtype.type(threshold)
    if len(shifts) > 1:
        twice = np.concatenate([b, b])  # a shift without a wrap
        sums = np.lib.stride_tricks.sliding_window_view(twice, T)[T - shifts]
        sums += a
        slide, hop = np.divmod(np.flatnonzero(sums > limit), T)
        return hop, slide, sums[slide, hop], sums.max(1)
    k, hops, values, top = int(shifts[0]), [], [], -np.inf
    sums, above = np.empty(min(BLOCK, T), a.dtype), np.empty(min(BLOCK, T), bool)
    for begin, end, behind in ((0, k, T - k), (k, T, -k)):  # before and after detector 2's wrap
        for first in range(begin, end, BLOCK):
            last = min(end, first + BLOCK)
            block = np.add(a[first:last], b[first + behind : last + behind], out=sums[: last - first])
            largest = block.max()
            top = max(top, largest)
            if largest > limit:
                here = np.flatnonzero(np.greater(block, limit, out=above[: last - first]))
                values.append(block[here])
                hops.append(here + first)
    if not hops:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, a.dtype), top
    hop, value = (np.concatenate(v) if len(v) > 1 else v[0] for v in (hops, values))
    return hop, np.zeros_like(hop), value, top
