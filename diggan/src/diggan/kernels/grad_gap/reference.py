"""The penalty on the gap of gradient norms in plain PyTorch: the definition (section 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def norms(g: Tensor, keep: int = 1) -> Tensor:
    """L2 norms over all but the first `keep` axes. Zero rows have norm 0, and derivatives 0 of every order."""
    if g.dtype in (torch.float16, torch.bfloat16):
        g = g.float()
    squares = g.flatten(keep).square().sum(-1)
    positive = squares > 0
    return torch.where(positive, squares, 1).sqrt() * positive


def grad_gap(g: Tensor, state: Tensor | None, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    n = norms(g)
    s = n if state is None else (1 - smoothing) * n + smoothing * state.detach()
    fake, real = s.chunk(2)
    return (fake - real).square().mean(), n, s.detach()
