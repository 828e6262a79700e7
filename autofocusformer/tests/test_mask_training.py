"""What trains the point Mask2Former, without training it: units, what it starts from, and what it is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from autofocusformer.mask_module import MaskSegmenter
from autofocusformer.metrics import SegmentationScore


@pytest.mark.parametrize("things", [False, True])
def test_results_are_in_per_cent_as_the_published_ones(things: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskSegmenter, "data", property(lambda self: SimpleNamespace(things=things)))
    monkeypatch.setattr(MaskSegmenter, "log_dict", lambda self, values: None)
    module: Any = MaskSegmenter("nano")
    module.score = SegmentationScore(2)
    module.score.update(torch.tensor([[[0, 0, 0, 1]]]), torch.tensor([[[0, 0, 1, 1]]]))
    found = {"map": torch.tensor(0.4), "map_50": torch.tensor(-1.0), "mar_1": torch.tensor(0.5)}
    module.precision = SimpleNamespace(compute=lambda: found)
    module.on_test_epoch_end()
    if things:
        assert module.final == {"test/ap": pytest.approx(40)}  # there was no object at that threshold
    else:
        assert module.final["test/miou"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
