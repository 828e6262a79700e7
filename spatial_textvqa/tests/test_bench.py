"""What the benchmark times is what it says; the times themselves are measured there."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from spatial_textvqa.model import SAM4CConfig

HERE = Path(__file__).resolve().parent.parent


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE / "benchmarks"))
    import bench

    return bench


def test_the_rate_of_phoc_is_that_of_words_without_repeats(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[torch.Tensor] = []
    monkeypatch.setattr(bench, "cpu_seconds", lambda call, repeats: timed.append(call()) or 0.5)
    found = bench.phoc()
    assert timed[0].shape == (found["words"], 604)
    assert found["words_per_second"] == found["words"] / 0.5 > 0
    assert timed[0].any(1).all()
    assert bench.TARGETS["phoc.words_per_second"] == (50_000.0, "least")


def test_the_step_of_the_training_rate_trains_on_the_device_that_is_there(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, in bfloat16, with a narrow network; without one the rows are told as not run."""
    config = SAM4CConfig(
        vocab_size=12, question="words", question_vocab=20, question_length=3, text_layers=0, dim=24, ffn=24,
        layers="ns", feature_width=16, max_objects=4, max_ocr=4, steps=2,
    )  # fmt: skip
    monkeypatch.setattr(bench, "seconds", lambda step: step() or 0.25)
    assert bench.trained_per_second("cpu", config, 8) == 32
    monkeypatch.setattr(bench, "CUDA", False)
    assert bench.training() == {"rows on a GPU": "not run"}
