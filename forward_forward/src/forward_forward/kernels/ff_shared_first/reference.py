"""K4 in plain PyTorch: positives and negatives share the image product of the first layer."""

from __future__ import annotations

from torch import Tensor


def ff_shared_first_fwd(
    base: Tensor, s: Tensor, w_label: Tensor, b: Tensor, strength: float, labels: Tensor
) -> tuple[Tensor, Tensor]:
    h = ((base + strength * w_label[labels]) * s[:, None] + b).relu().flatten(0, 1)
    return h, h.square().sum(1)


def ff_shared_first_wgrad(
    x_img: Tensor, s: Tensor, h: Tensor, cr: Tensor, labels: Tensor, strength: float, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    db = cr @ h
    d = (h * cr[:, None]).unflatten(0, tuple(labels.shape)) * s[:, None]
    dw_label = h.new_zeros(classes, h.shape[1]).index_add_(0, labels.flatten(), strength * d.flatten(0, 1))
    return x_img.T @ d.sum(0), dw_label, db
