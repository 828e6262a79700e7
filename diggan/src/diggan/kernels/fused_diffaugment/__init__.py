"""DiffAugment in one launch (sections 6 and 7.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference
from .maps import augment
from .reference import OPERATIONS, Draws, draw, parse_policy

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float

__all__ = ["OPERATIONS", "Draws", "draw", "fused_diffaugment", "parse_policy"]
# More than these is left to the definition: a pixel's channels are held together, a policy's operations unrolled.
MOST_CHANNELS, MOST_OPERATIONS = 256, 8


def fused_diffaugment(x: Float[Tensor, "n c h w"], policy: str, draws: Draws) -> Float[Tensor, "n c h w"]:
    """The augmentations of `policy`, left to right, each image by its own draws.

    Differentiable any number of times in x: the map is affine, so its gradient is the adjoint of the linear part, and
    the gradient of that the linear part itself. Both are the same kernel, in one launch each.

    Args:
        x: images, nominally in [-1, 1].
        policy: names of `OPERATIONS` joined by commas; empty: x itself.
        draws: of `draw`; what the policy does not use may be None.

    Raises:
        ValueError: an unknown name (the line lists the known ones).

    FLOPs: about 15 for each entry, far below what the bytes take. Bytes: x is read and the result written once,
    `8 N C H W` in float32 (24.6 kB for 32 x 32 x 3); `color` sums the image first, and reads it again from the
    multiprocessor's own cache (12 kB of 256 kB), or from L2 for large images. Draws are read where they lie: packing
    them would take more launches than the rest. Floor on one H100 (3.35 TB/s), 100 images of 32 x 32 x 3: 0.7 us, less
    than a launch takes; the definition has 52 launches for the whole policy and moves 13 times the bytes.
    """
    names = parse_policy(policy)
    small = x.shape[1] <= MOST_CHANNELS and len(names) <= MOST_OPERATIONS
    if names and x.numel() and small and use_triton(x):
        return augment(x, names, draws)
    return reference.fused_diffaugment(x, policy, draws)
