"""What is checked of the relations in the interpreter and on a GPU: boxes, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable

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


def graphs(build: Callable[..., Tensor], boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By a power of two corners are exact; by 37 equal centres are not, and lie on an axis by rounding alone."""
    exact, rounded = boxes.float() / (2 * GRID), boxes.float() / 37
    return build(exact, 0.5, "official"), build(exact, 0.25, "clean"), build(rounded, 0.5, "official")


def kernel(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return graphs(build_relations, boxes)


def definition(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return graphs(reference.build_relations, boxes)


def cost(B: int, N: int) -> tuple[float, float]:
    """Three graphs; entries of four bytes, of which a pair takes one."""
    return 3 * 40.0 * B * N * N, 3 * (4.0 * B * N + B * N * N / 4)


CHECK = Check(
    "relations", kernel, definition, operands,
    small=[{"B": 2, "N": 37}, {"B": 1, "N": 1}], timed=[{"B": 96, "N": 150}], cost=cost, gradients=False,
    modes=("fp32",),
)  # fmt: skip
