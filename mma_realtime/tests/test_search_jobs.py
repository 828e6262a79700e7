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
from mma_realtime.search.model_file import Recipe, SearchModel
from scipy.signal import resample_poly

from mma_realtime import stream

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
    groups = search.grouped([tmp_path])
    assert [[p.name for p in files] for files, _ in groups] == [["H1.npz", "L1.npz"], ["later.npz"]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(StrainError, match="holds no strain"):
        search.grouped([tmp_path / "empty"])


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
    assert [gps for _, gps in groups] == [(START, START + 20), (1_500_000_000, 1_500_000_020)]
    out = tmp_path / "out.json"
    args = [str(path), "--checkpoint", str(untrained), "--jobs", "1", "--runs", str(tmp_path / "runs")]
    assert search.main([*args, "--json", str(out)]) == 0
    assert [s["gps_start"] for s in read(out)["stretches"]] == [START, 1_500_000_000]
    with pytest.raises(StrainError, match=r"nothing between GPS 1000000020 .* and GPS 1500000000"):
        read_strain(path)
