"""W&B's log of a run: whole when the run is over, its own whatever came before, and never in the way."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from shared.cli import train_and_test
from shared.tracking import finish, house_logger, wandb_key_configured
from toy_training import CONFIG, Rows, TwoLayers
from wandb_file import records


@pytest.fixture(autouse=True)
def own_service(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    finish()


def log_of(run_dir: Path) -> list:
    (file,) = run_dir.glob("wandb/offline-run-*/run-*.wandb")
    return records(file)


def exit_code(run_dir: Path) -> int:
    assert log_of(run_dir)[-1].WhichOneof("record_type") == "exit"
    return log_of(run_dir)[-1].exit.exit_code


def test_a_run_that_fails_keeps_its_log_and_leaves_the_next_its_own(tmp_path: Path) -> None:
    no_such = {**CONFIG, "trainer": {**CONFIG["trainer"], "accelerator": "abacus"}}  # found after W&B has begun
    with pytest.raises(ValueError, match="abacus"):
        train_and_test(TwoLayers, Rows, no_such, 0, tmp_path / "first", "toy", "fails", "quick")
    assert wandb.run is None
    train_and_test(TwoLayers, Rows, CONFIG, 0, tmp_path / "second", "toy", "works", "quick")
    assert exit_code(tmp_path / "first") == 1
    assert exit_code(tmp_path / "second") == 0
    assert not [r for r in log_of(tmp_path / "first") if r.WhichOneof("record_type") == "history"]


DIES = """
import os, signal, sys
from pathlib import Path
from shared.tracking import house_logger
house_logger(Path(sys.argv[1]), "toy", "first", "quick", {})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_goes_on_though_wandb_holds_its_id_for_a_process_that_was_killed(tmp_path: Path) -> None:
    house_logger(tmp_path / "parent", "toy", "first", "quick", {})  # its service is that of its children too
    wandb.finish()
    killed = subprocess.run([sys.executable, "-c", DIES, str(tmp_path / "0123")], check=False)
    assert killed.returncode == -signal.SIGKILL
    logger = house_logger(tmp_path / "0123", "toy", "first", "quick", {})
    assert logger.experiment.id.startswith("0123-")


def test_a_key_that_wandb_refuses_means_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    logger = house_logger(tmp_path / "0123", "toy", "first", "quick", {})
    assert logger.experiment.offline
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "does not answer" in line]
    assert "40+ characters" in line
    assert line.endswith("logging offline, see `make dashboard`")


def test_what_is_no_trouble_of_wandb_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wandb, "init", full)
    with pytest.raises(OSError, match="No space left"):
        house_logger(tmp_path / "0123", "toy", "first", "quick", {})


def test_a_key_is_found_where_wandb_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not wandb_key_configured()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password abc\n")
    (tmp_path / "netrc").chmod(0o600)
    assert wandb_key_configured()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not wandb_key_configured()
    monkeypatch.setenv("WANDB_API_KEY", "abc")
    assert wandb_key_configured()
