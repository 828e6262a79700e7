"""What trains the point Mask2Former, without training it: units, what it starts from, and what it is given."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from autofocusformer.backbone import VARIANTS, AutoFocusFormer
from autofocusformer.mask_module import MaskSegmenter
from autofocusformer.metrics import SegmentationScore
from autofocusformer.module import Classifier, Segmenter, Trained, adamw
from shared.errors import UserError


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


def configured(module: Trained, monkeypatch: pytest.MonkeyPatch, dry: bool = False) -> Any:
    """The module as it stands before its first step, on 7 classes."""
    data = SimpleNamespace(classes=7, names=("a",) * 7, small=(), things=False, setup=lambda stage: None)
    monkeypatch.setattr(type(module), "data", property(lambda self: data))
    trainer = SimpleNamespace(fast_dev_run=dry)
    monkeypatch.setattr(type(module), "trainer", property(lambda self: trainer))
    module.configure_model()
    return module


@pytest.mark.parametrize("kind", [Segmenter, MaskSegmenter, Classifier])
@pytest.mark.parametrize("own", [False, True])
def test_a_training_starts_from_weights(
    kind: type[Trained], own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given, path = AutoFocusFormer(VARIANTS["nano"], 10), tmp_path / "weights.pth"
    torch.nn.init.constant_(given.norm.weight, 3.0)
    state = given.state_dict()
    ours = {"autofocusformer": {}, "state_dict": {f"backbone.{name}": value for name, value in state.items()}}
    torch.save(ours if own else {"model": state}, path)
    with caplog.at_level(logging.WARNING, "autofocusformer.module"):
        module = configured(kind("nano", weights=str(path)), monkeypatch)  # type: ignore[call-arg, arg-type]
    found = module.backbone.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in state if not name.startswith(("head.", "norm.")))
    (line,) = [record.message for record in caplog.records]
    if kind is Classifier:
        assert torch.equal(found["norm.weight"], state["norm.weight"])
        assert line.endswith("dropped: head.weight, head.bias")
    else:
        assert (found["norm0.weight"] == 1).all()
        assert line.endswith("dropped: norm.weight, norm.bias, head.weight, head.bias")


def test_weights_of_another_network_and_a_recipe_without_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": AutoFocusFormer(VARIANTS["mini"], 10).state_dict()}, path)
    for weights, says in (
        (str(path), "of another shape"),
        (str(tmp_path / "none.pth"), "no such checkpoint"),
        ("required", "needs weights to start from"),
    ):
        with pytest.raises(UserError, match=says):
            configured(MaskSegmenter("nano", weights=weights), monkeypatch)
    module = configured(MaskSegmenter("nano", weights="required"), monkeypatch, dry=True)
    assert module.data.of_tokens is False


def test_norms_and_embeddings_do_not_decay() -> None:
    module = MaskSegmenter("nano")
    module.build(7)
    names = {id(p): name for name, p in module.named_parameters()}
    free = {names[id(p)] for group in adamw(module, 1.0, 0.05).param_groups if not group["weight_decay"]
            for p in group["params"]}  # fmt: skip
    assert {name for name in names.values() if name.split(".")[-1] in ("level_embed", "query_feat", "query_embed")} == {
        "head.pixel_decoder.level_embed", "head.predictor.level_embed", "head.predictor.query_feat",
        "head.predictor.query_embed",
    } & free  # fmt: skip
