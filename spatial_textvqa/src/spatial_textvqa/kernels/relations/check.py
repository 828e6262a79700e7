"""What is checked of the relations in the interpreter and on a GPU: boxes, definition, FLOPs and bytes."""

from __future__ import annotations

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import build_relations, reference

GRID = 16  # corners on a grid: ties are the rule


def operands(generator: torch.Generator, B: int, N: int) -> tuple[Tensor]:
    """Corners as whole numbers, some boxes padding."""
    corner = torch.randint(0, GRID, (B, N, 2), generator=generator)
    boxes = torch.cat([corner, corner + torch.randint(0, GRID // 2, (B, N, 2), generator=generator)], -1)
    boxes[:, 3::7] = 0
    return (boxes,)


def kernel(boxes: Tensor) -> tuple[Tensor, Tensor]:
    boxes = boxes.float() / (2 * GRID)
    return build_relations(boxes, 0.5, "official"), build_relations(boxes, 0.25, "clean")


def definition(boxes: Tensor) -> tuple[Tensor, Tensor]:
    boxes = boxes.float() / (2 * GRID)
    return reference.build_relations(boxes, 0.5, "official"), reference.build_relations(boxes, 0.25, "clean")


def cost(B: int, N: int) -> tuple[float, float]:
    """Two graphs; entries of four bytes, of which a pair takes one."""
    return 2 * 40.0 * B * N * N, 2 * (4.0 * B * N + B * N * N / 4)


CHECK = Check(
    "relations", kernel, definition, operands,
    small=[{"B": 2, "N": 37}, {"B": 1, "N": 1}], timed=[{"B": 96, "N": 150}], cost=cost, gradients=False,
    modes=("fp32",),
)  # fmt: skip
