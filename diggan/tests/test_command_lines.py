"""The commands as a user types them, and their mistakes on one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diggan.evaluate import main as evaluate
from diggan.module import DigGAN
from shared.errors import UserError
from shared.runs.plan import read_yaml

from diggan import bench

HERE = Path(__file__).resolve().parent.parent
FIT = [
    "diggan/train.py", "fit", "--config", "diggan/configs/digits.yaml", "--config", "diggan/configs/dig.yaml",
    "--model.width", "16", "--model.samples", "60", "--model.ema_start", "3", "--data.iterations", "3",
    "--trainer.max_epochs", "3", "--trainer.enable_progress_bar", "false",
]  # fmt: skip


def command(*arguments: str, cwd: Path = HERE.parent, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run from the command line."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = command(*FIT, "--run_dir", str(folder))
    assert done.returncode == 0, done.stderr
    assert f"run: {folder}" in done.stdout
    assert "val/fid" in done.stdout
    return folder


@pytest.mark.slow
def test_a_run_leaves_its_configuration_its_images_and_its_networks(trained: Path) -> None:
    assert {"config.yaml", "subset.json", "final.ckpt"} <= {path.name for path in trained.iterdir()}
    assert not (trained / "last.ckpt").exists()
    model = read_yaml(trained / "config.yaml")["model"]
    assert (model["regulariser"], model["weight"], model["network"]) == ("dig", 100.0, "mlp64")
    state = torch.load(trained / "final.ckpt", weights_only=True)
    assert state["gan"]["iteration"] == 9
    assert state["state_dict"]["regulariser.s_real"].shape == (32,)


KILLED = """
import os, signal, sys
sys.argv = sys.argv[1:]
from diggan.data import LimitedImages
from diggan.module import DigGAN
from shared.cli import HouseCLI
step = DigGAN.training_step
def training_step(self, batch, batch_idx):
    if self.game.iteration == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, batch, batch_idx)
DigGAN.training_step = training_step
HouseCLI(DigGAN, LimitedImages, paper="diggan", every_seconds=0.0)
"""


@pytest.mark.slow
def test_the_same_command_after_a_kill_ends_with_the_same_bits(trained: Path) -> None:
    folder = trained.parent / "killed"
    arguments = [*FIT, "--run_dir", str(folder)]
    assert command("-c", KILLED, *arguments).returncode == -signal.SIGKILL
    assert (folder / "last.ckpt").is_file()
    assert not (folder / "final.ckpt").exists()
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    whole, resumed = (torch.load(path / "final.ckpt", weights_only=True) for path in (trained, folder))
    assert whole["gan"] == resumed["gan"]
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())
    for ours, theirs in zip(whole["optimizer_states"], resumed["optimizer_states"]):
        for place, state in ours["state"].items():
            assert all(torch.equal(value, theirs["state"][place][key]) for key, value in state.items())
    assert whole["LimitedImages"] == resumed["LimitedImages"]


@pytest.mark.slow
def test_a_trained_generator_is_judged(trained: Path) -> None:
    done = command(
        "-m", "diggan.evaluate", "--ckpt", str(trained / "final.ckpt"), "--features", "local", "--samples", "50"
    )
    assert done.returncode == 0, done.stderr
    for line in (
        "100 trained on; 50 samples, normalised by batch",
        "features: digits-cnn-",
        "FID-local [",
        "IS-local [",
    ):
        assert line in done.stdout
    assert "\nfid " not in done.stdout  # never mistaken for a published one


@pytest.mark.slow
def test_two_processes_from_the_command_line(tmp_path: Path) -> None:
    strategy = ["--trainer.strategy", "ddp_find_unused_parameters_true", "--trainer.devices", "2"]
    # Below the ports that the system gives out, of which a test beside this one may get the one chosen here.
    port, run_dir = str(20_000 + os.getpid() % 10_000), str(tmp_path / "runs" / "two")
    done = command(*FIT, *strategy, "--trainer.accelerator", "cpu", "--run_dir", run_dir, MASTER_PORT=port)
    assert done.returncode == 0, done.stderr[-2000:]
    state = torch.load(tmp_path / "runs" / "two" / "final.ckpt", weights_only=True)
    assert state["gan"]["every process"]["regulariser.s_real"].shape == (2, 32)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint in a run's folder, as training leaves it."""
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: {width: 4}\ndata: {dataset: digits, num_samples: 40}\n")
    torch.save({"state_dict": DigGAN(width=4).state_dict()}, folder / "final.ckpt")
    return folder / "final.ckpt"


