"""Windows of strain for Lightning: those that a search scores, with their detectors, times and labels."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from mma_realtime.data.challenge import generate
from mma_realtime.data.mlgwsc import write_injections, write_strain
from mma_realtime.data.strain import read_strain, write_npz
from mma_realtime.errors import SearchError, StrainError
from mma_realtime.models import build
from mma_realtime.module import Detector
from mma_realtime.search.model_file import Recipe, SearchModel
from mma_realtime.search.scores import conditioner_for, score_strain
from mma_realtime.search.windows import MLGWSCDataModule, StrainFileDataModule
from torch import nn

spec = importlib.util.spec_from_file_location("search_inputs", Path(__file__).with_name("search_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)


def searcher(channels: int = 1) -> tuple[Detector, SearchModel]:
    """A detector of two untrained members, and the same networks as a search."""
    torch.manual_seed(0)
    nets = [build("deepfilter_shallow", channels=channels) for _ in range(2)]
    detector = Detector(members=2)
    detector.members = nn.ModuleList(nets)
    names = "each" if channels == 1 else ("H1", "L1")
    recipe = Recipe("deepfilter_shallow", {"channels": channels}, detectors=names)
    return detector, SearchModel(recipe, nets)


def trainer() -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip


def gapped():
    strain = inputs.strain_with(16.3, seconds=40)
    valid = strain.valid.copy()
    valid[1, 30] = False
    values = strain.values.copy()
    values[1, 30 * inputs.FS : 31 * inputs.FS] = 0.0
    return replace(strain, values=values, valid=valid)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("noise", ["trailing", "file"])
def test_predictions_are_the_scores_of_the_search(tmp_path, channels, noise):
    write_npz(gapped(), tmp_path / "strain.npz")
    detector, model = searcher(channels)
    together = "each" if channels == 1 else ("H1", "L1")
    data = StrainFileDataModule([tmp_path / "strain.npz"], noise=noise, detectors=together, batch_size=100)
    predicted = torch.cat(trainer().predict(detector, data))
    [found] = data.scores(predicted)
    strain = read_strain(tmp_path / "strain.npz")
    own = conditioner_for(model)
    expected = score_strain(model, strain, own.fitted(strain) if noise == "file" else own)
    assert (found.gps_start, found.hop, found.detectors) == (expected.gps_start, expected.hop, expected.detectors)
    assert (found.valid == expected.valid).all()
    assert 0.2 < found.valid.mean() < 0.97
    assert np.abs(expected.values[expected.valid]).max() > 1e-2
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4)


def test_a_window_says_its_detector_and_its_time_and_none_touches_a_gap(tmp_path):
    write_npz(gapped(), tmp_path / "strain.npz")
    data = StrainFileDataModule([tmp_path / "strain.npz"], noise="file", batch_size=64)
    data.setup()
    batches = list(data.predict_dataloader())
    assert max(len(batch.x) for batch in batches) == 64
    gps, row = (torch.cat([getattr(b, name) for b in batches]).numpy() for name in ("gps", "detector"))
    since = gps - inputs.START
    assert np.allclose(since * 16, np.round(since * 16))
    reach = 0.5  # s, half of the whitening filter
    touching = (row == 1) & (since > 30 - reach) & (since - 1 < 31 + reach)
    assert not touching.any()
    assert ((row == 0) & (since > 30.0) & (since < 31.0)).sum() == 15
    assert len(np.unique(np.stack([gps, row]), axis=1).T) == len(gps)


def test_strain_at_two_places_is_two_stretches(tmp_path):
    strain = inputs.strain_with(seconds=20)
    write_npz(strain, tmp_path / "a.npz")
    write_npz(replace(strain, gps_start=strain.gps_start + 5000), tmp_path / "b.npz")
    data = StrainFileDataModule([tmp_path / "a.npz", tmp_path / "b.npz"], noise="file")
    data.setup()
    assert len(data.stretches) == 2
    batches = list(data.predict_dataloader())
    ends = torch.cat([b.gps for b in batches])[torch.cat([b.stretch for b in batches]) == 1]
    assert float(ends.min()) > strain.gps_start + 5000
    with pytest.raises(SearchError, match="3 statistics for"):
        data.scores(torch.zeros(3))


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    made = generate(128, seed=3)
    write_strain(folder / "foreground.hdf", made.foreground)
    write_injections(folder / "injections.hdf", made.injections)
    return folder, made.injections


def test_labels_are_of_windows_with_a_whole_signal_or_with_none(challenge):
    folder, injections = challenge
    data = MLGWSCDataModule([folder / "foreground.hdf"], folder / "injections.hdf", noise="file")
    data.setup()
    batches = list(data.test_dataloader())
    labels = torch.cat([b.label for b in batches])
    n = len(injections["tc"])
    assert n == 3
    # In 0.2 s lie three or four ends of windows, 1/16 s apart, in each of two detectors.
    assert 2 * 3 * n <= int(labels.sum()) <= 2 * 4 * n
    assert int((labels == 0).sum()) > 1000
    masses = torch.cat([b.masses for b in batches])
    assert torch.isnan(masses[labels == 0]).all()
    assert set(masses[labels == 1][:, 0].tolist()) == set(injections["mass1"].astype(np.float32).tolist())
    snr = torch.cat([b.snr for b in batches])
    assert (snr[labels == 0] == 0).all()
    both = np.concatenate([injections[f"optimal_snr_{name}"] for name in ("H1", "L1")]).astype(np.float32)
    assert set(snr[labels == 1].tolist()) == set(both.tolist())
    told = data.told(np.array([injections["tc"][0] + 0.15, injections["tc"][0] + 0.5, injections["tc"][0] - 0.1]))
    assert told.tolist() == [0, -2, -2]
    assert data.told(np.array([injections["tc"][0] + 1.2])).tolist() == [-1]


def test_a_detector_is_tested_on_a_challenge(challenge):
    folder, _ = challenge
    detector, _ = searcher()
    data = MLGWSCDataModule([folder / "foreground.hdf"], folder / "injections.hdf", noise="file")
    [measured] = trainer().test(detector, data, verbose=False)
    assert 0.0 <= measured["test/tpr_at_fap_0.01"] <= 1.0


def test_what_cannot_be_is_told(tmp_path, challenge):
    folder, _ = challenge
    with pytest.raises(SearchError, match=r"hop is 0\.0001 s: it has to be a whole number of samples at 1024 Hz"):
        StrainFileDataModule([], hop=1e-4)
    with pytest.raises(SearchError, match="batch_size is 0"):
        StrainFileDataModule([], batch_size=0)
    with pytest.raises(SearchError, match=r"merger is 0\.3 to 0\.1 s"):
        MLGWSCDataModule([], merger=(0.3, 0.1))
    data = MLGWSCDataModule([folder / "foreground.hdf"])
    with pytest.raises(SearchError, match="give injections"):
        data.test_dataloader()
    with pytest.raises(StrainError, match="is missing"):
        StrainFileDataModule([tmp_path / "none.npz"]).setup()


def test_a_detector_trained_otherwise_refuses_the_windows(tmp_path):
    write_npz(inputs.strain_with(seconds=20), tmp_path / "strain.npz")
    detector, _ = searcher()
    detector.trained_with = {"sample_rate": 1024, "window": 1.0, "band": [20.0, 400.0]}
    data = StrainFileDataModule([tmp_path / "strain.npz"], band=(30.0, 400.0), noise="file")
    with pytest.raises(SearchError, match=r"trained with band \[20.0, 400.0\], here it is \[30.0, 400.0\]"):
        trainer().predict(detector, data)
