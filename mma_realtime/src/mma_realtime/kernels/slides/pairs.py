"""What the forms of `slide_hist` start from, and the registered operators.

Kept apart from `triton.py`: a machine without Triton has them too.
"""

from __future__ import annotations

import math

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from ..histogram import check_edges
from . import reference


def prepared(
    s1: Tensor,
    s2: Tensor,
    shifts: Tensor,
    edges: Tensor,
    threshold: float,
    gap: float,
    valid1: Tensor | None,
    valid2: Tensor | None,
    single: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int, Tensor]:
    """Scores with -inf where none takes part, shifts in [0, T), edges, the largest step in a cluster, valid hops.

    Raises:
        ValueError: operands that do not fit, see the public function.
    """
    if s1.ndim != 1 or s1.shape != s2.shape or s1.dtype is not s2.dtype or not s1.is_floating_point():
        raise ValueError(
            f"slide_hist: s1 is {tuple(s1.shape)} {s1.dtype} and s2 {tuple(s2.shape)} {s2.dtype}: "
            "real scores of the same hops in the same dtype are needed"
        )
    if shifts.ndim != 1 or shifts.is_floating_point() or shifts.dtype is torch.bool:
        raise ValueError(f"slide_hist: shifts are {tuple(shifts.shape)} {shifts.dtype}: whole hops are needed")
    check_edges("slide_hist", edges)
    if not gap > 1 or not math.isfinite(gap):
        raise ValueError(f"slide_hist: gap is {gap} hops: neighbouring hops lie 1 apart, more than 1 is needed")
    if math.isnan(threshold) or math.isnan(single):
        raise ValueError(f"slide_hist: threshold is {threshold}, single is {single}")
    masks = []
    for name, s, valid in (("valid1", s1, valid1), ("valid2", s2, valid2)):
        mask = torch.ones_like(s, dtype=torch.bool) if valid is None else valid
        if mask.shape != s.shape or mask.dtype is not torch.bool:
            raise ValueError(f"slide_hist: {name} is {tuple(mask.shape)} {mask.dtype}: a bool for every hop")
        if not bool((s.isfinite() | ~mask).all()):
            raise ValueError(f"slide_hist: a score that {name} calls valid is not finite")
        masks.append(mask)
    narrow = s1.dtype in (torch.float16, torch.bfloat16)
    scores = [s.float() if narrow else s for s in (s1, s2)]
    a, b = (reference.masked(s, mask, single).contiguous() for s, mask in zip(scores, masks))
    k = (shifts.to(s1.device, torch.int64) % max(len(s1), 1)).contiguous()
    bins = edges.to(a.device, a.dtype).contiguous()
    return a, b, k, bins, math.ceil(gap) - 1, reference.overlap(masks[0], masks[1], k)


@torch.library.custom_op("mma_realtime::slide_hist", mutates_args=())
def hist_of(
    a: Tensor, b: Tensor, shifts: Tensor, edges: Tensor, threshold: float, reach: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`(hist, loudest, clusters)`."""
    if len(a) and len(shifts) and use_triton(a):
        from . import triton

        return triton.launch_slides(a, b, shifts, edges, threshold, reach)
    if a.is_cuda:
        return reference.by_matrices(a, b, shifts, edges, threshold, reach)[:3]
    return reference.by_slides(a, b, shifts, edges, threshold, reach, collect=False)[:3]


@hist_of.register_fake
def _(
    a: Tensor, b: Tensor, shifts: Tensor, edges: Tensor, threshold: float, reach: int
) -> tuple[Tensor, Tensor, Tensor]:
    hist = shifts.new_empty(len(edges) - 1, dtype=torch.int64)
    return hist, a.new_empty(len(shifts)), shifts.new_empty(len(shifts), dtype=torch.int64)


@torch.library.custom_op("mma_realtime::slide_maxima", mutates_args=())
def maxima_of(a: Tensor, b: Tensor, shifts: Tensor, edges: Tensor, threshold: float, reach: int, n: int) -> Tensor:
    """The `n` maxima of all clusters, ascending; n is the sum of `clusters`."""
    if n and use_triton(a):
        from . import triton

        return triton.launch_maxima(a, b, shifts, edges, threshold, reach, n)
    form = reference.by_matrices(a, b, shifts, edges, threshold, reach)
    return form[3].sort().values


@maxima_of.register_fake
def _(a: Tensor, b: Tensor, shifts: Tensor, edges: Tensor, threshold: float, reach: int, n: int) -> Tensor:
    return a.new_empty(n)
