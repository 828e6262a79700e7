"""The search of many files: what is one stretch, and a job for each through the launcher."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from mma_realtime.data.mlgwsc import write_strain
from mma_realtime.data.strain import read_strain, write_npz
from mma_realtime.errors import StrainError
from mma_realtime.models import build
from mma_realtime.search import __main__ as search
from mma_realtime.search import experiment
from mma_realtime.search.coincidence import Trigger
from mma_realtime.search.model_file import Recipe, SearchModel
from mma_realtime.search.replay import Replay
from mma_realtime.search.report import read_scores
from scipy.signal import resample_poly

from mma_realtime import models, stream

spec = importlib.util.spec_from_file_location("search_inputs", Path(__file__).with_name("search_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
START = inputs.START


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """For jobs, which are processes of their own and do not know the template."""
    torch.manual_seed(0)
    model = SearchModel(Recipe("deepfilter_shallow", threshold=0.05), [build("deepfilter_shallow")])
    model.save(tmp_path / "untrained.pt")
    return tmp_path / "untrained.pt"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.slow
def test_many_files_are_searched_by_the_launcher_and_not_twice(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(2):
        strain = inputs.strain_with(seconds=16, seed=i)
        write_npz(replace(strain, gps_start=START + 100 * i), tmp_path / f"{i}.npz")
    write_npz(replace(inputs.strain_with(seconds=6), gps_start=START + 300), tmp_path / "short.npz")
    common = ["--checkpoint", str(untrained), "--runs", str(tmp_path / "runs"), "--jobs", "1"]
    out = tmp_path / "out.json"
    files = [str(tmp_path / f"{i}.npz") for i in (1, 0)]
    status = search.main([*files, str(tmp_path / "short.npz"), *common, "--json", str(out)])
    assert status == search.FAILED
    found = read(out)
    assert "longest gapless stretch is 6 s" in found["failed"]["short.npz"]
    assert [Path(s["files"][0]).name for s in found["stretches"]] == ["0.npz", "1.npz"]
    assert found["searched_s"] == pytest.approx(28.0, abs=0.2)  # a window and half a filter at both ends are not
    assert found["background"]["slides"] > 10
    assert "failed" in capsys.readouterr().out
    results = sorted((tmp_path / "runs").glob("*/result.json"))
    before = [path.stat().st_mtime_ns for path in results]
    assert len(before) == 2
    assert search.main([*files, *common, "--json", str(out)]) == 0
    assert [path.stat().st_mtime_ns for path in results] == before
    assert [t["event"] for t in read(out)["triggers"]] == sorted(t["event"] for t in read(out)["triggers"])


def test_files_of_the_same_seconds_are_one_stretch(tmp_path: Path) -> None:
    strain = inputs.strain_with(seconds=12)
    for name in strain.detectors:
        write_npz(strain.select(name), tmp_path / f"{name}.npz")
    write_npz(replace(strain, gps_start=START + 12), tmp_path / "later.npz")
    np.savez(tmp_path / "psds.npz", f=np.arange(3))
    write_npz(replace(strain, gps_start=START + 100), tmp_path / "far.npz")
    groups = search.grouped([tmp_path])
    assert [[path.name for path in group.files] for group in groups] == [["H1.npz", "L1.npz", "later.npz"], ["far.npz"]]
    assert [group.gps for group in groups] == [(START, START + 24), (START + 100, START + 112)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(StrainError, match="holds no strain"):
        search.grouped([tmp_path / "empty"])


@pytest.mark.parametrize("hole", [0, 20])
@pytest.mark.parametrize("names", [("event", "later"), ("later", "event")])
def test_files_that_follow_each_other_are_searched_as_the_stream_searches_them(
    hole: int, names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event at the seam, of which neither file holds a whole window with its filter's edge."""
    monkeypatch.setitem(models.NETWORKS, "template", inputs.Template)
    monkeypatch.setattr("mma_realtime.search.stretch.BLOCK", 30)  # and the files are read in several blocks
    inputs.template_model(time_offset=-0.1, threshold=-2.0).save(checkpoint := tmp_path / "model.pt")
    whole = inputs.strain_with(20.4, 40.1, 70.4, seconds=80)
    write_npz(whole.slice(START, START + 40), tmp_path / f"{names[0]}.npz")
    second = whole.slice(START + 40, START + 80)
    write_npz(replace(second, gps_start=START + 40 + hole), tmp_path / f"{names[1]}.npz")
    args = search.arguments().parse_args([str(tmp_path), "--runs", str(tmp_path / "runs")])
    (job,) = search.jobs_of(search.grouped(args.files), SearchModel.load(checkpoint), args)
    job.run_dir.mkdir(parents=True)
    experiment.run(job.config, 0, job.run_dir, "", "")
    offline = [Trigger.from_dict(each) for each in read(job.run_dir / "triggers.json")["triggers"]]
    streamed = Replay(SearchModel.load(checkpoint), [tmp_path])
    for _ in streamed.run():
        pass
    assert len(offline) > 5
    loud = [round(trigger.gps - START, 1) for trigger in offline if trigger.statistic > 4]
    assert loud == pytest.approx([20.4, 40.1, 70.4] if not hole else [20.4, 90.4], abs=0.15)
    for ours, theirs in zip(offline, streamed.progress.triggers, strict=True):
        assert (ours.gps, ours.event, ours.detectors) == (theirs.gps, theirs.event, theirs.detectors)
        assert ours.statistic == pytest.approx(theirs.statistic, abs=1e-4)
    (scores,) = streamed.progress.stretches
    found = read_scores(job.run_dir / "scores.npz")
    np.testing.assert_array_equal(found.valid, scores.valid)
    np.testing.assert_allclose(found.values, scores.values, atol=1e-4)


