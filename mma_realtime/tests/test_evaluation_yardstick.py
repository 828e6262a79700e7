"""The yardstick: a small bank, measured under the names that networks are measured under."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mma_realtime.data.challenge import CURVE
from mma_realtime.data.strain import write_npz
from mma_realtime.evaluation import yardstick as module
from mma_realtime.evaluation.efficiency import SNRS, name_of
from mma_realtime.evaluation.stand_in import stand_in
from mma_realtime.evaluation.yardstick import Settings, challenge_metrics, event_metrics, yardstick
from mma_realtime.gw.psd import design_curve
from mma_realtime.search.bank import Bank, template_bank
from shared.errors import UserError

torch.set_num_threads(1)
DATA: dict[str, Any] = {"bank_size": 200, "noise_seconds": 32.0, "sample_rate": 1024, "band": [20.0, 400.0]}


@pytest.fixture(autouse=True)
def nothing_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "none"))
    return tmp_path / "none"


@pytest.fixture(scope="module")
def bank() -> Bank:
    return template_bank((30.0, 40.0), 1.5, design_curve(CURVE), 20.0, 400.0, 0.9, 0)


@pytest.fixture(scope="module")
def found(bank: Bank) -> dict[str, float]:
    strain, gps = stand_in()
    return event_metrics(bank, strain, gps, "stand_in")


def test_the_stand_in_is_found_at_its_time_and_not_backwards(found: dict[str, float]) -> None:
    event = {key.removeprefix("events/stand_in/"): value for key, value in found.items()}
    assert event["above_all"] == 1.0
    assert event["above_2000_s"] == float(event["livetime"] >= 2000)
    assert event["time_error"] < 0.02
    assert event["statistic"] == pytest.approx(23, abs=3)  # in this band
    assert event["livetime"] > 1000
    assert event["reversed_statistic"] < event["statistic"] / 2
    assert (event["reversed_in_noise"], event["reversed_lower"]) == (1.0, 1.0)


def test_names_are_the_networks(found: dict[str, float]) -> None:
    from mma_realtime.evaluation import events

    source = Path(events.__file__).read_text()
    for key in found:
        assert f'f"{{head}}{key.removeprefix("events/stand_in/")}"' in source, key


def test_strain_without_any_trigger_is_noise(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLOOR", 1e3)
    strain, gps = stand_in()
    quiet = event_metrics(bank, strain, gps, "x")
    assert (quiet["events/x/above_all"], quiet["events/x/reversed_in_noise"]) == (0.0, 1.0)
    assert all(math.isfinite(value) for value in quiet.values())


@pytest.mark.slow
def test_a_set_is_measured_by_a_bank(bank: Bank) -> None:
    settings = Settings(challenge=200, network_threshold=5.5, glitches=True)
    out = challenge_metrics(bank, settings, 33)  # one of its 6 signals is loud and of the bank's masses
    assert {k for k in out if k.startswith("distance")} == {"distance/1000", "distance_glitches/1000"}
    assert out["found/1000"] == pytest.approx(1 / 6)
    assert out["timing/within"] == 1.0
    assert out["timing/median"] < 0.05
    assert 1 <= out["timing/near_calibrated"] <= out["timing/near"]
    assert out["timing/within_calibrated"] == 1.0
    assert out["distance_glitches/1000"] <= 1.2 * out["distance/1000"]
    assert out["slid_livetime"] > 2592


def test_only_what_is_asked_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an event under the data root, which is looked for under its name."""
    seen: list[str] = []
    monkeypatch.setattr(module, "event_metrics", lambda bank, strain, gps, name: seen.append(name) or {})
    section = {"m_range": [35.0, 36.0], "q_max": 1.1, "minimal_match": 0.8, "trials": 0, "stand_in": False}
    assert set(yardstick(section, DATA, 0)) == {"templates"}
    assert seen == []
    folder = tmp_path / "gwosc"
    folder.mkdir()
    write_npz(stand_in()[0], folder / "event_GW150914.npz")
    out = yardstick({**section, "stand_in": True}, {**DATA, "root": str(tmp_path)}, 0)
    assert seen == ["GW150914", "stand_in"]
    assert out["templates"] >= 1


def test_a_dry_run_takes_the_least_of_everything() -> None:
    settings = {"m_range": [10.0, 50.0], "challenge": 0, "stand_in": False}
    out = yardstick(settings, {**DATA, "bank_size": 10**7}, 0, dry=True)
    assert {f"ideal_tpr/{name_of(fap, snr)}" for fap in (1e-2, 1e-3) for snr in SNRS} <= set(out)
    assert all(math.isfinite(value) for value in out.values())
    assert out["templates"] < 20


def test_a_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown key 'matched_filter\.mininal_match'; it has: band, challenge"):
        yardstick({"mininal_match": 0.9}, DATA, 0)
