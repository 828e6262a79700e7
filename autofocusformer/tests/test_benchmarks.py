"""The benchmarks compute what they time: every form of the attention agrees, on a CPU and at small shapes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    yield importlib.import_module("gpu")
    for name in ("gpu", "gather"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("nnc", [2, 0])
def test_every_form_is_the_attention(gpu: ModuleType, nnc: int) -> None:
    rows = gpu.attention({"B": 2, "n": 40, "H": 2, "e": 16, "m": 8, "nnc": nnc}, torch.float32, "cpu")
    assert list(rows) == ["kernel", "gather", "unfused", "dense SDPA", "FlexAttention"]
    for name, row in rows.items():
        assert row["error"] < 1e-5, name
        assert row["forward"]["ms"] > 0
    assert set(gpu.targets(rows)) == {"gather", "unfused"}


def test_a_form_that_computes_something_else_is_not_timed(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "unfused", lambda q, *_: 0 * q)
    rows = gpu.attention({"B": 1, "n": 24, "H": 1, "e": 16, "m": 8, "nnc": 2}, torch.float32, "cpu")
    assert "differs from the gathers" in rows["unfused"]["not run"]


def test_images_a_second_are_of_the_variant(gpu: ModuleType) -> None:
    assert gpu.throughput("nano", 2, torch.bfloat16, "cpu", 64)["images_per_second"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_claimed(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main() == 2
    assert "not run" in capsys.readouterr().out
