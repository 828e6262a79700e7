"""The captured step without a GPU: one function for both paths, nothing in it waits for the device; refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forward_forward.captured import WARM_UP, CapturedStep, check_capturable
from forward_forward.gpu_checks import trainable, untrained
from forward_forward.module import ForwardForward
from forward_forward.peer import PeerNormalisation
from shared.errors import UserError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SETTINGS: list[dict[str, Any]] = [
    {},
    {"schedule": "alternate"},
    {"schedule": "greedy", "gamma": "prev"},
    {"head": True, "negatives": "hard"},
    {"negatives": "permute", "peer": "hinton"},
    {"objective": "entropy"},
]


class NoTransfers(TorchDispatchMode):
    """Refuses copies between devices: in a capture they are errors, elsewhere they wait.

    The device of these tests is `meta`: its tensors have no values, so whatever asks for one fails.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            tensors = [x for x in (*args, out) if isinstance(x, Tensor)]
            if len({x.device.type for x in tensors}) > 1:
                raise AssertionError(f"a copy between devices: {func}")
        return out


def batch(streams: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    lead = (streams, 20) if streams > 1 else (20,)
    return (
        torch.rand(*lead, 54, device="meta"),
        torch.randint(0, 10, lead, device="meta"),
        torch.rand(*lead, device="meta"),
    )


def step_without_values(settings: dict[str, Any]) -> None:
    # SGD: of Adam, torch itself says that it can be captured, but not on this device.
    model = untrained(64, [16, 12, 8], optimiser="sgd", **settings)
    if settings.get("peer"):
        model.peer = PeerNormalisation([16, 12, 8], "hinton")
    trainable(model.to("meta"))
    given = batch(3 if settings.get("schedule") == "alternate" else 1)
    with torch.no_grad(), NoTransfers():
        model.one_step(given)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_step_neither_waits_for_the_device_nor_copies_to_it(settings: dict[str, Any]) -> None:
    step_without_values(settings)


def test_the_test_sees_what_it_forbids(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ForwardForward.logits
    monkeypatch.setattr(ForwardForward, "logits", lambda self, g: original(self, g) * float(g.sum()))
    with pytest.raises(RuntimeError, match="meta"):
        step_without_values({})
    monkeypatch.setattr(ForwardForward, "logits", lambda self, g: original(self, g)[g.sum(1).nonzero()[:, 0]])
    with pytest.raises((RuntimeError, NotImplementedError), match="nonzero"):
        step_without_values({})
    monkeypatch.setattr(ForwardForward, "logits", lambda self, g: original(self, g) + torch.ones(3).to(g.device))
    with pytest.raises(AssertionError, match="a copy between devices"):
        step_without_values({})


class Graph:
    """Stands in for a CUDA graph: replays the captured function."""

    replays = 0

    def __init__(self, run: Any) -> None:
        self.run = run

    def replay(self) -> None:
        type(self).replays += 1
        self.run()


def test_every_call_is_one_step_and_odd_shapes_go_the_eager_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, int]] = []
    counted: list[int] = []
    step = CapturedStep(lambda x: seen.append((x.sum().item(), len(x))), replayed=lambda: counted.append(1))
    monkeypatch.setattr(CapturedStep, "_aside", lambda self, run: run())

    def capture(self: CapturedStep) -> None:
        self.graph = Graph(lambda: self.step(*self.inputs))  # type: ignore[assignment]

    monkeypatch.setattr(CapturedStep, "_capture", capture)
    for i in range(WARM_UP + 3):
        step(torch.full((4,), float(i)))
    step(torch.full((3,), 9.0))
    assert seen == [*((4.0 * i, 4) for i in range(WARM_UP + 3)), (27.0, 3)]
    assert Graph.replays == 3
    assert len(counted) == 2  # the capture itself has told Lightning of its step


def test_lightning_has_the_hooks_that_count_steps() -> None:
    from pytorch_lightning.core.optimizer import LightningOptimizer

    optimiser = LightningOptimizer(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1))
    assert callable(optimiser._on_before_step)
    assert callable(optimiser._on_after_step)


def test_counts_and_rates_stay_where_they_are() -> None:
    model = trainable(untrained(64, [16, 12], cuda_graph=True))
    rate = model.all_optimisers()[0].param_groups[0]["lr"]
    loss = model._loss
    assert isinstance(rate, Tensor)
    loss += 1
    model.reset_counts()
    model.decay = "second_half"
    model.set_step_size(9, 10)
    assert model._loss is loss
    assert loss.sum() == 0
    assert model.all_optimisers()[0].param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(1e-3 * 0.3)


def test_refusals() -> None:
    with pytest.raises(UserError, match="cuda_graph needs an NVIDIA GPU, this run is on cpu: leave it out"):
        check_capturable(torch.device("cpu"), 1)
    with pytest.raises(UserError, match="cuda_graph is for one process, this run has 2"):
        check_capturable(torch.device("cuda"), 2)
    with pytest.raises(UserError, match="cuda_graph needs the optimiser `adam`"):
        ForwardForward([8], optimiser="smoothed", cuda_graph=True)
