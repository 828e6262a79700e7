"""What `make gpu-check` compares besides the kernels: the captured training step with the eager one."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from forward_forward.model import ForwardForwardNet
from forward_forward.module import ForwardForward

STEPS = 50


def untrained(size: int, hidden: list[int], **settings: Any) -> ForwardForward:
    """A module with its network, on the CPU."""
    torch.manual_seed(0)
    model = ForwardForward(hidden=hidden, **settings)
    model.net = ForwardForwardNet(size - 10, hidden, 10)
    return model


def trainable(model: ForwardForward) -> ForwardForward:
    """The module with optimisers, outside a trainer: what `one_step` needs and no more."""
    model._trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=1, global_rank=0, current_epoch=0, max_epochs=1, strategy=SimpleNamespace(reduce=None)
    )
    optimisers = model.configure_optimizers()
    for optimiser in optimisers:
        optimiser._on_before_step = optimiser._on_after_step = lambda: None  # type: ignore[attr-defined]
    model.all_optimisers = lambda: optimisers  # type: ignore[method-assign]
    model.reset_counts()
    return model


def train(images: Tensor, labels: Tensor, u: Tensor, cuda_graph: bool) -> tuple[Tensor, ...]:
    """Weights after 50 steps on minibatches of 100, in float32; the losses that were counted."""
    images = images.float()
    net = untrained(images.shape[1] + 10, [256, 256, 256], cuda_graph=cuda_graph)
    model = trainable(net.to(images.device))
    for step in range(STEPS):
        rows = (torch.arange(100, device=images.device) + 100 * step) % len(images)
        model.training_step((images[rows], labels[rows], u[rows]), step)
    return (*model.net.weights, model._loss)


def operands(generator: torch.Generator, N: int, D: int) -> tuple[Tensor, ...]:
    images = torch.rand(N, D, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 10, (N,), generator=generator), torch.rand(N, generator=generator)


def cost(N: int, D: int) -> tuple[float, float]:
    """FLOPs of 50 steps of 784-256-256-256 on 200 rows: forward and weight gradients; entries of weights and Adam."""
    weights = (D + 10) * 256 + 2 * 256 * 256
    return STEPS * 2 * 2.0 * 200 * weights, STEPS * 7.0 * weights


CHECKS = [
    Check(
        "captured_step",
        partial(train, cuda_graph=True),
        partial(train, cuda_graph=False),
        operands,
        small=[{"N": 1000, "D": 774}],
        timed=[{"N": 1000, "D": 774}],
        cost=cost,
        gradients=False,
        modes=("fp32",),
        compiled=False,
    )
]
