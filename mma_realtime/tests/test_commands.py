"""`train.py` and `reproduce.py` as a user types them: a run, a kill, its test, two processes, and mistakes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mma_realtime.search.model_file import SearchModel
from shared.runs.plan import read_yaml

HERE = Path(__file__).resolve().parent.parent
FIT = [
    "--config", "mma_realtime/configs/detector.yaml", "--model.members", "2", "--model.pretrain_steps", "4",
    "--data.bank_size", "40", "--data.noise_seconds", "32", "--data.batch_size", "8", "--data.steps_per_epoch", "3",
    "--data.validation_windows", "16", "--data.first_phase", "0", "--trainer.max_epochs", "3",
    "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--data.seed", "4",
    "--model.search", "{noise_windows: 0, events: [], stand_in: false, calibration: 100, near: 20}",
]  # fmt: skip


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=HERE.parent, capture_output=True, text=True, check=False, timeout=250,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "DATA_ROOT": "none", **environment},
    )  # fmt: skip


def train(verb: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return command("mma_realtime/train.py", verb, *FIT, *arguments, **environment)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run from the command line."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = train("fit", "--run_dir", str(folder))
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"run: {folder}" in done.stdout
    return folder


@pytest.mark.slow
def test_a_run_leaves_its_configuration_and_its_networks(trained: Path) -> None:
    assert {"config.yaml", "final.ckpt"} <= {path.name for path in trained.iterdir()}
    assert not (trained / "last.ckpt").exists()
    config = read_yaml(trained / "config.yaml")
    assert (config["model"]["members"], config["data"]["bank_size"]) == (2, 40)
    state = torch.load(trained / "final.ckpt", weights_only=True)
    assert state["global_step"] == 9
    assert state["SimulatedBBH"]["handed_out"] == 9


KILLED = """
import os, signal, sys
sys.argv = sys.argv[1:]
from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.trial import Trial
from shared.cli import HouseCLI
step = Trial.training_step
def training_step(self, *batch):
    if self.global_step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *batch)
Trial.training_step = training_step
HouseCLI(Trial, SimulatedBBH, paper="mma_realtime", every_seconds=0.0)
"""


@pytest.mark.slow
def test_the_same_command_after_a_kill_ends_with_the_same_bits(trained: Path) -> None:
    folder = trained.parent / "killed"
    arguments = ["fit", *FIT, "--run_dir", str(folder)]
    dead = command("-c", KILLED, "train.py", *arguments)
    assert dead.returncode == -signal.SIGKILL, dead.stderr[-2000:]
    assert (folder / "last.ckpt").is_file()
    assert not (folder / "final.ckpt").exists()
    done = command("mma_realtime/train.py", *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    whole, resumed = (torch.load(path / "final.ckpt", weights_only=True) for path in (trained, folder))
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    for ours, theirs in zip(whole["optimizer_states"], resumed["optimizer_states"], strict=True):
        for place, state in ours["state"].items():
            assert all(torch.equal(value, theirs["state"][place][key]) for key, value in state.items())
    for key in ("curves", "SimulatedBBH", "global_step", "begun"):
        assert whole[key] == resumed[key], key


@pytest.mark.slow
def test_a_trained_run_is_validated_and_measured(trained: Path, tmp_path: Path) -> None:
    given = ["--ckpt_path", str(trained / "final.ckpt"), "--run_dir", str(tmp_path)]
    done = train("validate", *given, "--trainer.limit_val_batches", "1.0")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "val/partial_auroc" in done.stdout
    done = train("test", *given)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "calibrated/threshold" in done.stdout
    model = SearchModel.load(tmp_path / "search_model.pt")
    state = torch.load(trained / "final.ckpt", weights_only=True)["state_dict"]
    for number, member in enumerate(model.members):
        for name, value in member.state_dict().items():
            assert torch.equal(value, state[f"members.{number}.{name}"])


@pytest.mark.slow
def test_two_processes_train_and_one_of_them_measures(tmp_path: Path) -> None:
    # Below the ports that the system gives out, of which a test beside this one may get the one chosen here.
    port = str(20_000 + os.getpid() % 10_000)
    two = ["--trainer.strategy", "ddp_find_unused_parameters_true", "--trainer.devices", "2"]
    done = train("fit", *two, "--run_dir", str(tmp_path), MASTER_PORT=port)
    assert done.returncode == 0, done.stderr[-2000:]
    assert torch.load(tmp_path / "final.ckpt", weights_only=True)["global_step"] == 9
    given = ["--ckpt_path", str(tmp_path / "final.ckpt"), "--run_dir", str(tmp_path)]
    done = train("test", *two, *given, MASTER_PORT=str(int(port) + 1))
    assert done.returncode == 0, done.stderr[-2000:]
    assert SearchModel.load(tmp_path / "search_model.pt").recipe.network == "deepfilter_shallow"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mma_realtime/train.py", "fit", *FIT, "--model.lrr", "3"], "unknown key"),
        (["mma_realtime/train.py", "fit", *FIT, "--data.detectors", "3"], "detectors is 3: 1, which stands for any"),
        (["mma_realtime/train.py", "fit", *FIT, "--model.search", "{sinals: 3}"], "unknown key 'search.sinals'"),
        (["mma_realtime/reproduce.py", "--tier", "huge"], "mma_realtime has no tier huge"),
    ],
)
def test_a_mistake_is_one_line_and_status_two(arguments: list[str], says: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
