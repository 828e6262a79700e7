"""A training that is measured as a search: what is measured, what it leaves, what it begins as."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as L
import torch
from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.data.strain import write_npz
from mma_realtime.errors import SearchError
from mma_realtime.evaluation.stand_in import stand_in
from mma_realtime.evaluation.yardstick import Settings
from mma_realtime.models import build
from mma_realtime.search.bank import Bank
from mma_realtime.search.model_file import Recipe, SearchModel
from mma_realtime.trial import FILE, Measurements, Trial
from shared.errors import UserError

from mma_realtime import trial

torch.set_num_threads(1)
DATA: dict[str, Any] = {
    "bank_size": 400, "noise_seconds": 64.0, "batch_size": 32, "steps_per_epoch": 40, "validation_windows": 32,
    "snr_start": [20.0, 40.0], "snr_end": [10.0, 30.0], "seed": 5,
}  # fmt: skip
NOTHING: dict[str, Any] = {
    "noise_windows": 0, "events": [], "stand_in": False, "calibration": 0,
    "near": math.inf,  # of a step or two nothing is learnt
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "none"))


def trained(folder: Path, search: dict[str, Any], data: dict[str, Any] | None = None, epochs: int = 1, **model: Any):
    L.seed_everything(0, verbose=False)
    module, windows = Trial(search={**NOTHING, **search}, **model), SimulatedBBH(**{**DATA, **(data or {})})
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, windows)
    trainer.test(module, windows, verbose=False)
    return module


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with one of the two events: the stand-in's strain under its name."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "gwosc").mkdir()
    write_npz(stand_in()[0], folder / "gwosc" / "event_GW150914.npz")
    return folder


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trial, Path]:
    folder = tmp_path_factory.mktemp("run")
    search = {
        "noise_windows": 10_000, "signals": 200, "events": ["GW150914", "GW170104"], "stand_in": True, "speed": 20,
        "calibration": 200, "near": 0.5, "ideal_trials": 10_000, "alert": 150,
    }  # fmt: skip
    data = {"root": str(root), "steps_per_epoch": 120}
    return trained(folder, search, data, 2, members=2, lr=2e-3, pretrain_steps=60), folder


@pytest.mark.slow
def test_all_that_was_asked_is_measured(run: tuple[Trial, Path]) -> None:
    found = run[0].results()
    assert found["tpr/fap1e-2/snr12"] > 0.8  # it has learnt
    assert found["tpr/fap1e-2/snr12"] >= found["tpr/fap1e-2/snr6"]
    # A known waveform finds SNR 8 nearly always: the share is the network's own.
    assert found["ideal_share/fap1e-3/snr8"] == pytest.approx(found["tpr/fap1e-3/snr8"], rel=0.02)
    assert found["ideal_share/fap1e-3/snr8"] >= found["tpr/fap1e-3/snr8"]
    assert (found["windows/noise"], found["windows/signals"]) == (10_000, 200)
    assert found["chirp_mass_error/snr20"] < 1
    for event in ("GW150914", "stand_in"):
        assert found[f"events/{event}/above_all"] == 1.0
        assert found[f"events/{event}/time_error"] < 0.25
    assert found["events/GW150914/statistic"] == pytest.approx(found["events/stand_in/statistic"], abs=0.05)  # float32
    assert not any("GW170104" in key for key in found)  # not there: not run
    assert found["speed/offline"] > 1
    assert (found["recovery/kills"], found["recovery/lost_or_doubled"]) == (1, 0)
    assert not any(key.startswith(("distance", "calibration")) for key in found)  # not asked for
    assert {"parameters", "test/partial_auroc", "curve/step", "calibrated/time_offset"} <= set(found)
    for key, value in found.items():
        for number in value if isinstance(value, list) else [value]:
            assert math.isfinite(number), key


@pytest.mark.slow
def test_the_search_it_leaves_is_what_was_trained(run: tuple[Trial, Path]) -> None:
    module, folder = run
    model = SearchModel.load(folder / FILE)
    assert (model.recipe.network, model.recipe.detectors, len(model.members)) == ("deepfilter_shallow", "each", 2)
    assert model.recipe.trained_as == module.data.fingerprint
    assert model.recipe.threshold == module.measured["calibrated/threshold"]
    assert model.recipe.time_offset == module.measured["calibrated/time_offset"]
    x = module.data.batch(0).x
    with torch.no_grad():
        each = torch.stack([net.statistic(x) for net in model.members])
        torch.testing.assert_close(each.mean(0), module.statistic(x))


def test_networks_that_hear_nothing_are_no_search(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"within 0\.0001 s, so the time of an event is not known"):
        trained(tmp_path, {"calibration": 100, "near": 0.0001}, {"steps_per_epoch": 1})
    assert not (tmp_path / FILE).exists()


def test_with_no_calibration_windows_alone_are_measured(tmp_path: Path) -> None:
    asked = {"noise_windows": 10_000, "signals": 20, "stand_in": True}
    found = trained(tmp_path, asked, {"steps_per_epoch": 1}).results()
    assert "tpr/fap1e-3/snr8" in found
    assert not any(key.startswith(("events", "calibrated")) for key in found)
    assert not (tmp_path / FILE).exists()


# ---- twins ----


@pytest.fixture
def single(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    SearchModel(Recipe("deepfilter_shallow"), [build("deepfilter_shallow") for _ in range(2)]).save(tmp_path / "one.pt")
    return tmp_path / "one.pt"


def test_twins_begin_as_the_networks_of_a_search(single: Path) -> None:
    module, data = Trial(network="twin", start=str(single), members=3), SimulatedBBH(**{**DATA, "detectors": 2})
    module.build(data)
    x = torch.randn(16, 2, 1024, generator=torch.Generator().manual_seed(0))
    members = SearchModel.load(single).members
    with torch.no_grad():
        for number, twin in enumerate(module.nets):
            one = members[number % 2]
            expected = one.statistic(x[:, :1]) + one.statistic(x[:, 1:])
            torch.testing.assert_close(twin.statistic(x), expected, atol=1e-5, rtol=1e-4)
    assert not torch.equal(module.nets[0].tower.trunk[0].weight, module.nets[1].tower.trunk[0].weight)


@pytest.mark.slow
def test_twins_are_trained_and_searched_with(single: Path, tmp_path: Path) -> None:
    asked = {"calibration": 100, "stand_in": True}
    data = {"detectors": 2, "steps_per_epoch": 3}
    found = trained(tmp_path / "run", asked, data, network="twin", start=str(single)).results()
    assert math.isfinite(found["events/stand_in/statistic"])
    assert found["events/stand_in/livetime"] > 500
    model = SearchModel.load(tmp_path / "run" / FILE)
    assert (model.recipe.network, model.recipe.detectors) == ("twin", ("H1", "L1"))


def test_what_twins_cannot_begin_as(single: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="deepfilter_shallow has no other network to begin as"):
        Trial(start=str(single))
    data = SimulatedBBH(**{**DATA, "detectors": 2})
    with pytest.raises(SearchError, match="no search model at"):
        Trial(network="twin", start=str(tmp_path / "none.pt")).build(data)
    small = {"widths": (8,), "blocks": (1,), "groups": 4, "input_length": 1024, "channels": 2, "outputs": 1}
    other = SearchModel(Recipe("coherent_resnet", small, detectors=("H1", "L1")), [build("coherent_resnet", **small)])
    other.save(tmp_path / "other.pt")
    with pytest.raises(SearchError, match="twins begin as deepfilter_shallow networks, these are others"):
        Trial(network="twin", start=str(tmp_path / "other.pt")).build(data)


# ---- settings ----


def test_settings_that_do_not_exist_are_named() -> None:
    with pytest.raises(UserError, match=r"unknown key 'search\.signal'; it has: alert, bank, calibration, challenge"):
        Trial(search={"signal": 3})
    with pytest.raises(UserError, match=r"search\.events: GW170817 is not known; there are GW150914, GW170104"):
        Measurements.read({"events": ["GW170817"]})


def test_a_dry_run_measures_the_least_and_publishes_nothing() -> None:
    large = Measurements(
        noise_windows=10**6, challenge=3600, challenge_sets=2, bank={}, speed=128, alert=200, publish=10
    )
    dry = large.dry()
    assert (dry.noise_windows, dry.signals, dry.events, dry.publish) == (10_000, 50, [], None)
    assert (dry.challenge, dry.challenge_sets, dry.speed, dry.calibration) == (200, 1, 32, 200)
    assert (dry.ideal_trials, dry.near, dry.alert) == (0, math.inf, 70)
    assert dry.bank is not None
    assert len(Settings.read(dry.bank).bank(0)) < 20
    none = Measurements(noise_windows=0, challenge=0, speed=0, calibration=0, stand_in=False).dry()
    assert replace(none, signals=2000, challenge_sets=2, near=0.5) == Measurements(
        noise_windows=0, challenge=0, speed=0, calibration=0, stand_in=False, events=[]
    )  # what was not asked for is not measured either


def test_sets_are_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, bool]] = []

    def one(model: SearchModel, duration: int, seed: int, glitches: bool) -> dict[str, Any]:
        seen.append((duration, seed, glitches))
        return {
            "distance/100": 100.0 * (seed % 100 + 1),
            "distance/10": 0.0,
            "curve/x": [float(seed)] * (seed % 100 + 1),
        }

    def bank(own: Bank, settings: Settings, seed: int) -> dict[str, Any]:
        assert (settings.challenge, settings.glitches, settings.m_range) == (300, False, [35.0, 36.0])
        seen.append((len(own), seed, False))
        return {"distance/100": 250.0, "distance/10": 10.0, "distance/1": 0.0, "curve/x": [0.0]}

    monkeypatch.setattr(trial, "challenge_metrics", one)
    monkeypatch.setattr(trial, "bank_metrics", bank)
    small = {"m_range": [35.0, 36.0], "q_max": 1.1, "minimal_match": 0.8}
    asked = {"calibration": 100, "challenge": 300, "challenge_sets": 3, "glitches": True, "bank": small}
    found = trained(tmp_path, asked, {"steps_per_epoch": 1}).results()
    assert seen[:3] == [(300, 100_500 + number, True) for number in range(3)]  # of seed 5
    assert [seed for _, seed, _ in seen[3:]] == [100_500]  # the bank: on the first
    assert (found["distance/100"], found["curve/x"]) == (200.0, [100_501.0])
    # The share is of the same set, not of the mean; of a bank that sees nothing there is none.
    assert {key: found[key] for key in found if key.startswith("share/")} == {
        "share/distance/100": 100 / 250, "share/distance/10": 0.0
    }  # fmt: skip
    assert (found["bank_distance/100"], found["curve/bank_x"]) == (250.0, [0.0])
