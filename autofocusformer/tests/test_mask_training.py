"""What trains the point Mask2Former, without training it: units, what it starts from, and what it is given."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from autofocusformer.backbone import VARIANTS, AutoFocusFormer, Pyramid
from autofocusformer.data.module import Scenes, Things
from autofocusformer.heads.mask2former import Instances
from autofocusformer.mask_module import MaskSegmenter
from autofocusformer.metrics import SegmentationScore
from autofocusformer.module import Classifier, Segmenter, Trained, adamw
from shared.errors import UserError

from autofocusformer import mask_module


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


def configured(
    module: Trained, monkeypatch: pytest.MonkeyPatch, dry: bool = False, ckpt_path: str | None = None
) -> Any:
    """The module as it stands before its first step, on 7 classes."""
    data = SimpleNamespace(classes=7, names=("a",) * 7, small=(), things=False, setup=lambda stage: None)
    monkeypatch.setattr(type(module), "data", property(lambda self: data))
    trainer = SimpleNamespace(fast_dev_run=dry, ckpt_path=ckpt_path, global_step=1, accumulate_grad_batches=1)
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


def test_a_training_starts_from_the_average_of_released_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, average = (AutoFocusFormer(VARIANTS["nano"], 10).state_dict() for _ in range(2))
    torch.save({"model": weights, "model_ema": average}, tmp_path / "released.pth")
    torch.save({"autofocusformer": {}, "state_dict": {}}, tmp_path / "own.ckpt")
    name = "layers.0.prob_net.weight"
    for asked, expected in ((False, weights), (True, average)):
        module = configured(Segmenter(weights=str(tmp_path / "released.pth"), average=asked), monkeypatch)
        assert torch.equal(module.backbone.state_dict()[name], expected[name])
    with pytest.raises(UserError, match="has no weights under 'model_ema'"):
        configured(Segmenter(weights=str(tmp_path / "own.ckpt"), average=True), monkeypatch)


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
    for weights in ("required", str(tmp_path / "none.pth")):  # a checkpoint has them all
        assert configured(MaskSegmenter("nano", weights=weights), monkeypatch, ckpt_path="final.ckpt").head


def scene(h: int = 64, w: int = 64) -> Scenes:
    labels = torch.zeros(2, h, w, dtype=torch.long)
    labels[:, 16:32, 16:40] = 1
    objects = torch.ones(2, h // 4, w // 4, dtype=torch.bool)
    return Scenes(torch.randn(2, 3, h, w), labels, torch.rand(2, h // 4, w // 4), objects)


@pytest.mark.parametrize(
    "module",
    [
        MaskSegmenter("nano", queries=5, points=16), Segmenter(), Segmenter(levels=["res3", "res4", "res5"]),
        Segmenter(levels=["res2"]), Segmenter(levels=["res4"]), Classifier(),
    ],
)  # fmt: skip
def test_all_that_learns_gets_a_gradient(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not is frozen: several processes would wait for it. Names and numbers are the same for all levels."""
    torch.manual_seed(0)
    module = configured(module, monkeypatch)
    batch = (torch.randn(2, 3, 64, 64), torch.tensor([0, 1])) if isinstance(module, Classifier) else scene()
    module.training_step(batch, 0).backward()
    assert not [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    if not isinstance(module, Classifier):
        assert module.backbone.state_dict().keys() == Pyramid(VARIANTS["nano"]).state_dict().keys()


@pytest.mark.slow
def test_two_processes_train_a_head_that_does_not_read_every_level(tmp_path: Path) -> None:
    here = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "train.py", "fit", "--config", "configs/shapes.yaml", "--trainer.strategy", "ddp",
         "--trainer.devices", "2", "--trainer.max_epochs", "1", "--data.iterations", "3", "--data.batch_size", "2",
         "--data.train_images", "16", "--run_dir", str(tmp_path / "run")],
        cwd=here, capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "run" / "final.ckpt", weights_only=True)
    assert found["global_step"] == 3
    assert "backbone.norm0.weight" in found["state_dict"]


class Recorded:
    """In the place of the mean average precision, which needs a compiled package."""

    def __init__(self) -> None:
        self.targets: list[dict[str, torch.Tensor]] = []

    def update(self, found: list[Any], targets: list[dict[str, torch.Tensor]]) -> None:
        self.targets += targets


def of_things(
    scores: list[float], masks: list[list[int]], truth: list[list[int]], crowds: list[int], precision: Any
) -> None:
    """One image of 8 x 8 pixels; a mask is a list of its rows."""

    def drawn(rows: list[list[int]]) -> torch.Tensor:
        out = torch.zeros(len(rows), 8, 8, dtype=torch.bool)
        for mask, own in zip(out, rows):
            mask[own] = True
        return out

    module: Any = MaskSegmenter("nano", queries=5)
    module.precision = precision
    count = len(truth)
    found = Instances(torch.zeros(len(scores), dtype=torch.long), torch.tensor(scores), drawn(masks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_module, "instances", lambda prediction, size: [found])
        patch.setattr(MaskSegmenter, "forward", lambda self, images: ([None], []))
        crowd = torch.tensor(crowds, dtype=torch.bool)
        batch = Things(torch.zeros(1, 3, 8, 8), [torch.zeros(count, dtype=torch.long)], [drawn(truth)], [crowd])
        module.test_step(batch, 0)


def test_crowds_are_told_to_the_precision() -> None:
    recorded = Recorded()
    of_things([0.9], [[0, 1]], [[0, 1], [4, 5, 6]], [0, 1], recorded)
    of_things([], [], [], [], recorded)
    assert [target["iscrowd"].tolist() for target in recorded.targets] == [[0, 1], [1]]
    assert [target["labels"].tolist() for target in recorded.targets] == [[0, 0], [0]]
    assert not recorded.targets[1]["masks"].any()  # an image without objects, which would be left out otherwise


def test_average_precision_is_coco_s() -> None:
    """Two objects. Surest first: a false one in an image without objects, one in a crowd (not counted), a right one.

    Precision is then 0/1, 1/2; recall 0, 1/2: interpolated, 1/2 at the 51 recalls up to 0.5 of 101.
    """
    pytest.importorskip("pycocotools")
    pytest.importorskip("torchvision")  # torchmetrics asks for it as well
    from torchmetrics.detection import MeanAveragePrecision

    precision = MeanAveragePrecision(iou_type="segm")
    of_things([0.9], [[0, 1]], [], [], precision)
    of_things([0.8, 0.7], [[4, 5], [0, 1]], [[0, 1], [2, 3], [4, 5, 6]], [0, 0, 1], precision)
    assert precision.compute()["map"].item() == pytest.approx(0.5 * 51 / 101)


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
