"""Every experiment of every tier runs, and the commands say what is wrong on one line."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rpgan_landscape.experiment import data_fingerprint, run, run_together
from shared.runs.plan import load_plan, merge

from rpgan_landscape import evaluation

HERE = Path(__file__).resolve().parent.parent
TIERS = ("quick", "cpu", "gpu", "paper")


def first_of_each_kind() -> list[Any]:
    """One experiment for each configuration file that a tier uses: its variants differ in numbers only."""
    out = []
    for tier in TIERS:
        seen: set[str] = set()
        for experiment in load_plan(HERE, tier).experiments:
            kind = f"{experiment.name.split('_')[0]} {experiment.config.get('model', {}).get('network')}"
            if kind not in seen and (tier in ("gpu", "paper") or kind.split()[0] in ("gaussians5", "mnist57")):
                seen.add(kind)
                out.append(pytest.param(tier, experiment, id=f"{tier}-{experiment.name}"))
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("tier", "experiment"), first_of_each_kind())
def test_one_step_of_every_kind_of_experiment(
    tier: str, experiment: Any, tmp_path: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(evaluation, "train_classifier", partial(evaluation.train_classifier, steps=5))
    config = merge(experiment.config, {"trainer": {"fast_dev_run": True, "accelerator": "cpu"}})
    if "data" in config and config["data"]["dataset"] not in ("two_cluster", "gaussians"):
        folder = toy_data / "tower" if config["data"]["dataset"] == "image_folder" else toy_data
        small = {"batch_size": min(config["data"].get("batch_size", 64), 16)}
        config = merge(config, {"data": {"root": str(folder), **small}})
        if "evaluation" in config["model"] and config["data"]["dataset"] in ("stl10", "image_folder"):
            config["model"]["evaluation"] = None  # no classes to train features on: Inception weights are a user's
        if config["model"]["network"].startswith(("resnet", "cnn256")):
            config["model"]["width"] = 8
    assert data_fingerprint(config)[1] in ("real", "recipe", "exact", "embedded")
    if experiment.together:
        found = run_together(config, experiment.seeds[:1], tmp_path, experiment.name, tier)[experiment.seeds[0]]
    else:
        found = run(config, experiment.seeds[0], tmp_path, experiment.name, tier)
    assert found
    if "model" in config:
        assert found["plan/parameters of G"] > 1000
        assert found["plan/hours here"] > 0


def test_the_reference_settings_of_section_8() -> None:
    rows = {
        "cifar_cnn_64_rs": ("cnn32", 64, (0.5, 0.999), 5e-4, 2e-4, 1),
        "cifar_resnet_256_rs": ("resnet32", 256, (0.0, 0.9), 1.5e-3, 2e-4, 5),
        "stl_cnn_64_rs": ("cnn48", 64, (0.5, 0.999), 5e-4, 2e-4, 1),
        "stl_resnet_64_rs": ("resnet48", 64, (0.5, 0.999), 1e-3, 2e-4, 5),
        "lsun_256_rs": ("cnn256", 32, (0.5, 0.999), 1e-3, 2e-4, 1),
    }
    plan = {experiment.name: experiment.config for experiment in load_plan(HERE, "paper").experiments}
    for name, (network, width, betas, lr_g, lr_d, d_steps) in rows.items():
        model, data = plan[name]["model"], plan[name]["data"]
        assert (model["network"], model["width"], tuple(model["betas"])) == (network, width, betas)
        assert (model["lr_g"], model["lr_d"], model.get("d_steps", 1)) == (lr_g, lr_d, d_steps)
        assert (model["decay_from"], data["batch_size"]) == (0.5, 64)
        assert data["iterations"] * plan[name]["trainer"]["max_epochs"] == 100_000
        twin = plan[name.replace("_rs", "_js")]["model"]
        assert {**model, "pairing": None} == {**twin, "pairing": None}
        assert (model["pairing"], twin["pairing"]) == ("batch", "separable")


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=HERE, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train.py", "fit", "--config", "configs/gaussians.yaml", "--model.kind", "logit"], "kind"),
        (
            ["train.py", "fit", "--config", "configs/gaussians.yaml", "--data.dataset", "gauss"],
            "did you mean gaussians",
        ),
        (["train.py", "fit", "--config", "configs/mnist57.yaml"], "mnist is missing"),
        (["reproduce.py", "--tier", "huge"], "rpgan_landscape has no tier huge"),
        (["-m", "rpgan_landscape.analyse", "--loss", "jsd", "--n", "3"], "jsd"),
        (["-m", "rpgan_landscape.analyse", "--loss", "w", "--n", "3"], "w"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = command(*arguments, DATA_ROOT=str(tmp_path))
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_train_from_the_command_line(tmp_path: Path) -> None:
    done = command(
        "train.py", "fit", "--config", "configs/gaussians.yaml", "--trainer.max_epochs", "1", "--data.iterations", "3",
        "--trainer.enable_progress_bar", "false", "--run_dir", str(tmp_path / "run"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "final.ckpt").is_file()
    assert "modes" in done.stdout
