"""What a training step is said to be limited by: its matrix work is counted whole, and nothing else as such."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

FILE = Path(__file__).parents[1] / "benchmarks" / "bench_network.py"
SPEC = importlib.util.spec_from_file_location("bench_network", FILE)
assert SPEC is not None
assert SPEC.loader is not None
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)


class Elementwise(nn.Module):
    """No product of matrices in it, forward or backward."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(x * self.scale[0]).exp().mean(1), (x * self.scale[1]).sin().mean(1)], 1)


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.filters(x[:, None]).mean(2)


@pytest.mark.parametrize(
    ("net", "operators"),
    [
        (Elementwise(), 0),
        (Convolution(), 2),  # forward and backward
        (nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)), 5),  # no gradient of the input itself
    ],
)
def test_the_clock_of_matrix_work_is_that_of_products_and_convolutions_forward_and_backward(
    net: nn.Module, operators: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = bench.step_of(net, torch.randn(4, 16), torch.randint(0, 2, (4,)), True)
    ticks = itertools.count()
    monkeypatch.setattr(bench.time, "thread_time", lambda: float(next(ticks)))  # a second passes at each look
    with bench.MatrixClock() as clock:
        step()
    assert clock.milliseconds == 1e3 * operators
