"""The registered operators. Kept apart from `triton.py`: a machine without Triton has them too."""

from __future__ import annotations

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference


@torch.library.custom_op("mma_realtime::coinc_count", mutates_args=())
def count_slid(
    t1: Tensor, s1: Tensor, t2: Tensor, s2: Tensor, shifts: Tensor, livetime: float, window: float, edges: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`(count, loudest, hist)`; shifts lie in [0, livetime)."""
    if len(t1) and len(t2) and len(shifts) and use_triton(s1):
        from . import triton

        return triton.launch_count(t1, s1, t2, s2, shifts, livetime, window, edges)
    form = reference.by_matrices if s1.is_cuda else reference.by_searches
    return form(t1, s1, t2, s2, shifts, livetime, window, edges)[:3]


@count_slid.register_fake
def _(
    t1: Tensor, s1: Tensor, t2: Tensor, s2: Tensor, shifts: Tensor, livetime: float, window: float, edges: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    count = shifts.new_empty(len(shifts), dtype=torch.int64)
    return count, s1.new_empty(len(shifts)), shifts.new_empty(len(edges) - 1, dtype=torch.int64)


@torch.library.custom_op("mma_realtime::coinc_sums", mutates_args=())
def sums_of_slid(
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
    """The sums of all n pairs, ascending; n is the sum of `count`."""
    if n and use_triton(s1):
        from . import triton

        return triton.launch_sums(t1, s1, t2, s2, shifts, livetime, window, edges, n)
    form = reference.by_matrices if s1.is_cuda else reference.by_searches
    return form(t1, s1, t2, s2, shifts, livetime, window, edges)[3].sort().values


@sums_of_slid.register_fake
def _(
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
    return s1.new_empty(n)
