"""The commands as a user types them, and their mistakes on one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import folder_layouts as folders
import numpy as np
import pytest
import torch
from autofocusformer.__main__ import main
from autofocusformer.backbone import VARIANTS, AutoFocusFormer
from autofocusformer.experiment import run
from autofocusformer.exporting import exported
from autofocusformer.mask_module import MaskSegmenter
from autofocusformer.trained import load
from PIL import Image
from shared.errors import UserError

TRAINING: dict[str, Any] = {
    "model": {"class_path": "autofocusformer.module.Segmenter", "init_args": {"levels": ["res2", "res3"]}},
    "data": {
        "dataset": "synthetic_density", "batch_size": 2, "iterations": 1, "train_images": 2, "test_images": 1,
        "scene": {"height": 32, "width": 32, "sizes": [0.15, 0.2]},
    },
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
}  # fmt: skip


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as `train.py fit` leaves it."""
    from autofocusformer.data.module import Images
    from shared.cli import HouseCLI

    folder = tmp_path_factory.mktemp("run")
    patch = pytest.MonkeyPatch()
    patch.setenv("WANDB_MODE", "offline")
    cli = HouseCLI(
        None, Images, paper="autofocusformer", run_dir=folder, args={**TRAINING, "seed_everything": 0}, run=False,
        quiet=True,
    )  # fmt: skip
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    cli.trainer.save_checkpoint(folder / "final.ckpt")
    patch.undo()
    return folder / "final.ckpt"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return folders.save(tmp_path / "in" / "street.png", folders.noise(45, 70))


def test_visualise(ckpt: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["visualise", str(image), "--ckpt", str(ckpt)]) == 0
    out = image.with_name("street_tokens.svg")
    assert capsys.readouterr().out.strip() == str(out)
    text = out.read_text()
    assert "res3: 96 tokens" in text  # a canvas of 16 x 24 (64 x 96 pixels), a quarter
    assert "prediction" in text
    png = image.with_name("resized.png")
    main(["visualise", str(image), "--ckpt", str(ckpt), "--size", "32", "64", "--sampling", "grid", "--out", str(png)])
    assert Image.open(png).size[0] > 500


def test_segment(ckpt: Path, image: Path, tmp_path: Path) -> None:
    folders.save(image.with_name("other.jpg"), folders.noise(32, 33, 1))
    main(["segment", str(image.parent), "--ckpt", str(ckpt), "--out", str(tmp_path / "out")])
    labels = np.asarray(Image.open(tmp_path / "out" / "street.png"))
    assert labels.shape == (45, 70)
    assert labels.max() < 7
    assert Image.open(tmp_path / "out" / "other_colour.png").size == (33, 32)
    assert (tmp_path / "out" / "classes.txt").read_text().split()[:3] == ["top", "bottom", "band"]
    # The network alone says the same.
    from autofocusformer.data.module import one_image

    scores = load(ckpt).scores(one_image(np.asarray(Image.open(image))))
    assert np.array_equal(scores[0].argmax(0)[:45, :70].numpy(), labels)


def test_segment_of_a_network_trained_on_instances(image: Path, tmp_path: Path) -> None:
    """Most pixels are of no instance; class, number and none agree."""
    torch.manual_seed(0)
    module = MaskSegmenter("nano", queries=5)
    module.build(3, ("a", "b", "c"))
    torch.nn.init.zeros_(module.head.predictor.class_embed.weight)
    module.head.predictor.class_embed.bias.data = torch.tensor([0.0, 9.0, 0.0, 0.0])  # all queries are sure of b
    about = {"kind": "MaskSegmenter", "settings": module.settings, "names": ["a", "b", "c"], "small": []}
    for things in (True, False):
        state = {"state_dict": module.state_dict(), "autofocusformer": {**about, "things": things}}
        torch.save(state, tmp_path / "things.ckpt")
        out = tmp_path / f"out{things}"
        main(["segment", str(image.parent), "--ckpt", str(tmp_path / "things.ckpt"), "--out", str(out)])
        labels = np.asarray(Image.open(out / "street.png"))
        assert labels.shape == (45, 70)
        if not things:
            assert set(np.unique(labels)) == {1}
            assert not (out / "street_instances.png").exists()
            continue
        assert set(np.unique(labels)) == {1, 255}
        numbers = np.asarray(Image.open(out / "street_instances.png"))
        assert numbers.dtype == np.uint16
        assert np.array_equal(numbers > 0, labels == 1)
        black = np.asarray(Image.open(out / "street_colour.png")).sum(-1) == 0
        assert np.array_equal(black, labels == 255)
    main(["visualise", str(image), "--ckpt", str(tmp_path / "things.ckpt")])


