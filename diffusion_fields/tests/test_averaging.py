"""The average of the weights against its recursion, written out."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusion_fields.averaging import ema
from torch import nn


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9999])
def test_the_average_is_the_recursion(decay: float) -> None:
    """Section 3: min(decay, (1 + n) / (10 + n)), n = 0 at the first update, from the initial weights."""
    torch.manual_seed(0)
    net = nn.Linear(3, 2).double()
    average = ema(net, decay)
    by_hand = copy.deepcopy(net.weight.detach())
    for n in range(30):
        with torch.no_grad():
            net.weight.add_(torch.randn_like(net.weight))
        average.update_parameters(net)
        d = min(decay, (1 + n) / (10 + n))
        by_hand = d * by_hand + (1 - d) * net.weight.detach()
        assert torch.allclose(average.module.weight, by_hand, rtol=0, atol=1e-14)
    assert not average.module.weight.requires_grad
