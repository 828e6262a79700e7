"""Coincident triggers of two detectors under time slides (sections 7 and 11)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..histogram import check_edges
from .reference import Coincidences
from .slid import count_slid, sums_of_slid

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float, Float64

__all__ = ["Coincidences", "coinc_count"]


def coinc_count(
    t1: Float64[Tensor, " n1"],
    s1: Float[Tensor, " n1"],
    t2: Float64[Tensor, " n2"],
    s2: Float[Tensor, " n2"],
    shifts: Float64[Tensor, " K"],
    livetime: float,
    window: float,
    edges: Float[Tensor, " bins1"],
    sums: bool = False,
) -> Coincidences:
    """Pairs with `|t1 - (t2 + shift) mod livetime| <= window`, and the sums of their statistics, for every slide.

    Every pair counts: triggers are clustered before. Time does not close to a ring: a trigger at its start is not
    coincident with one at its end. Times and their comparison (`t1 - window <= t2' <= t1 + window`) are float64, sums
    in the dtype of the statistics.

    Args:
        t1, t2: trigger times in seconds from the start of the stretch, ascending, in [0, livetime).
        s1, s2: their statistics.
        shifts: of detector 2's times, in seconds; 0 is zero lag, which is not left out here.
        livetime: seconds of the stretch.
        window: largest difference in seconds, itself included.
        edges: of the histogram, ascending; bins as in `slide_hist`.
        sums: whether to list all sums too.

    Returns:
        pairs and largest sum (-inf if none) of each slide, the histogram of all slides, and the sums, ascending.

    Raises:
        ValueError: operands that do not fit, times out of order or outside the stretch, edges that do not ascend.

    The kernel: a lane for each trigger of detector 1, a program for 128 of them and a slide; the wrap and each lane's
    first partner are found by bisection, partners are walked from there. Comparisons: K n1 (log2 n2 + pairs); bytes: 8
    for each, from L2. Floor for n1 = n2 = 10,000, K = 1,000 on one H100: 1.4e8 loads of 32-byte sectors from L2 at
    5.5 TB/s: 0.8 ms; a matrix of all pairs would be 1e11. On a CPU: one sorted search a slide, then only triggers with
    a partner.
    """
    for name, t, s in (("1", t1, s1), ("2", t2, s2)):
        if t.ndim != 1 or t.shape != s.shape or t.dtype is not torch.float64 or not s.is_floating_point():
            raise ValueError(
                f"coinc_count: t{name} is {tuple(t.shape)} {t.dtype}, s{name} {tuple(s.shape)} {s.dtype}: "
                "float64 times and as many real statistics are needed"
            )
        if len(t) and not (bool((t.diff() >= 0).all()) and float(t[0]) >= 0 and float(t[-1]) < livetime):
            raise ValueError(f"coinc_count: t{name} has to ascend in [0, {livetime:g}) s, the stretch")
    if s1.dtype is not s2.dtype:
        raise ValueError(f"coinc_count: s1 is {s1.dtype}, s2 {s2.dtype}")
    if not (livetime > 0 and math.isfinite(livetime) and 0 <= window < livetime):
        raise ValueError(f"coinc_count: a window of {window} s in a livetime of {livetime} s")
    check_edges("coinc_count", edges)
    wide = torch.promote_types(s1.dtype, torch.float32)
    operands = (
        t1.contiguous(), s1.to(wide).contiguous(), t2.contiguous(), s2.to(wide).contiguous(),
        (shifts.to(t1.device, torch.float64) % livetime).contiguous(), livetime, window,
        edges.to(t1.device, wide).contiguous(),
    )  # fmt: skip
    count, loudest, hist = count_slid(*operands)
    return Coincidences(count, loudest, hist, sums_of_slid(*operands, int(count.sum())) if sums else None)
