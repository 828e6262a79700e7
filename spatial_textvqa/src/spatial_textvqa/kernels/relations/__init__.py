"""Spatial relations between boxes (sections 3 and 8.B)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from shared.errors import UserError
from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference
from .reference import MODES

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float, UInt8

__all__ = ["MODES", "build_relations"]


@torch.library.custom_op("spatial_textvqa::relations", mutates_args=())
def relations(boxes: Tensor, thr: float, mode: str) -> Tensor:
    from . import triton

    return triton.launch(boxes, thr, mode)


@relations.register_fake
def _(boxes: Tensor, thr: float, mode: str) -> Tensor:
    return boxes.new_empty(*boxes.shape[:-1], boxes.shape[-2], dtype=torch.uint8)


def build_relations(
    boxes: Float[Tensor, "*batch n 4"], thr: float = 0.5, mode: str = "official"
) -> UInt8[Tensor, "*batch n n"]:
    """`R[i, j]`, the relation of box i to box j, 0..12. Boxes are normalised; the arithmetic is float64.

    One launch. FLOPs: about 40 for each pair, in float64. Bytes: 16 for a box and 1 for a pair: 2.4 MB and 86 MFLOP for
    96 graphs of 150 boxes, below 3 us on one H100 (34 TFLOP/s in float64), less than a launch.

    Raises:
        UserError: an unknown mode; a threshold that is not positive.
    """
    if mode not in MODES:
        raise UserError(f"mode of the graph is {mode!r}: use one of {', '.join(MODES)}")
    if not (thr > 0 and math.isfinite(thr)):
        raise UserError(f"thr is {thr}: the largest distance of an edge is a positive number")
    if boxes.numel() and use_triton(boxes):
        return relations(boxes, thr, mode)
    return reference.build_relations(boxes, thr, mode)
