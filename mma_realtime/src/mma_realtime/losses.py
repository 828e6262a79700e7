"""What the networks are trained by (section 6). Labels are 1 for a window with a signal, 0 for one without.

No label smoothing anywhere: it compresses the tail of the statistic, which sets the false-alarm rate.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor

from mma_realtime.models.network import statistic_of

MASS_UNIT = 20.0  # solar masses


def cross_entropy(outputs: Float32[Tensor, "batch 2"], label: Float32[Tensor, " batch"]) -> Float32[Tensor, ""]:
    """Of two logits, noise and signal."""
    return F.cross_entropy(outputs, label.long())


def binary_cross_entropy(
    outputs: Float32[Tensor, "batch outputs"], label: Float32[Tensor, " batch"]
) -> Float32[Tensor, ""]:
    """Of the statistic as one logit; of two logits the same as `cross_entropy`."""
    return F.binary_cross_entropy_with_logits(statistic_of(outputs), label)


def focal(
    outputs: Float32[Tensor, "batch outputs"], label: Float32[Tensor, " batch"], gamma: float = 2.0
) -> Float32[Tensor, ""]:
    """-(1 - p)^gamma ln p with p the probability given to the truth: windows that are clear count less."""
    s = statistic_of(outputs) * (2 * label - 1)
    return (torch.sigmoid(-s) ** gamma * F.softplus(-s)).mean()


def partial_auc(
    outputs: Float32[Tensor, "batch outputs"], label: Float32[Tensor, " batch"], share: float = 0.1
) -> Float32[Tensor, ""]:
    """Pairwise surrogate of one minus the area under the curve up to a false-positive rate of `share`.

    Each signal against each of the loudest `share` of the noise windows of the batch (at least one):
    softplus(s_noise - s_signal). Zero where the batch has only one kind.
    """
    s = statistic_of(outputs)
    signal, noise = s[label > 0.5], s[label <= 0.5]
    if not len(signal) or not len(noise):
        return 0.0 * s.sum()
    hardest = noise.topk(max(1, round(share * len(noise)))).values
    return F.softplus(hardest[None] - signal[:, None]).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "bce": binary_cross_entropy,
    "focal": focal,
    "partial_auc": partial_auc,
}


def masses_of(outputs: Float32[Tensor, "batch 2"]) -> Float32[Tensor, "batch 2"]:
    """The predictor's masses (solar masses): positive, 14 where the outputs are 0, and linear for heavy ones."""
    return MASS_UNIT * F.softplus(outputs)


def relative_mass_error(outputs: Float32[Tensor, "batch 2"], masses: Float32[Tensor, "batch 2"]) -> Float32[Tensor, ""]:
    """Mean over windows and both masses of |m_pred - m| / m.

    Args:
        outputs: of the predictor, before `masses_of`.
        masses: m1 >= m2, solar masses.
    """
    return ((masses_of(outputs) - masses).abs() / masses).mean()
