"""K3 in plain PyTorch: the first layer for all C labels from one image product."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ff_linear.reference import row_squares


def ff_label_expand(base: Tensor, s: Tensor, w_label: Tensor, b: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    scale = s.to(base.dtype)[:, None]
    image = torch.addcmul(b.to(base.dtype), base, scale)
    code = w_label if strength == 1 else strength * w_label
    h = torch.addcmul(image[:, None], code, scale[:, None]).relu_().flatten(0, 1)
    return h, row_squares(h)
