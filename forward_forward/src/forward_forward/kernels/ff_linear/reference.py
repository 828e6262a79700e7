"""K1 in plain PyTorch: one forward-forward layer with the normalisation of its input folded in."""

from __future__ import annotations

import torch
from torch import Tensor


def row_squares(h: Tensor) -> Tensor:
    """`q_n = sum_j h_nj^2`, in float32 for 16-bit activities (their squares leave the range of float16)."""
    wide = h.float() if h.dtype in (torch.float16, torch.bfloat16) else h
    return torch.linalg.vector_norm(wide, dim=1).square()  # half the time of `h.square().sum(1)` on a CPU


def ff_linear_fwd(h_prev: Tensor, s: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    z = h_prev * s.to(h_prev.dtype)[:, None]
    h = torch.addmm(b.to(h_prev.dtype), z, w).relu_()
    return h, row_squares(h)
