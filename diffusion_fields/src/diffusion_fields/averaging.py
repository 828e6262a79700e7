"""The moving average of the weights that is sampled from (section 3): torch's `AveragedModel` with a warm-up."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def ema(net: nn.Module, decay: float) -> AveragedModel:
    """w_ema <- d w_ema + (1 - d) w after update n = 0, 1, ..., with d = min(decay, (1 + n) / (10 + n)).

    `AveragedModel` would take the first weights over whole, which is d = 0: its counter starts at 1, so that the
    recursion starts at the initial weights, n being one less.
    """

    @torch.no_grad()
    def average(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = int(count) - 1
        torch._foreach_lerp_(list(averaged), list(current), 1 - min(decay, (1 + n) / (10 + n)))

    model = AveragedModel(net, multi_avg_fn=average)
    model.n_averaged.fill_(1)
    model.requires_grad_(False)
    return model
