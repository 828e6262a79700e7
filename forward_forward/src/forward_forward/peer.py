"""Peer normalisation (section 2.6): a unit whose running mean activity strays from its layer's mean is drawn back.

The term acts on the pre-activations of positive rows whatever the ReLU does, so it revives dead units.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Peer = Literal["none", "hinton", "loss"]


class PeerNormalisation(nn.Module):
    """Running mean activities of each layer's units on positives (momentum 0.9, start 0.5).

    `hinton`: `0.03 (mean(m) - m_j)` is added to the ascent direction; `loss`: gradient of the public port's
    `0.03 mean_j (mean(m) - m_j)^2` through m, weaker by the factor 5 x width.
    """

    def __init__(self, widths: list[int], form: Peer, weight: float = 0.03, momentum: float = 0.9) -> None:
        super().__init__()
        self.form, self.weight, self.momentum = form, weight, momentum
        for i, width in enumerate(widths):
            self.register_buffer(f"mean{i}", torch.full((width,), 0.5))

    def gradient(self, layer: int, positive_sum: Float[Tensor, " width"], n: int) -> Float[Tensor, " width"]:
        """Update m with the N positives' summed activities; what is to be ADDED to `dL/da` of every positive row."""
        m = getattr(self, f"mean{layer}")
        m.mul_(self.momentum).add_(positive_sum / n, alpha=1 - self.momentum)
        away = m - m.mean()
        if self.form == "hinton":
            return self.weight * away / n
        return self.weight * 2 / m.numel() * (1 - self.momentum) / n * away
