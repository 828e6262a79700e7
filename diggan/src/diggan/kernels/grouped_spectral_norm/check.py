"""What is checked of spectral normalisation in the interpreter and on a GPU: operands, definition, FLOPs and bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from .. import costs
from . import grouped_spectral_norm, reference

STEPS = 64  # u as whole numbers of these: operands that carry no gradient


def operands(generator: torch.Generator, layers: int, out: int, rest: int) -> tuple[Tensor, ...]:
    """Weights of `layers` sizes, then a u of each: the first is a single row, as at the end of a discriminator."""
    sizes = [(1 if i == 0 else out + 5 * (i // 2), rest + 3 * i) for i in range(layers)]
    weights = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    return *weights, *(torch.randint(1, STEPS, (1, r), generator=generator) for r, _ in sizes)


def of(function: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    """W / sigma of all layers, then sigma; u, which has no gradient, shows in both."""

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        weights, us = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
        normalised, sigma, _ = function(weights, [u.to(weights[0]) / STEPS for u in us], 1e-8)
        return *normalised, *sigma

    return call


def cost(layers: int, out: int, rest: int) -> tuple[float, float]:
    """FLOPs and entries moved: W has to come from memory once, and W / sigma to go there."""
    entries = float(rest + sum((out + 5 * (i // 2)) * (rest + 3 * i) for i in range(1, layers)))
    return 6 * entries, 2 * entries


def plan(shapes: list[tuple[int, ...]], backward: bool = False) -> dict[str, float]:
    """Launches and bytes for float32 weights of `shapes`, with `backward` the gradient's too, and the definition's."""
    weights = [torch.empty(shape, device="meta", requires_grad=backward) for shape in shapes]
    us = [torch.empty(1, len(w), device="meta") for w in weights]
    eager = costs.eager(lambda: reference.grouped_spectral_norm(weights, us, 1e-8)[0], weights if backward else [])
    entries = sum(w.numel() for w in weights)
    vectors = sum(len(w) + w.numel() // len(w) for w in weights)
    calls, moved = (5.0, 32.0 * entries + 20 * vectors) if backward else (3.0, 16.0 * entries + 16 * vectors)
    return {"launches": calls, "bytes": moved, **eager}


CHECK = Check(
    "grouped_spectral_norm",
    of(grouped_spectral_norm),
    of(reference.grouped_spectral_norm),
    operands,
    small=[
        {"layers": 1, "out": 1, "rest": 3},
        {"layers": 5, "out": 33, "rest": 70},
        {"layers": 2, "out": 520, "rest": 5},
    ],
    timed=[{"layers": 12, "out": 256, "rest": 2304}],
    cost=cost,
    modes=("fp32", "bf16", "fp16"),
)