def test_a_checkpoint_says_whether_it_learned_instances(ckpt: Path) -> None:
    assert load(ckpt).things is False


def test_export_tokens(ckpt: Path, image: Path) -> None:
    main(["export_tokens", str(image), "--ckpt", str(ckpt)])
    with np.load(image.with_suffix(".npz")) as found:
        assert found["res2_positions"].shape == (384, 2)
        assert found["res5_features"].shape == (6, 64)
        assert ((found["res4_importance"] > 0) & (found["res4_importance"] < 1)).all()


def test_released_weights_are_read_with_a_variant(image: Path, tmp_path: Path) -> None:
    model = AutoFocusFormer(VARIANTS["nano"], 10)
    torch.save({"model": model.state_dict()}, tmp_path / "nano.pth")
    main(["visualise", str(image), "--ckpt", str(tmp_path / "nano.pth"), "--variant", "nano"])
    loaded = load(tmp_path / "nano.pth", "nano")
    assert torch.equal(loaded.backbone.head.weight, model.head.weight)
    average = AutoFocusFormer(VARIANTS["nano"], 10).state_dict()
    torch.save({"model": model.state_dict(), "model_ema": average}, tmp_path / "both.pth")
    assert torch.equal(load(tmp_path / "both.pth", "nano").backbone.head.weight, model.head.weight)
    assert torch.equal(load(tmp_path / "both.pth", "nano", average=True).backbone.head.weight, average["head.weight"])
    with pytest.raises(UserError, match="say of which network"):
        load(tmp_path / "nano.pth")
    with pytest.raises(UserError, match="is a classifier: segmenting needs"):
        main(["segment", str(image.parent), "--ckpt", str(tmp_path / "nano.pth"), "--variant", "nano", "--out", "x"])


@pytest.mark.slow
def test_the_classifier_is_exported_and_says_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoFocusFormer(VARIANTS["nano"], 10)
    torch.save({"model": model.state_dict()}, tmp_path / "nano.pth")
    out = tmp_path / "nano.pt2"
    common = ["--ckpt", str(tmp_path / "nano.pth"), "--variant", "nano", "--size", "64", "96"]
    main(["export", *common, "--batch", "2", "--out", str(out)])
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model.eval()(images)
        found = torch.export.load(out).module()(images)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (96, 128)])
def test_torchscript_says_the_same(size: tuple[int, int], tmp_path: Path) -> None:
    """Of images other than the one it was traced with."""
    torch.manual_seed(0)
    model = AutoFocusFormer(VARIANTS["nano"], 10).eval()
    for stage in model._stages()[:-1]:
        torch.nn.init.normal_(stage.prob_net.weight)  # importances that leave the grid, differently for each image
    torch.save({"model": model.state_dict()}, tmp_path / "nano.pth")
    out = tmp_path / "nano.ts"
    common = ["--ckpt", str(tmp_path / "nano.pth"), "--variant", "nano", "--size", str(size[0]), str(size[1])]
    main(["export", *common, "--form", "torchscript", "--batch", "2", "--out", str(out)])
    with torch.no_grad():
        for images in torch.randn(3, 2, 3, *size):
            assert torch.allclose(torch.jit.load(out)(images), model(images), atol=1e-5)


def test_what_cannot_be_exported_says_why() -> None:
    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.sum().item() > 0 else x

    model = Branching()
    with pytest.raises(UserError, match="cannot be exported as torch-export: ") as error:
        exported(model, "torch-export", 4, 4)
    assert "\n" not in str(error.value)
    assert model.training  # as it was before


