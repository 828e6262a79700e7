"""The registered operator. Kept apart from `triton.py`: a machine without Triton has it too."""

from __future__ import annotations

import torch
from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference

MOST_COORDINATES = 3  # of a point that the kernel and the trees take


@torch.library.custom_op("diffusion_fields::chamfer_allpairs", mutates_args=())
def allpairs(G: Tensor, R: Tensor) -> Tensor:
    """`[n, m]` in float32 or wider, for finite clouds."""
    low = G.shape[2] <= MOST_COORDINATES
    if low and use_triton(G):
        from . import triton

        return triton.launch_chamfer(G, R)
    dtype = torch.promote_types(G.dtype, torch.float32)
    trees = low and not G.is_cuda and G.shape[1] * R.shape[1] >= reference.WORTHWHILE
    return (reference.by_trees if trees else reference.by_products)(G, R).to(dtype)


@allpairs.register_fake
def _(G: Tensor, R: Tensor) -> Tensor:
    return G.new_empty(G.shape[0], R.shape[0], dtype=torch.promote_types(G.dtype, torch.float32))
