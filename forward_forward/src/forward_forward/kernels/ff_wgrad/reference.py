"""K2 in plain PyTorch: weight gradient of one layer without forming the gradient of the pre-activations."""

from __future__ import annotations

from torch import Tensor


def ff_wgrad(h_prev: Tensor, h: Tensor, w: Tensor, cr: Tensor) -> tuple[Tensor, Tensor]:
    return h_prev.T @ (h * w[:, None]), cr @ h