@pytest.mark.parametrize("training", [False, True])
def test_exporting_leaves_the_network_in_its_mode(training: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), torch.nn.Dropout(0.5)).train(training)
    assert exported(model, "torchscript", 4, 4)
    assert [module.training for module in model.modules()] == [training] * 3


def test_segmenting_refuses_names_that_clash(ckpt: Path, image: Path, tmp_path: Path) -> None:
    for other in ("street.jpg", "street_colour.png"):
        path = folders.save(image.with_name(other), folders.noise(32, 33))
        with pytest.raises(UserError, match=rf"{other.replace('.', '[.]')}.*would be written to") as error:
            main(["segment", str(image.parent), "--ckpt", str(ckpt), "--out", str(tmp_path / "out")])
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
        path.unlink()


@pytest.mark.parametrize("command", ["validate", "predict"])
def test_training_has_no_other_commands(command: str) -> None:
    train = Path(__file__).parents[1] / "train.py"
    config = train.with_name("configs") / "synthetic.yaml"
    done = subprocess.run(
        [sys.executable, str(train), command, "--config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    (line,) = done.stderr.strip().splitlines()
    assert command in line
    assert "fit" in line
    assert "test" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["visualise", "{image}", "--ckpt", "nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["visualise", "nowhere.png", "--ckpt", "{ckpt}"], r"nowhere\.png is missing"),
        (["visualise", "{image}", "--ckpt", "{ckpt}", "--size", "0", "9"], "--size 0 9"),
        (["visualise", "{image}", "--ckpt", "{ckpt}", "--sampling", "dense"], "unknown sampling 'dense'"),
        (["visualise", "{image}", "--ckpt", "{ckpt}", "--sampling", "oracle"], "which needs labels"),
        (["visualise", "{image}", "--ckpt", "no.ckpt", "--out", "{folder}/none/a.svg"], "none is no folder: make"),
        (
            ["visualise", "{image}", "--ckpt", "no.ckpt", "--out", "{folder}/a.bmp2"],
            r"a\.bmp2: a picture is written",
        ),
        (["visualise", "{image}", "--ckpt", "no.ckpt", "--out", "{folder}/a"], "a: a picture is written as .*png"),
        (
            ["export_tokens", "{image}", "--ckpt", "no.ckpt", "--out", "{folder}/none/a.npz"],
            "none is no folder: make",
        ),
        (["segment", "{image}", "--ckpt", "{ckpt}", "--out", "{folder}/o"], "is no folder"),
        (["segment", "{folder}", "--ckpt", "no.ckpt", "--out", "{image}"], "street.png is a file: give a folder"),
        (["segment", "{folder}", "--ckpt", "{ckpt}", "--out", "{folder}"], "is the folder of the images"),
        (["export", "--out", "x"], "export needs --ckpt, or --variant"),
        (["export", "--ckpt", "{ckpt}", "--out", "x"], "is no classifier"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], says: str, ckpt: Path, image: Path) -> None:
    filled = [part.format(image=image, ckpt=ckpt, folder=image.parent) for part in arguments]
    with pytest.raises(UserError, match=says) as error:
        main(filled)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["visualise", "{image}", "--ckpt", "no.ckpt", "--out", "/proc/x.svg"],
        ["export_tokens", "{image}", "--ckpt", "no.ckpt", "--out", "/proc/x.npz"],
        ["segment", "{folder}", "--ckpt", "no.ckpt", "--out", "/proc/x"],
        ["export", "--variant", "nano", "--out", "/proc/x.pt2"],
        ["export", "--variant", "nano", "--out", "{folder}/none/x.pt2"],
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(arguments: list[str], image: Path) -> None:
    """No checkpoint is read, nothing is computed."""
    filled = [part.format(image=image, folder=image.parent) for part in arguments]
    with pytest.raises(UserError, match=r"--out .*(choose another|make it first)") as error:
        main(filled)
    assert "\n" not in str(error.value)


def test_an_oracle_s_network_needs_another_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = {**TRAINING, "model": {**TRAINING["model"], "init_args": {"backbone": {"sampling": "oracle"}}}}
    assert run(config, 0, tmp_path)["test/budget/2"] == 0.25
