"""`train.py` trains what a configuration holds: every one that has something to train takes a step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mma_realtime.data.glitch_windows import GlitchWindows
from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.denoising import Denoising, SignalWindows
from mma_realtime.glitch_classifier import GlitchClassifier
from mma_realtime.training import MEASUREMENTS, main, prepared
from mma_realtime.trial import Trial
from shared.errors import UserError
from shared.runs.plan import read_yaml

torch.set_num_threads(1)
HERE = Path(__file__).resolve().parent.parent
FILES = sorted((HERE / "configs").glob("*.yaml"))
TRAINED = [path for path in FILES if not set(MEASUREMENTS) & set(read_yaml(path))]
MEASURED = [path for path in FILES if path not in TRAINED]
KINDS = {"glitches": (GlitchClassifier, GlitchWindows), "denoiser": (Denoising, SignalWindows)}
STEP = [
    "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false", "--data.bank_size=40", "--data.noise_seconds=64", "--data.batch_size=8",
    "--data.noise=white",
]  # fmt: skip
SMALL = {
    "coherent_resnet": ['--model.size={"widths": [8], "blocks": [1], "groups": 4}'],
    "wavenet": ["--model.members=1"],
}


@pytest.fixture(autouse=True)
def nothing_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.mark.slow
@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in TRAINED])
def test_every_configuration_that_has_a_training_takes_a_step(path: Path, tmp_path: Path) -> None:
    cli = main(["fit", "--config", str(path), *STEP, *SMALL.get(path.stem, [])], tmp_path)
    expected = KINDS.get(path.stem, (Trial, SimulatedBBH))
    assert (type(cli.model), type(cli.datamodule)) == expected
    assert cli.trainer.global_step >= 1
    assert all(parameter.isfinite().all() for parameter in cli.model.parameters())
    assert sum(parameter.numel() for parameter in cli.model.parameters()) > 100


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in MEASURED])
def test_a_measurement_is_no_training(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{path.name}: '\w+' is measured, there is nothing to train"):
        prepared(["fit", f"--config={path}"], tmp_path)


@pytest.mark.parametrize("form", ["--config {}", "-c {}", "--config={}"])
def test_a_network_alone_is_the_model_in_the_file_of_its_name(form: str, tmp_path: Path) -> None:
    path = HERE / "configs" / "glitches.yaml"
    kind, argv = prepared(["fit", *form.format(path).split(" "), "--trainer.max_epochs", "2"], tmp_path)
    assert kind == KINDS["glitches"]
    assert (argv[0], argv[-2:], len(argv)) == ("fit", ["--trainer.max_epochs", "2"], 3 + len(form.split(" ")))
    new = Path(argv[-3].removeprefix("--config="))
    assert new.name == path.name
    before, after = read_yaml(path), read_yaml(new)
    assert after.pop("model") == before.pop("glitch_classifier")
    assert after == before


def test_twins_are_left_to_the_experiment_and_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind, argv = prepared(["fit", "--config", str(HERE / "configs" / "ensemble.yaml")], tmp_path)
    assert kind == (Trial, SimulatedBBH)
    assert "ensemble.yaml: 'twin' is left out" in capsys.readouterr().out
    assert "twin" not in read_yaml(Path(argv[2]))
    assert read_yaml(Path(argv[2]))["model"]["members"] == 4


def test_other_command_lines_stay_as_they_are(tmp_path: Path) -> None:
    argv = ["fit", "--config", str(HERE / "configs" / "detector.yaml"), "--config", "missing.yaml", "--config"]
    assert prepared(argv, tmp_path) == ((Trial, SimulatedBBH), argv)


def test_two_networks_in_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("model: {}\ndenoiser: {}\n")
    with pytest.raises(UserError, match=r"two\.yaml: 'model' and 'denoiser' are two networks"):
        prepared(["fit", "--config", str(tmp_path / "two.yaml")], tmp_path)