def broken(saved: Path, how: str) -> Path:
    if how == "missing":
        return saved.with_name("other.ckpt")
    if how == "alone":
        saved.with_name("config.yaml").unlink()
    if how == "cut":
        saved.write_bytes(saved.read_bytes()[:1000])
    if how == "empty":
        saved.write_bytes(b"")
    if how == "text":
        saved.write_text("not a checkpoint")
    if how in ("list", "tensor", "number"):
        torch.save({"list": [1, 2], "tensor": torch.zeros(3), "number": {"state_dict": 1}}[how], saved)
    if how == "wider":
        saved.with_name("config.yaml").write_text("model: {width: 8}\ndata: {dataset: digits}\n")
    if how == "unknown key":
        saved.with_name("config.yaml").write_text("model: {depth: 8}\ndata: {dataset: digits}\n")
    return saved


@pytest.mark.parametrize(
    ("how", "arguments", "says"),
    [
        ("missing", [], r"other\.ckpt is missing: name the checkpoint in the folder of a run"),
        ("alone", [], r"config\.yaml is missing: name the checkpoint in the folder of a run"),
        ("cut", [], r"final\.ckpt is no checkpoint of this configuration"),
        ("empty", [], r"final\.ckpt is no checkpoint of this configuration"),
        ("text", [], r"final\.ckpt is no checkpoint of this configuration"),
        ("list", [], r"final\.ckpt is no checkpoint of this configuration"),
        ("tensor", [], r"final\.ckpt is no checkpoint of this configuration"),
        ("number", [], r"final\.ckpt is no checkpoint of this configuration"),
        ("wider", [], r"final\.ckpt is no checkpoint of this configuration"),
        ("unknown key", [], "unexpected keyword argument 'depth'"),
        ("whole", ["--features", "inception"], "--features inception needs --inception FILE: the weights are never"),
        ("whole", ["--features", "inception", "--inception", "no.pt"], "no.pt is missing"),
        ("whole", ["--eval-bn", "frozen"], "unknown eval_bn 'frozen': there are batch, running, standing"),
        ("whole", ["--samples", "1"], "1 generated samples: at least 2"),
    ],
)
def test_mistakes_in_judging_are_one_line(saved: Path, how: str, arguments: Sequence[str], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        evaluate(["--ckpt", str(broken(saved, how)), "--samples", "20", *arguments])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m", "diggan.evaluate", "--ckpt", "no.ckpt"], "no.ckpt is missing"),
        (["diggan/train.py", "fit", "--config", "diggan/configs/mnist.yaml"], "mnist is missing"),
        ([*FIT, "--model.variant", "mode"], "'model.variant' has to be Literal['official', 'pair'"),
        ([*FIT, "--model.network", "mlp784"], "network mlp784 takes images of 28 x 28 pixels"),
        (["diggan/reproduce.py", "--tier", "huge"], "diggan has no tier huge"),
    ],
)
def test_a_mistake_ends_with_one_line_and_exit_code_2(arguments: list[str], says: str, tmp_path: Path) -> None:
    more = ["--run_dir", str(tmp_path / "run")] if "fit" in arguments else []
    done = command(*arguments, *more, DATA_ROOT=str(tmp_path))
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("what", "columns"),
    [
        ("cost", ["ratio", "separate", "batch 2+2", "4 G + 8 D", "6 D", "2.00x", "1.79x", "2.33x"]),
        (
            "kernels",
            [
                "fused_diffaugment",
                "grouped_spectral_norm",
                "grad_gap",
                "GB/s",
                "ours / eager",
                "times the floor",
                "– / ",
            ],
        ),
        ("step", ["TFLOP/s", "ch 2, plain", "ch 2, DIG"]),
    ],
)
def test_benchmarks_print_a_table(what: str, columns: list[str], capsys: pytest.CaptureFixture[Any]) -> None:
    bench.main([what, "--ch", "2", "--batch", "2", "--d-steps", "1", "--repeats", "1", "--device", "cpu"])
    printed = capsys.readouterr().out
    for column in columns:
        assert column in printed


def test_kernels_are_not_timed_where_none_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: PyTorch finds no CUDA device here"):
        bench.main(["kernels", "--device", "cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bench, "triton_is_there", lambda: False)
    with pytest.raises(UserError, match="triton is not installed: no kernel would run"):
        bench.main(["kernels", "--device", "cuda"])
    monkeypatch.setattr(bench, "BACKEND", "reference")
    with pytest.raises(UserError, match="KERNEL_BACKEND is reference: no kernel would run"):
        bench.main(["kernels", "--device", "cuda"])


@pytest.mark.slow
def test_benchmarks_run_from_the_command_line() -> None:
    done = command("-m", "diggan.bench", "cost", "--ch", "2", "--batch", "2", "--repeats", "1", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "D + DIG" in done.stdout
    assert command("-m", "diggan.bench", "speed").returncode == 2
