"""K4 in plain PyTorch: positives and negatives share the image product of the first layer."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ff_linear.reference import row_squares


def ff_shared_first_fwd(
    base: Tensor, s: Tensor, w_label: Tensor, b: Tensor, strength: float, labels: Tensor
) -> tuple[Tensor, Tensor]:
    scale = s.to(base.dtype)[:, None]
    image = torch.addcmul(b.to(base.dtype), base, scale)
    code = w_label.index_select(0, labels.reshape(-1)).view(*labels.shape, base.shape[1])
    h = torch.addcmul(image, code, scale if strength == 1 else strength * scale).relu_().flatten(0, 1)
    return h, row_squares(h)


def ff_shared_first_wgrad(
    x_img: Tensor, s: Tensor, h: Tensor, cr: Tensor, labels: Tensor, strength: float, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    sets, n = labels.shape
    cr = cr.to(h.dtype)
    w = cr.view(sets, n) * s.to(h.dtype)
    # Row c of `code` holds strength * w where the label is c, the last row cr: one small product gives dW_label and db.
    code = h.new_zeros(classes, sets * n).scatter(0, labels.reshape(1, -1), strength * w.reshape(1, -1))
    sums = torch.cat([code, cr[None]]) @ h
    d = h[:n] * w[0][:, None]
    for r in range(1, sets):
        d = torch.addcmul(d, h[r * n : (r + 1) * n], w[r][:, None])
    return x_img.T @ d, sums[:-1], sums[-1]
