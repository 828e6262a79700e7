"""What is checked of DiffAugment in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from shared.kernels.harness import Check
from torch import Tensor

from .. import costs
from . import fused_diffaugment, reference
from .reference import Draws, hole, largest_shift, parse_policy

POLICIES = ("color", "translation,cutout", "color,translation,cutout")
STEPS = 4096  # draws in [0, 1) as whole numbers of these: operands that carry no gradient


def operands(generator: torch.Generator, N: int, C: int, H: int, W: int) -> tuple[Tensor, Tensor]:
    """Images, and the seven draws of each."""

    def whole(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (N,), generator=generator)

    uniform = [whole(0, STEPS) for _ in range(3)]
    shifts = [whole(-largest_shift(size), largest_shift(size) + 1) for size in (H, W)]
    offsets = [whole(0, size + 1 - hole(size) % 2) for size in (H, W)]
    x = 2 * torch.rand(N, C, H, W, generator=generator, dtype=torch.float64) - 1
    return x, torch.stack([*uniform, *shifts, *offsets])


def draws_of(numbers: Tensor) -> Draws:
    return Draws(*(u.float() / STEPS for u in numbers[:3]), *numbers[3:])


def kernel(policy: str) -> Callable[[Tensor, Tensor], tuple[Tensor]]:
    def function(x: Tensor, numbers: Tensor) -> tuple[Tensor]:
        return (fused_diffaugment(x, policy, draws_of(numbers)),)

    return function


def definition(policy: str) -> Callable[[Tensor, Tensor], tuple[Tensor]]:
    return lambda x, numbers: (reference.fused_diffaugment(x, policy, draws_of(numbers)),)


def cost(N: int, C: int, H: int, W: int) -> tuple[float, float]:
    """FLOPs and entries moved: images are read and written once."""
    return 15.0 * N * C * H * W, 2.0 * N * C * H * W


def plan(policy: str = POLICIES[-1], backward: bool = False, *, N: int, C: int, H: int, W: int) -> dict[str, float]:
    """Launches and bytes of a call in float32, with `backward` those of its gradient too, and the definition's."""
    x = torch.empty(N, C, H, W, device="meta", requires_grad=backward)
    numbers = [torch.empty(N, device="meta") for _ in range(3)]
    whole = [torch.empty(N, dtype=torch.int64, device="meta") for _ in range(4)]
    eager = costs.eager(
        lambda: [reference.fused_diffaugment(x, policy, Draws(*numbers, *whole))], [x] if backward else []
    )
    calls = 2.0 if backward else 1.0
    fields = {"color": 12, "translation": 16, "cutout": 16}  # bytes of an image's draws
    drawn = N * sum(fields[name] for name in set(parse_policy(policy)))
    return {"launches": calls, "bytes": calls * (8.0 * N * C * H * W + drawn), **eager}


CHECKS = [
    Check(
        "fused_diffaugment",
        kernel(policy),
        definition(policy),
        operands,
        small=[{"N": 3, "C": 3, "H": 9, "W": 12}, {"N": 1, "C": 1, "H": 7, "W": 5}, {"N": 2, "C": 3, "H": 45, "W": 33}],
        timed=[{"N": 100, "C": 3, "H": 32, "W": 32}, {"N": 64, "C": 3, "H": 128, "W": 128}],
        cost=cost,
        part=policy.replace(",", "+"),
        modes=("fp32", "bf16", "fp16"),
    )
    for policy in POLICIES
]
