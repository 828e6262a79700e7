"""Background of a two-detector search from time slides (sections 7 and 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from ..coincidence import coinc_count
from . import reference
from .pairs import hist_of, maxima_of, prepared
from .reference import Slides

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Bool, Float, Int

__all__ = ["Slides", "coinc_count", "slide_hist"]


def slide_hist(
    s1: Float[Tensor, " T"],
    s2: Float[Tensor, " T"],
    shifts: Int[Tensor, " K"],
    edges: Float[Tensor, " bins1"],
    threshold: float,
    gap: float,
    valid1: Bool[Tensor, " T"] | None = None,
    valid2: Bool[Tensor, " T"] | None = None,
    single: float = -torch.inf,
    maxima: bool = False,
) -> Slides:
    """Maxima of the clusters of `s1[t] + s2[(t - k) mod T]`, for every shift k.

    A hop t takes part in slide k where both scores are valid and above `single`. It is *above* where its sum exceeds
    `threshold` (strictly). Hops above that lie fewer than `gap` hops apart (t' - t < gap) belong to one cluster,
    whatever lies between them: invalid hops join what they part as quiet ones do. Time is detector 1's: it does not
    close to a ring (the first and the last hop never share a cluster), and detector 2's wrap at t = k parts nothing.
    Sums are in the dtype of the scores (16 bits: float32), threshold and edges are rounded to it.

    Args:
        s1, s2: scores of the two detectors, hop by hop; where invalid they may be anything.
        shifts: of detector 2's scores, in hops, taken mod T; 0 is zero lag, which is not left out here.
        edges: ascending; bin i holds `edges[i] <= maximum < edges[i + 1]`, the last its upper edge too. What lies
            outside is in no bin: begin at the threshold, end with inf.
        threshold: of the sum. The lower it is, the more events share a cluster, and so a maximum.
        gap: in hops, more than 1; need not be whole (0.35 s at 16 Hz are 5.6 hops).
        valid1, valid2: hops with data; None: all.
        single: a threshold of each detector's own score; hops below it are quiet, but their livetime counts.
        maxima: whether to list all maxima too.

    Returns:
        histogram, each slide's loudest sum, number of clusters and valid hops (times the hop: its livetime), and the
        maxima, ascending.

    Raises:
        ValueError: operands that do not fit, edges that do not ascend, a gap of 1 hop or less, a valid score that is
            not finite.

    The kernel: a lane for each of 32 slides, a program for them and a span of hops; scores are read 32 at a time from
    the cache, sums live in registers. A lane keeps the open cluster (its last hop above, its maximum). Within
    `ceil(gap)` hops at most one cluster can end, so only then a program asks whether any lane has one to count, and
    counts by integer atomics (order cannot show). What a span's first and last cluster are is not known before its
    neighbours are: a span writes both (first and last hop above, maximum), and a second kernel walks a slide's spans
    in order, joins what lies fewer than `gap` hops apart, and counts the rest. A cluster may cover any number of spans.
    FLOPs: 1 add, 2 comparisons and 6 selections for each of K T sums. Bytes: 8 T for each 32 slides, from L2. Floor for
    T = 57,600 (an hour at 16 Hz), K = 1,800 on one H100: K T / 32 instructions of a warp, 10 each, over 132 x 4
    schedulers at 1.7 GHz: 36 us; the bytes 26 MB, 8 us. Eager PyTorch writes K T sums some ten times: 4 GB, 1.2 ms.
    On a CPU: sums in blocks that stay in the cache, of several slides where they are short; what a slide
    takes depends on how many hops are above the threshold (benchmarks/kernels.json).
    """
    a, b, k, bins, reach, hops = prepared(s1, s2, shifts, edges, threshold, gap, valid1, valid2, single)
    if maxima and not a.is_cuda and not use_triton(a):  # one walk for both
        hist, loudest, clusters, found = reference.by_slides(a, b, k, bins, threshold, reach, collect=True)
        return Slides(hist, loudest, clusters, hops, found.sort().values)
    hist, loudest, clusters = hist_of(a, b, k, bins, threshold, reach)
    if not maxima:
        return Slides(hist, loudest, clusters, hops)
    n = int(clusters.sum())
    return Slides(hist, loudest, clusters, hops, maxima_of(a, b, k, bins, threshold, reach, n))
