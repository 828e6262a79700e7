"""The command line and the library call: configuration errors, what a run leaves, and going on after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from shared.cli import HouseCLI, train_and_test
from shared.errors import UserError, one_line_errors
from toy_training import CONFIG, Rows, TwoLayers, WithResults

TOY = Path(__file__).parent / "toy_training.py"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def run(folder: Path, model: type = WithResults, config: dict | None = None, seed: int = 7, **kwargs) -> dict:
    return train_and_test(model, Rows, config or CONFIG, seed, folder, "toy", "left_alone", "quick", **kwargs)


def toy(*args: str, root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TOY_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(TOY), *args], env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_killed_run_ends_with_the_bits_of_one_left_alone(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    killed = toy("die", str(tmp_path / "killed"), root=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run(tmp_path / "killed", every_seconds=0)
    assert whole["epochs"] == [0, 1, 2, 3, 4, 5]
    assert resumed["epochs"] == [3, 4, 5]
    assert resumed["state"] == whole["state"]
    assert not list((tmp_path / "killed").glob("*.tmp"))


def test_a_run_killed_after_its_last_epoch_only_tests(tmp_path: Path) -> None:
    whole = run(tmp_path, every_seconds=0)
    again = run(tmp_path, every_seconds=0)
    assert again["epochs"] == []
    assert again["state"] == whole["state"]


@pytest.mark.parametrize("stops_after", [1, 4])
def test_resuming_counts_steps_as_well_as_epochs(tmp_path: Path, stops_after: int) -> None:
    first = deepcopy(CONFIG)
    first["trainer"]["max_epochs"] = stops_after
    run(tmp_path / "two_legs", config=first, every_seconds=0)
    checkpoint = torch.load(tmp_path / "two_legs" / "last.ckpt", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (stops_after, stops_after * 5 * 2)
    resumed = run(tmp_path / "two_legs", every_seconds=0)
    assert resumed["epochs"] == list(range(stops_after, 6))
    assert resumed["state"] == run(tmp_path / "whole")["state"]


def test_checkpoints_are_as_far_apart_as_asked(tmp_path: Path) -> None:
    run(tmp_path, every_seconds=1e6)
    assert not (tmp_path / "last.ckpt").exists()


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(tmp_path, every_seconds=0)
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"last\.ckpt is damaged: delete it"):
        run(tmp_path)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pytorch_lightning.Trainer.save_checkpoint", full)
    with pytest.raises(UserError, match=r"no space left to write .*last\.ckpt"):
        run(tmp_path, every_seconds=0)


def test_metrics_of_training_and_test_come_back_where_the_module_has_no_results(tmp_path: Path) -> None:
    metrics = run(tmp_path, TwoLayers)
    assert set(metrics) == {"train/loss", "val/loss", "test/loss"}
    assert metrics["test/loss"] == metrics["val/loss"]  # the same rows, after the same training
    assert all(isinstance(value, float) for value in metrics.values())


def test_the_seed_chooses_the_run(tmp_path: Path) -> None:
    assert run(tmp_path / "a", seed=1)["state"] != run(tmp_path / "b", seed=2)["state"]
    assert run(tmp_path / "c", seed=1)["state"] == run(tmp_path / "a2", seed=1)["state"]


def test_a_run_says_nothing_and_saves_its_configuration(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    run(tmp_path, config={**CONFIG, "seed_everything": 3})
    assert "".join(capfd.readouterr()) == ""
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["seed_everything"] == 7
    assert saved["model"] == {"width": 3, "lr": 0.1, "die_at": None}
    assert run(tmp_path / "again", config=saved)["state"] == run(tmp_path)["state"]


WRONG = [
    ({"model": {"widht": 3}}, "configuration: unknown key 'model.widht'"),
    ({"modle": {"width": 3}}, "configuration: unknown key 'modle.width'"),
    ({"trainer": {"max_epoch": 3}}, "configuration: unknown key 'trainer.max_epoch'"),
    ({"model": {"width": "wide"}}, "configuration: 'model.width' has to be int, got 'wide'"),
    ({"trainer": {"max_epochs": "many"}}, "configuration: 'trainer.max_epochs' has to be int or None, got 'many'"),
    ({"data": 3}, "configuration: 'data' has to be a mapping, got 3"),
]


@pytest.mark.parametrize(("config", "line"), WRONG)
def test_a_wrong_configuration_is_one_line_that_names_the_key(
    config: dict, line: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(UserError) as caught:
        run(tmp_path, config=config)
    assert str(caught.value) == line
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as stopped, one_line_errors():
        HouseCLI(TwoLayers, Rows, paper="toy", root=tmp_path, args=["fit", f"--config={file}"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"widht": 3}, "configuration: unknown key 'model.init_args.widht' (in toy_training.TwoLayers)"),
        (
            {"width": "x"},
            "configuration: 'model.init_args.width' has to be int, got 'x' (in toy_training.TwoLayers)",
        ),
        ({"lr": -1.0}, "configuration: lr is -1.0: it has to be positive"),
    ],
)
def test_so_is_one_that_names_the_model_by_its_class(arguments: dict, line: str, tmp_path: Path) -> None:
    config = {"model": {"class_path": "toy_training.TwoLayers", "init_args": arguments}}
    with pytest.raises(UserError) as caught:
        train_and_test(None, Rows, config, 1, tmp_path, "toy", "wrong", "quick")
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fit", "--config=none.yaml"], "'config': File does not exist"),
        (["fit", "--model.widht=3"], "unknown key 'model.widht'"),
        (["fit", "--model.width=z"], "'model.width' has to be int, got 'z'"),
        (["fti"], "invalid choice: 'fti' (choose from 'fit', 'validate', 'test')"),
    ],
)
def test_a_wrong_command_line_is_one_line(args: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        HouseCLI(TwoLayers, Rows, paper="toy", args=args)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fit_as_a_user_types_it(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(CONFIG))
    done = toy("fit", "--config", str(file), "--trainer.max_epochs=2", root=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "fit").glob("small-*")
    assert f"run: {folder}  train/loss" in " ".join(done.stdout.split("\n")).replace("\n", "")
    assert (folder / "final.ckpt").is_file()
    assert not (folder / "last.ckpt").exists()
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_epochs"] == 2
    assert "Epoch 1/1" in done.stdout  # the rich bar
    for noise in ("GPU", "Tip", "num_workers", "wandb:"):
        assert noise not in done.stdout + done.stderr


def test_fast_dev_run_leaves_nothing(tmp_path: Path) -> None:
    HouseCLI(TwoLayers, Rows, paper="toy", root=tmp_path, quiet=True, args=["fit", "--trainer.fast_dev_run=true"])
    assert not list(tmp_path.iterdir())
