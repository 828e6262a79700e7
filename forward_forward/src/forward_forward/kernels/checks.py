"""What is checked of every kernel, in the interpreter and on a GPU alike: operands, definition, FLOPs and bytes.

Imports nothing but PyTorch, so that it runs on a machine that has only PyTorch and Triton.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from .ff_label_expand import ff_label_expand
from .ff_label_expand import reference as label_expand
from .ff_linear import ff_linear_fwd
from .ff_linear import reference as linear
from .ff_shared_first import ff_shared_first_fwd, ff_shared_first_wgrad
from .ff_shared_first import reference as shared_first
from .ff_wgrad import ff_wgrad
from .ff_wgrad import reference as wgrad
from .ff_wgrad_step import ff_wgrad_step_
from .ff_wgrad_step import reference as wgrad_step

Shape = dict[str, int]
SMALL: list[Shape] = [
    {"N": 37, "K": 50, "M": 29, "C": 10},
    {"N": 70, "K": 33, "M": 130, "C": 17},  # several tiles, the last of each cut off
    {"N": 1, "K": 3, "M": 2, "C": 2},
]
STEP = {"N": 2048, "K": 1000, "M": 1000, "C": 10}  # rows of 1024 images and their negatives, the MNIST network
BATCH = {"N": 200, "K": 1000, "M": 1000, "C": 10}  # the usual minibatch: bound by launches
LARGE = {"N": 8192, "K": 1024, "M": 1024, "C": 10}


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rows(generator: torch.Generator, n: int) -> Tensor:
    return torch.rand(n, generator=generator, dtype=torch.float64) + 0.5


def activities(generator: torch.Generator, n: int, m: int) -> Tensor:
    return normal(generator, n, m).relu()


def linear_operands(g: torch.Generator, N: int, K: int, M: int, C: int) -> tuple[Any, ...]:
    return activities(g, N, K), rows(g, N), normal(g, K, M) / K**0.5, normal(g, M)


def wgrad_operands(g: torch.Generator, N: int, K: int, M: int, C: int) -> tuple[Any, ...]:
    return activities(g, N, K), activities(g, N, M), normal(g, N) / N, normal(g, N) / N


def expand_operands(g: torch.Generator, N: int, K: int, M: int, C: int) -> tuple[Any, ...]:
    return normal(g, N, M), rows(g, N), normal(g, C, M), normal(g, M), 1.25


def shared_operands(g: torch.Generator, N: int, K: int, M: int, C: int) -> tuple[Any, ...]:
    return *expand_operands(g, N, K, M, C), torch.randint(0, C, (2, N), generator=g)


def shared_wgrad_operands(g: torch.Generator, N: int, K: int, M: int, C: int) -> tuple[Any, ...]:
    labels = torch.randint(0, C, (2, N), generator=g)
    return normal(g, N, K), rows(g, N), activities(g, 2 * N, M), normal(g, 2 * N) / N, labels, 1.25, C


def step_operands(g: torch.Generator, N: int, K: int, M: int, C: int) -> tuple[Any, ...]:
    # Second moments away from 0, where Adam divides by them and rounding of any size shows.
    state = (normal(g, K, M) / K**0.5, normal(g, M), 0.1 * normal(g, K, M), normal(g, K, M).square() + 0.1)
    vectors = (0.1 * normal(g, M), normal(g, M).square() + 0.1)
    numbers = torch.tensor([1e-2, 0.9, 0.999, 1e-8, 0.27, 0.003, 1e-2], dtype=torch.float64)
    return *wgrad_operands(g, N, K, M, C), *state, *vectors, numbers


def stepped(function: Callable[..., None], rule: str) -> Callable[..., tuple[Tensor, ...]]:
    """The operator on copies: a check calls it several times on the same operands. State is float32, as in training."""

    def run(*operands: Any) -> tuple[Tensor, ...]:
        gradient, state, numbers = operands[:4], operands[4:10], operands[10]
        copies = [x.double() if x.dtype is torch.float64 else x.float() for x in state]
        copies = [x.clone(memory_format=torch.contiguous_format) for x in copies]
        function(*gradient, *copies, numbers, rule)
        return tuple(copies)

    return run


def step_cost(N: int, K: int, M: int, C: int) -> tuple[float, float]:
    return 2.0 * N * K * M, N * K + N * M + 6.0 * K * M


def product(N: int, K: int, M: int, C: int) -> tuple[float, float]:
    return 2.0 * N * K * M, N * K + K * M + N * M + 2.0 * N + M


def pairs(sets: Callable[[int], int]) -> Callable[..., tuple[float, float]]:
    def cost(N: int, K: int, M: int, C: int) -> tuple[float, float]:
        r = sets(C)
        return 5.0 * r * N * M, N * M + C * M + r * N * M + 1.0 * r * N

    return cost


def shared_wgrad_cost(N: int, K: int, M: int, C: int) -> tuple[float, float]:
    return 2.0 * N * K * M + 4.0 * N * M, N * K + 2.0 * N * M + K * M + C * M


CHECKS = [
    Check("ff_linear", ff_linear_fwd, linear.ff_linear_fwd, linear_operands, SMALL, [BATCH, STEP, LARGE], product),
    Check("ff_wgrad", ff_wgrad, wgrad.ff_wgrad, wgrad_operands, SMALL, [BATCH, STEP, LARGE], product),
    Check(
        "ff_label_expand",
        ff_label_expand,
        label_expand.ff_label_expand,
        expand_operands,
        [SMALL[0] | {"C": 3}, SMALL[1] | {"C": 2}, SMALL[2]],
        [BATCH, STEP],
        pairs(lambda classes: classes),
    ),
    Check(
        "ff_shared_first",
        ff_shared_first_fwd,
        shared_first.ff_shared_first_fwd,
        shared_operands,
        SMALL,
        [BATCH, STEP],
        pairs(lambda _: 2),
    ),
    Check(
        "ff_shared_first",
        ff_shared_first_wgrad,
        shared_first.ff_shared_first_wgrad,
        shared_wgrad_operands,
        SMALL,
        [BATCH, STEP],
        shared_wgrad_cost,
        part="wgrad",
    ),
    *(
        Check(
            "ff_wgrad_step",
            stepped(ff_wgrad_step_, rule),
            stepped(wgrad_step.ff_wgrad_step_, rule),
            step_operands,
            SMALL,
            [BATCH, STEP] if rule == "adam" else [],
            step_cost,
            part=rule,
            gradients=False,
        )
        for rule in ("adam", "smoothed")
    ),
]
