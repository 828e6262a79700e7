"""Training windows: a function of seed and number, calibrated, labelled as they are; resume, and bad settings."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as L
import torch
from mma_realtime.data.draws import mass_part
from mma_realtime.data.glitches import GLITCHES
from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.data.windows import Windows
from mma_realtime.errors import SearchError
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

B = 2 * 380 / 1024


def simulated(**settings: Any) -> SimulatedBBH:
    small = {"bank_size": 60, "noise_seconds": 64.0, "batch_size": 32, "steps_per_epoch": 10, "validation_windows": 48}
    return SimulatedBBH(**{"seed": 0, "root": "/nowhere", **small, **settings})


def silent(data: SimulatedBBH, part: str = "train") -> SimulatedBBH:
    """Takes the noise out of a part: what is left is what was injected."""
    data.banks(part).noise.zero_()
    return data


def same(a: Windows, b: Windows) -> bool:
    return all(torch.equal(x.nan_to_num(-1), y.nan_to_num(-1)) for x, y in zip(a, b))


def energy(x: Tensor) -> Tensor:
    """B sum(x^2) of each detector: its squared signal-to-noise ratio."""
    return B * x.double().square().sum(-1)


def test_batches_depend_on_seed_and_number_only() -> None:
    settings = {"detectors": 2, "glitch_probability": 0.4, "mute": 0.2, "swap": 0.2}
    one, other = simulated(**settings), simulated(**settings)
    later = [one.batch(k) for k in (0, 3, 7)]
    assert all(same(a, b) for a, b in zip([other.batch(k) for k in (7, 3, 0)], later[::-1]))
    assert not torch.equal(later[0].x, later[1].x)
    assert not torch.equal(simulated(**{**settings, "seed": 1}).batch(0).x, later[0].x)
    batch = later[0]
    assert batch.x.shape == (32, 2, 1024)
    assert batch.masses.shape == (32, 2)
    assert [value.dtype for value in batch] == [torch.float32] * 4 + [torch.int64]


def test_labels_say_what_is_there() -> None:
    data = silent(simulated(waveform_probability=0.25))
    batch = data.batch(0)
    assert batch.label.sum() == 8
    there = batch.label.bool()
    assert (energy(batch.x[there]) > 10).all()
    assert (batch.x[~there] == 0).all()
    assert batch.masses[there].isfinite().all()
    assert batch.masses[~there].isnan().all()
    assert (batch.masses[there, 0] >= batch.masses[there, 1]).all()
    assert (batch.snr[~there] == 0).all()
    assert (batch.glitch == -1).all()
    orders = {tuple(data.batch(k).label.tolist()) for k in range(3)}
    assert len(orders) == 3


@pytest.mark.parametrize("detectors", [1, 2])
def test_the_ratio_is_the_one_drawn(detectors: int) -> None:
    data = silent(simulated(detectors=detectors, m_range=(40.0, 75.0), mute=0.0, swap=0.0))
    batch = data.batch(0)
    there = batch.label.bool()
    measured = energy(batch.x).sum(1)[there].sqrt()
    torch.testing.assert_close(measured, batch.snr[there].double(), rtol=0.01, atol=0)
    fixed = silent(data, "test").test_windows(11.0, 40)
    assert (fixed.label == 1).all()
    assert energy(fixed.x).sum(1).sqrt().median() == pytest.approx(11, rel=0.01)


def test_noise_is_added_to_the_signal() -> None:
    data = simulated(m_range=(40.0, 75.0))
    with_noise, alone = data.batch(0).x, silent(data).batch(0).x
    rest = with_noise - alone
    assert rest.std() == pytest.approx(1, abs=0.03)
    assert abs((rest * alone).mean()) < 0.01
    assert (rest.flatten(1).std(1) - 1).abs().max() < 0.2


def test_the_merger_lies_where_it_was_asked_for() -> None:
    data = silent(simulated(m_range=(20.0, 60.0), batch_size=64, waveform_probability=1.0))
    loudest = torch.cat([data.batch(k).x[:, 0].abs().argmax(1) for k in range(3)])
    before_end = (1024 - loudest) / 1024
    assert before_end.min() > 0.04
    assert before_end.max() < 0.28
    assert before_end.std() > 0.04  # 0.058 for a uniform merger
    moved = silent(simulated(m_range=(20.0, 60.0), merger_range=(0.15, 0.15), waveform_probability=1.0)).batch(0)
    assert ((1024 - moved.x[:, 0].abs().argmax(1)) / 1024 - 0.15).abs().max() < 0.03


def test_signs_and_signals_differ() -> None:
    data = silent(simulated(m_range=(40.0, 75.0)))
    assert len(data.test_windows(8.0, 60, "train").x.unique(dim=0)) == 60
    alone = silent(simulated(m_range=(40.0, 75.0), bank_size=1, merger_range=(0.1, 0.1), detectors=2))
    x = alone.test_windows(8.0, 60, "train").x
    sign = torch.sign((x[:1] * x).sum(2))
    torch.testing.assert_close(x, sign[..., None] * x[:1].expand_as(x))
    assert torch.equal(sign[:, 0], sign[:, 1])  # of the source, not of a detector
    assert 15 < (sign[:, 0] > 0).sum() < 45


# -- curriculum -----------------------------------------------------------------------------------------------------


def test_the_interval_slides_and_then_stays() -> None:
    data = simulated(steps=100)
    assert data.snr_interval(0.0) == (20, 40)
    assert data.snr_interval(0.3) == (12, 28)
    assert data.snr_interval(0.6) == data.snr_interval(1.0) == (4, 16)
    for k, (low, high) in {0: (20, 40), 30: (12, 28), 60: (4, 16), 99: (4, 16)}.items():
        snr = data.batch(k).snr[data.batch(k).label.bool()]
        assert low <= snr.min() < low + (high - low) / 3
        assert high - (high - low) / 3 < snr.max() <= high
    assert simulated(snr_slide=0.0).snr_interval(0.0) == (4, 16)


def test_the_power_law() -> None:
    data = simulated(snr_law="power", snr_end=(4.0, 100.0), batch_size=2000, waveform_probability=1.0)
    snr = data.batch(0).snr
    assert snr.min() >= 4
    assert snr.max() <= 100
    assert (snr < 8).float().mean() == pytest.approx((1 - 1 / 4) / (1 - 1 / 625), abs=0.03)


def test_how_long_the_run_is() -> None:
    data = simulated()
    assert data.total_steps == 10
    for ends, steps in [((-1, 7), 70), ((30, 7), 30), ((300, 7), 70), ((300, None), 300), ((300, -1), 300)]:
        data.trainer = SimpleNamespace(max_steps=ends[0], max_epochs=ends[1])  # type: ignore[assignment]
        assert data.total_steps == steps
    data.trainer = SimpleNamespace(max_steps=-1, max_epochs=-1)  # type: ignore[assignment]
    with pytest.raises(SearchError, match="set `steps`, max_steps or max_epochs"):
        data.total_steps  # noqa: B018
    assert simulated(steps=5).total_steps == 5


def test_processes_share_the_batches_of_one_run() -> None:
    alone = simulated(steps=40, snr_slide=0.0)
    for rank in range(2):
        data = simulated(steps=40, snr_slide=0.0)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        assert same(data.batch(3), alone.batch(6 + rank))


# -- glitches, muting and swapping ----------------------------------------------------------------------------------


def test_glitches_stand_in_one_detector_of_windows_without_a_signal() -> None:
    data = silent(simulated(detectors=2, glitch_probability=0.4, batch_size=1000, mute=0.0, swap=0.0))
    batch = data.batch(0)
    hit = batch.glitch >= 0
    assert not (hit & batch.label.bool()).any()
    assert hit.sum() / (1 - batch.label).sum() == pytest.approx(0.4, abs=0.07)
    assert {GLITCHES[kind] for kind in batch.glitch[hit]} == set(GLITCHES[:-1])
    loud = energy(batch.x[hit])
    assert (loud.amin(1) == 0).all()
    assert 0.3 < (loud[:, 0] > 0).float().mean() < 0.7
    ratio = loud.amax(1).sqrt()
    assert ratio.max() < 210
    assert ratio.max() > 120
    assert ratio.median() < 60  # uniform in the logarithm: sqrt(8 x 200) = 40
    assert (batch.x[~hit & (batch.label == 0)] == 0).all()
    assert data.batch(0).snr[hit].max() == 0


def test_a_muted_signal_is_none_to_be_found() -> None:
    batch = silent(simulated(detectors=2, mute=1.0, swap=0.0)).batch(0)
    loud = energy(batch.x) > 1e-6
    assert loud.any(1).sum() == 16
    assert not loud.all(1).any()
    assert loud[:, 0].any()
    assert loud[:, 1].any()
    assert (batch.label == 0).all()
    assert batch.masses.isnan().all()
    assert (batch.snr == 0).all()


def test_a_swapped_signal_has_another_partner() -> None:
    settings = {"detectors": 2, "mute": 0.0, "m_range": (20.0, 60.0)}
    whole, swapped = (silent(simulated(**settings, swap=swap)).batch(0) for swap in (0.0, 1.0))
    there = whole.label.bool()
    assert (swapped.label == 0).all()
    assert torch.equal(whole.x[:, 0], swapped.x[:, 0])
    assert (whole.x[there, 1] != swapped.x[there, 1]).any(1).all()


def test_shares_of_muted_and_swapped() -> None:
    data = simulated(detectors=2, batch_size=4000, mute=0.055, swap=0.014)
    assert data.batch(0).label.mean() == pytest.approx(0.5 * (1 - 0.055) * (1 - 0.014), abs=0.01)
    one = simulated(detectors=1, mute=1.0, swap=1.0)
    assert one.batch(0).label.mean() == 0.5
    assert (data.test_windows(8.0, 50).label == 1).all()


# -- parts ----------------------------------------------------------------------------------------------------------


def test_validation_is_fixed_and_of_other_masses_and_noise() -> None:
    data = simulated()
    first = list(data.val_dataloader())
    data.batch(0)
    assert all(same(a, b) for a, b in zip(first, data.val_dataloader()))
    assert [len(batch.x) for batch in first] == [32, 16]
    assert len(data.val_dataloader()) == 2
    tenths = {part: set() for part in ("train", "validation", "test")}
    for part in tenths:
        masses = data.test_windows(8.0, 200, part).masses
        tenths[part] = set(mass_part(masses[:, 0].double(), masses[:, 1].double()).tolist())
    assert tenths["train"] <= set(range(8))
    assert (tenths["validation"], tenths["test"]) == ({8}, {9})
    rows = torch.cat([data.banks(part).noise[:1] for part in tenths])
    assert torch.corrcoef(rows).triu(1).abs().max() < 0.04
    tested = next(iter(data.test_dataloader()))
    assert not torch.equal(tested.x[:16], first[0].x[:16])


def test_noise_windows_share_no_sample() -> None:
    data = simulated(detectors=2)
    alone = data.noise_windows(70)
    assert alone.x.shape == (70, 2, 1024)
    assert (alone.label == 0).all()
    assert alone.masses.isnan().all()
    assert alone.x.std() == pytest.approx(1, abs=0.02)
    flat = alone.x.reshape(140, 1024)
    assert torch.corrcoef(flat).triu(1).abs().max() < 0.25
    assert len(torch.unique(flat.flatten())) > 0.95 * flat.numel()
    assert same(alone, data.noise_windows(70))
    for part in ("train", "validation", "test"):
        assert abs(torch.corrcoef(torch.stack([flat[0], data.banks(part).noise[0, :1024]]))[0, 1]) < 0.25


def test_conditioned_noise_trains_too() -> None:
    data = simulated(noise="conditioned", noise_seconds=32.0, bank_size=20)
    assert data.batch(0).x[data.batch(0).label == 0].std() == pytest.approx(1, abs=0.1)


# -- runs -----------------------------------------------------------------------------------------------------------


class Recorder(L.LightningModule):
    """Keeps a number of every batch that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[float] = []

    def training_step(self, batch: Windows, _: int) -> Tensor:
        value = (batch.x[:, 0, ::7].double().sum() + batch.snr.sum()).item()
        self.seen.append(value)
        return ((self.weight - value) ** 2).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def fit(data: SimulatedBBH, path: Path, steps: int, resume: Path | None = None) -> Recorder:
    model = Recorder()
    trainer = L.Trainer(
        max_steps=steps, default_root_dir=path, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ModelCheckpoint(path, save_last=True, every_n_train_steps=1)], accelerator="cpu",
    )  # fmt: skip
    trainer.fit(model, datamodule=data, ckpt_path=resume)
    return model


