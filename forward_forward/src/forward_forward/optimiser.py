"""Hinton's optimiser (section 2.6): gradient smoothed over minibatches, decay of the weights only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class SmoothedSGD(torch.optim.Optimizer):
    """`v = 0.9 v + 0.1 grad`, then `W -= lr (v + decay W)`; vectors (biases) are not decayed.

    Not `torch.optim.SGD(momentum=0.9, dampening=0.9)`: that starts with v = grad and smooths the decay as well.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                v = self.state[p].setdefault("v", torch.zeros_like(p))
                v.lerp_(p.grad, 1 - group["momentum"])
                if p.ndim > 1 and group["weight_decay"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(v, alpha=group["lr"])
        return loss
