"""Write a set, search its files, evaluate the events files: the same numbers as in memory."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import torch
from mma_realtime.challenge import main as write_set
from mma_realtime.data.challenge import generate
from mma_realtime.data.mlgwsc import Events
from mma_realtime.evaluate import main as evaluate_files
from mma_realtime.events import main as search_set
from mma_realtime.models import build
from mma_realtime.search.coincidence import find_triggers
from mma_realtime.search.evaluator import evaluate
from mma_realtime.search.model_file import Recipe, SearchModel
from mma_realtime.search.scores import conditioner_for, score_strain


def in_memory(model: SearchModel, strain, threshold: float) -> Events:
    scores = score_strain(model, strain, conditioner_for(model).fitted(strain))
    found = find_triggers(scores, threshold, time_offset=model.recipe.time_offset)
    time, stat = (np.array([getattr(t, name) for t in found]) for name in ("gps", "statistic"))
    return Events(time, stat, np.full(len(found), 0.3))


def test_the_round_trip_on_disk_is_the_evaluation_in_memory(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SearchModel(Recipe("deepfilter_shallow"), [build("deepfilter_shallow")])
    model.save(tmp_path / "model.pt")
    made = generate(128, seed=3)
    quiet = score_strain(model, made.background, conditioner_for(model).fitted(made.background))
    threshold = float(np.quantile(quiet.values.sum(axis=0)[quiet.valid.all(axis=0)], 0.9))
    assert write_set(["--duration", "128", "--seed", "3", "--out", str(tmp_path)]) == 0
    for name in ("foreground", "background"):
        given = [str(tmp_path / f"{name}.hdf"), str(tmp_path / f"{name}_events.hdf")]
        assert search_set([*given, "--checkpoint", str(tmp_path / "model.pt"), "--threshold", str(threshold)]) == 0
    with h5py.File(tmp_path / "background_events.hdf") as file:
        assert set(file) == {"time", "stat", "var"}
        assert all(column.dtype == np.float64 for column in file.values())
    with h5py.File(tmp_path / "foreground.hdf") as file:
        assert set(file) == {"H1", "L1"}
        [strain] = file["H1"].values()
        assert strain.dtype == np.float64
        assert (strain.attrs["start_time"], strain.attrs["delta_t"]) == (1_200_000_000, 1 / 2048)
    with h5py.File(tmp_path / "injections.hdf") as file:
        assert {"tc", "distance", "mass1", "mass2", "chirp_distance", "mchirp", "ra", "dec"} <= set(file)

    foreground, background = (in_memory(model, strain, threshold) for strain in (made.foreground, made.background))
    expected = evaluate(made.injections, foreground, background, 128.0)
    files = {name: tmp_path / f"{name}_events.hdf" for name in ("foreground", "background")}
    words = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    words += ["--injections", str(tmp_path / "injections.hdf"), "--duration", "128", "--json", str(tmp_path / "e.json")]
    assert evaluate_files(words) == 0
    told = json.loads((tmp_path / "e.json").read_text())
    assert len(background.stat) > 3
    assert told["n_found"] == expected.found[0]
    assert (told["n_true_pos"], told["n_false_pos"]) == (expected.n_true_pos, expected.n_false_pos)
    with h5py.File(files["foreground"]) as file:
        np.testing.assert_allclose(file["time"][:], foreground.time, atol=1e-6)
        np.testing.assert_allclose(file["stat"][:], foreground.stat, atol=1e-4)