def test_a_resumed_run_sees_the_batches_that_were_left(tmp_path: Path) -> None:
    settings = {"steps": 24, "steps_per_epoch": 8}
    straight = fit(simulated(**settings), tmp_path / "a", 20).seen
    first = fit(simulated(**settings), tmp_path / "b", 11).seen
    data = simulated(**settings)
    second = fit(data, tmp_path / "c", 20, tmp_path / "b" / "last.ckpt").seen
    assert first + second == straight
    assert len(set(straight)) == 20
    assert data.handed_out == 20


def test_a_checkpoint_of_other_windows_is_refused() -> None:
    state = simulated().state_dict()
    simulated(steps=500).load_state_dict(state)
    for settings, said in [({"seed": 3}, "seed 0, this run has 3"), ({"sample_rate": 2048}, "sample_rate 1024"),
                           ({"detectors": 2}, "detectors"), ({"noise_seconds": 96.0}, "noise_seconds 64")]:  # fmt: skip
        with pytest.raises(SearchError, match=f"the checkpoint was made with {said}"):
            simulated(**settings).load_state_dict(state)


def test_fingerprint_and_detail() -> None:
    assert simulated().fingerprint == simulated(steps=9).fingerprint
    assert len({simulated(**s).fingerprint for s in ({}, {"q_max": 5.0}, {"snr_end": (5.0, 16.0)})}) == 3
    assert simulated().detail == (
        "simulated: IMRPhenomD of 5-75 solar masses in white noise, one detector, 1024 Hz, "
        "perturbed design noise curves"
    )


