"""Spatial relations between boxes (sections 3 and 8.B)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shared.errors import UserError
from torch import Tensor

from . import reference
from .reference import MODES

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float, UInt8

__all__ = ["MODES", "build_relations"]


def build_relations(
    boxes: Float[Tensor, "*batch n 4"], thr: float = 0.5, mode: str = "official"
) -> UInt8[Tensor, "*batch n n"]:
    """`R[i, j]`, the relation of box i to box j, 0..12. Boxes are normalised; the arithmetic is float64.

    Raises:
        UserError: an unknown mode; a threshold that is not positive.
    """
    if mode not in MODES:
        raise UserError(f"mode of the graph is {mode!r}: use one of {', '.join(MODES)}")
    if not (thr > 0 and math.isfinite(thr)):
        raise UserError(f"thr is {thr}: the largest distance of an edge is a positive number")
    return reference.build_relations(boxes, thr, mode)
