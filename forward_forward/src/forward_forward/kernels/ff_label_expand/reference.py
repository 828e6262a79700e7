"""K3 in plain PyTorch: the first layer for all C labels from one image product."""

from __future__ import annotations

from torch import Tensor


def ff_label_expand(base: Tensor, s: Tensor, w_label: Tensor, b: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    h = ((base[:, None] + strength * w_label) * s[:, None, None] + b).relu().flatten(0, 1)
    return h, h.square().sum(1)
