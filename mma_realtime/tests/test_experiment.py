"""One experiment as the launcher calls it: networks, the twins that follow, a killed run, and the name of its data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mma_realtime.data.strain import write_npz
from mma_realtime.evaluation.stand_in import stand_in
from mma_realtime.experiment import data_fingerprint, gains, run
from mma_realtime.search.model_file import SearchModel
from mma_realtime.trial import FILE, Trial
from shared.errors import UserError

torch.set_num_threads(1)
SEARCH: dict[str, Any] = {
    "noise_windows": 0, "signals": 100, "events": [], "stand_in": False, "calibration": 100, "near": 1e9,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "model": {"members": 2, "pretrain_steps": 2, "search": SEARCH},
    "data": {
        "bank_size": 40, "noise_seconds": 32.0, "batch_size": 8, "steps_per_epoch": 3, "validation_windows": 16,
    },
    "trainer": {"max_epochs": 3, "limit_val_batches": 0, "accelerator": "cpu", "logger": False},
    "twin": {
        "model": {"members": 2, "lr": 1e-3, "pretrain_steps": 0, "search": SEARCH}, "data": {"mute": 0.5},
        "trainer": {"max_epochs": 2},
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as before:  # a module's fixture comes before `nothing_real`
        before.setenv("DATA_ROOT", str(folder / "none"))
        before.setenv("WANDB_MODE", "offline")
        return run(CONFIG, 3, folder), folder


@pytest.mark.slow
def test_twins_follow_and_are_measured_beside(whole: tuple[dict[str, Any], Path]) -> None:
    found, folder = whole
    assert {"calibrated/threshold", "twin_calibrated/threshold", "parameters", "twin_parameters"} <= set(found)
    assert found["twin_calibrated/threshold"] != found["calibrated/threshold"]
    assert found["twin_parameters"] > found["parameters"]
    for key, value in found.items():
        for number in value if isinstance(value, list) else [value]:
            assert math.isfinite(number), key
        assert key.startswith("curve/") == isinstance(value, list), key
    single, twin = SearchModel.load(folder / FILE), SearchModel.load(folder / "twin" / FILE)
    assert (single.recipe.detectors, twin.recipe.detectors) == ("each", ("H1", "L1"))
    assert (len(single.members), len(twin.members)) == (2, 2)
    for one, pair in zip(single.members, twin.members, strict=True):  # begun as it, and a few small steps away
        apart = (one.trunk[0].weight - pair.tower.trunk[0].weight).abs().max()
        assert 0 < apart < 0.02


class Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(("network", "step"), [("deepfilter_shallow", 7), ("twin", 4)])
def test_a_run_killed_in_either_phase_ends_as_one_left_alone(
    network: str, step: int, whole: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shared.cli
    from shared.resume import ResumeCheckpoint

    taken = Trial.training_step

    def killed(self: Trial, *args: Any) -> Any:
        if self.network == network and self.global_step == step:
            raise Killed
        return taken(self, *args)

    monkeypatch.setattr(Trial, "training_step", killed)
    monkeypatch.setattr(shared.cli, "ResumeCheckpoint", lambda path, seconds: ResumeCheckpoint(path, 0.0))
    with pytest.raises(Killed):
        run(CONFIG, 3, tmp_path)
    assert (tmp_path / ("twin" if network == "twin" else ".") / "last.ckpt").is_file()
    monkeypatch.setattr(Trial, "training_step", taken)
    assert run(CONFIG, 3, tmp_path) == whole[0]
    for place in (FILE, f"twin/{FILE}"):
        assert (tmp_path / place).read_bytes() == (whole[1] / place).read_bytes()


def test_gains_are_shares_of_the_single_networks_distances() -> None:
    found = {"distance/100": 2000.0, "twin_distance/100": 2200.0, "distance/10": 0.0, "twin_distance/10": 5.0}
    found |= {"distance/1000": 2400.0, "tpr/x": 0.5, "twin_tpr/x": 0.6}
    assert gains(found) == {"gain/distance/100": pytest.approx(0.1)}  # of none there is no share


def test_what_a_configuration_cannot_say(tmp_path: Path) -> None:
    for config, says in (
        ({"modle": {}}, "unknown key 'modle'; there are: data, matched_filter, model"),
        ({"matched_filter": {"bnad": []}}, "unknown key 'matched_filter.bnad'"),
        ({"model": {"search": {"sinals": 1}}, "data": {}}, "unknown key 'search.sinals'"),
    ):
        with pytest.raises(UserError, match=says):
            run(config, 0, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"unknown key 'data\.bank'; it has: band, bank_size"):
        data_fingerprint({"data": {"bank": 3}})


def test_a_twin_section_is_read_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key 'twin\.modle'; it has: data, model, trainer"):
        run({**CONFIG, "twin": {"modle": {}}}, 0, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_datas_name_follows_its_recipe_and_its_files(tmp_path: Path) -> None:
    data = {**CONFIG["data"], "root": str(tmp_path)}
    first = data_fingerprint({"data": data})
    assert first == data_fingerprint({"data": dict(data), "model": {"lr": 3}})
    assert first[1] == "recipe"
    assert "no real strain under the data root" in first[2]
    assert "simulated" in first[2]
    assert data_fingerprint({"data": {**data, "mute": 0.5}})[0] == first[0]  # of one detector, none is muted
    assert data_fingerprint({"data": {**data, "bank_size": 41}})[0] != first[0]
    (tmp_path / "gwosc").mkdir()
    strain, _ = stand_in()
    write_npz(strain, tmp_path / "gwosc" / "event_GW150914.npz")
    real = data_fingerprint({"data": data})
    # Windows, sets and training are simulated with the event's strain there or not: that is E4's alone.
    assert (real[1], "; E4: real strain of GW150914" in real[2]) == ("recipe", True)
    strain.values[0, 5] += 1
    write_npz(strain, tmp_path / "gwosc" / "event_GW150914.npz")
    other = data_fingerprint({"data": data})
    assert len({first[0], real[0], other[0]}) == 3
    assert np.isfinite(strain.values).all()
