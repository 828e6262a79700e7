"""K2 in plain PyTorch: weight gradient of one layer without keeping the gradient of the pre-activations."""

from __future__ import annotations

from torch import Tensor


def ff_wgrad(h_prev: Tensor, h: Tensor, w: Tensor, cr: Tensor) -> tuple[Tensor, Tensor]:
    w, db = w.to(h.dtype)[:, None], cr.to(h.dtype) @ h
    if h_prev.shape[1] < h.shape[1]:  # scale the narrower operand
        return (h_prev * w).T @ h, db
    return h_prev.T @ (h * w), db