def test_measured_curves_are_used_where_they_are(tmp_path: Path) -> None:
    import numpy as np

    f = np.linspace(10, 1024, 200)
    (tmp_path / "gwosc").mkdir()
    np.savez(tmp_path / "gwosc" / "psds_o3a.npz", f=f, log10asd=np.full((40, 200), -23.0, np.float32))
    measured = simulated(root=str(tmp_path))
    assert "40 measured noise curves" in measured.detail
    assert measured.fingerprint != simulated().fingerprint
    assert not torch.equal(measured.batch(0).x, simulated().batch(0).x)


def test_the_seed_is_the_runs_own() -> None:
    L.seed_everything(5, verbose=False)
    data = simulated(seed=None)
    assert data.run_seed == 5
    assert torch.equal(data.batch(0).x, simulated(seed=5).batch(0).x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"detectors": 3}, "detectors is 3: 1, which stands for any, or 2"),
        ({"batch_size": 0}, "batch_size is 0: at least 1"),
        ({"mute": 1.5}, "mute is 1.5: a share from 0 to 1"),
        ({"snr_end": [16, 4]}, r"snr_end is \[16, 4\]: \[low, high\] is needed"),
        ({"band": [20]}, r"band is \[20\]"),
        ({"band": [20, 600]}, "band 20 to 600 Hz does not fit 1024 Hz"),
        ({"merger_range": [0.05, 0.4]}, "merger_range ends 0.4 s before the window's end: at most 0.27 s fit"),
        ({"window": 0.1}, "at most 0.1 s fit a window of 0.1 s"),
        ({"noise_seconds": 3.0}, "at least 32 s of noise"),
        ({"window": 20.0}, "windows of at most 16 s"),
        ({"noise": "pink"}, "noise 'pink'"),
        ({"snr_law": "power", "snr_end": [0, 9]}, "snr_end has to begin above 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        simulated(**settings)


def test_the_sections_modules_are_exported_by_their_names() -> None:
    from mma_realtime.data import MLGWSCDataModule, SimulatedBBHDataModule, StrainFileDataModule
    from mma_realtime.search import windows

    from mma_realtime import data

    assert SimulatedBBHDataModule is SimulatedBBH
    for where, name in (
        ("data.simulated", "SimulatedBBHDataModule"), ("data.strain", "StrainFileDataModule"),
        ("data.mlgwsc", "MLGWSCDataModule"), ("models.wavenet", "WaveNetEnsemble"), ("kernels.slides", "coinc_count"),
    ):  # fmt: skip
        module = importlib.import_module(f"mma_realtime.{where}")  # the files of section 1
        assert callable(getattr(module, name))
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            module.nothing  # noqa: B018
    assert (StrainFileDataModule, MLGWSCDataModule) == (windows.StrainFileDataModule, windows.MLGWSCDataModule)
    with pytest.raises(AttributeError, match="no attribute 'SimulatedBNS'"):
        data.SimulatedBNS  # noqa: B018