@pytest.mark.slow
def test_a_stretch_that_lacks_a_detector_fails_and_costs_the_others_nothing(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_npz(inputs.strain_with(16.4, seconds=32), tmp_path / "both.npz")
    common = ["--checkpoint", str(untrained), "--runs", str(tmp_path / "runs"), "--jobs", "1"]
    out = tmp_path / "out.json"
    assert search.main([str(tmp_path / "both.npz"), *common, "--json", str(out)]) == 0
    alone = read(out)
    assert alone["triggers"][0]["far_hz"] > 0
    lacking = replace(inputs.strain_with(seconds=20).select("H1"), gps_start=START + 400)
    write_npz(lacking, tmp_path / "H1.npz")
    files = [str(tmp_path / name) for name in ("both.npz", "H1.npz")]
    assert search.main([*files, *common, "--json", str(out)]) == search.FAILED
    found = read(out)
    assert "no file has strain of L1 in GPS 1000000400 to 1000000420" in found["failed"]["H1.npz"]
    assert (found["triggers"], found["background"]) == (alone["triggers"], alone["background"])
    assert "no file has strain of L1" in capsys.readouterr().out


@pytest.mark.slow
def test_of_a_folder_with_two_kinds_of_file_each_second_is_searched_once(
    untrained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder := tmp_path / "strain").mkdir()
    strain = inputs.strain_with(16.4, seconds=32)
    write_npz(strain, folder / "event.npz")
    for name, row in zip(strain.detectors, strain.values, strict=True):
        with h5py.File(folder / f"{name}.hdf5", "w") as file:
            file["strain/Strain"] = resample_poly(row, 2, 1) * 1e-21
            file["strain/Strain"].attrs["Xspacing"] = 1 / 4096
            file["meta/GPSstart"], file["meta/Detector"] = START, np.bytes_(name)
            file["quality/simple/DQmask"] = np.full(32, 3, np.uint32)
            file["quality/simple/DQShortnames"] = np.array([b"DATA", b"CBC_CAT1"])
    np.savez(folder / "psds.npz", f=np.arange(3))
    out = tmp_path / "out.json"
    common = ["--checkpoint", str(untrained), "--json", str(out)]
    for main, args in (
        (stream.main, ["--replay", str(folder)]),
        (search.main, [str(folder), "--jobs", "1", "--runs", str(tmp_path / "runs")]),
    ):
        caplog.clear()
        assert main([*args, *common]) == 0
        found = read(out)
        (stretch,) = found["stretches"]
        assert (stretch["gps_start"], stretch["gps_end"], stretch["psd"]) == (START, START + 32, "file")
        assert found["searched_s"] == pytest.approx(30, abs=0.2)
        assert found["triggers"][0]["model_sha256"] == found["model"]["sha256"]
        assert f"{folder}/event.npz, H1, GPS 1000000000 to 1000000032: left out" in caplog.text


@pytest.mark.slow
def test_a_file_with_stretches_far_apart_is_a_job_of_each(untrained: Path, tmp_path: Path) -> None:
    first = inputs.strain_with(seconds=20)
    path = tmp_path / "set.hdf"
    write_strain(path, first)
    with h5py.File(path, "a") as file:
        for name in ("H1", "L1"):
            there = next(iter(file[name].values()))
            later = file[name].create_dataset("1500000000", data=there[:])
            later.attrs.update({**there.attrs, "start_time": 1_500_000_000})
    groups = search.grouped([path])
    assert [group.gps for group in groups] == [(START, START + 20), (1_500_000_000, 1_500_000_020)]
    out = tmp_path / "out.json"
    args = [str(path), "--checkpoint", str(untrained), "--jobs", "1", "--runs", str(tmp_path / "runs")]
    assert search.main([*args, "--json", str(out)]) == 0
    assert [s["gps_start"] for s in read(out)["stretches"]] == [START, 1_500_000_000]
    with pytest.raises(StrainError, match=r"nothing between GPS 1000000020 .* and GPS 1500000000"):
        read_strain(path)
