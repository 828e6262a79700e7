"""Training from the command line: what a run leaves, and that a killed one ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from autofocusformer.trained import load

ROOT = Path(__file__).resolve().parent.parent.parent
FIT = [
    "autofocusformer/train.py", "fit", "--config", "autofocusformer/configs/synthetic.yaml",
    "--data.batch_size", "2", "--data.iterations", "2", "--data.train_images", "6", "--data.colour", "0.5",
    "--data.scene.height", "32", "--data.scene.width", "32", "--data.scene.sizes", "[0.15, 0.2]",
    "--trainer.max_epochs", "3", "--trainer.enable_progress_bar", "false",
]  # fmt: skip
KILLED = """
import os, signal, sys
sys.argv = sys.argv[1:]
from autofocusformer.data.module import Images
from autofocusformer.module import Segmenter
from shared.cli import HouseCLI
step = Segmenter.training_step
def training_step(self, batch, index):
    if self.global_step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, index)
Segmenter.training_step = training_step
HouseCLI(None, Images, paper="autofocusformer", every_seconds=0.0)
"""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_run_ends_with_the_bits_of_one_left_alone(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = command(*FIT, "--run_dir", str(whole))
    assert done.returncode == 0, done.stderr
    assert f"run: {whole}" in done.stdout
    assert {"config.yaml", "final.ckpt"} <= {path.name for path in whole.iterdir()}
    assert load(whole / "final.ckpt").names[:3] == ("top", "bottom", "band")

    assert command("-c", KILLED, *FIT, "--run_dir", str(killed)).returncode == -signal.SIGKILL
    assert (killed / "last.ckpt").is_file()
    assert not (killed / "final.ckpt").exists()
    done = command(*FIT, "--run_dir", str(killed))
    assert done.returncode == 0, done.stderr
    ours, theirs = (torch.load(path / "final.ckpt", weights_only=True) for path in (whole, killed))
    assert ours["curves"] == theirs["curves"]
    assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in ours["state_dict"].items())
    for one, two in zip(ours["optimizer_states"], theirs["optimizer_states"]):
        for place, state in one["state"].items():
            assert all(torch.equal(value, two["state"][place][key]) for key, value in state.items())
