"""Samples of a generator against a mixture of known centres: which modes it covers, and how well (section 8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

RADIUS = 0.3  # of a mode: a sample nearer to its centre belongs to it
ENOUGH = 0.1  # of its fair share of the samples a mode needs to be covered: 50 of 2500 for five modes
SIGMAS = 3  # a sample is of high quality within so many standard deviations of a centre
LASTING = 4  # checks in a row with every mode


@dataclass(frozen=True)
class Modes:
    """Args:
    covered: modes with enough samples.
    high_quality: share of the samples within three standard deviations of a centre.
    shares: of the samples that belong to each mode.
    """

    covered: int
    high_quality: float
    shares: list[float]


def count_modes(samples: Float[Tensor, "m d"], centres: Float[Tensor, "k d"], variance: float) -> Modes:
    """Modes that `samples` cover. A sample belongs to its nearest centre if within 0.3; NaN never does."""
    distance, nearest = torch.cdist(samples, centres).min(1)
    distance = distance.nan_to_num(torch.inf)
    counts = torch.bincount(nearest[distance <= RADIUS], minlength=len(centres))
    return Modes(
        covered=int((counts >= ENOUGH * len(samples) / len(centres)).sum()),
        high_quality=(distance <= SIGMAS * variance**0.5).double().mean().item(),
        shares=(counts.double() / len(samples)).tolist(),
    )


def first_covered(covered: list[int], modes: int, lasting: int = LASTING) -> int | None:
    """The first check of the first `lasting` in a row that found every mode; None where there is none."""
    run = 0
    for check, found in enumerate(covered):
        run = run + 1 if found == modes else 0
        if run == lasting:
            return check - lasting + 1
    return None
