"""The denoiser's windows, its training and its measurements: signals known exactly, baselines, a killed run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as L
import torch
from mma_realtime.data.draws import CELLS, mass_part
from mma_realtime.denoising import (
    SNRS,
    Denoising,
    LinearEstimate,
    Pairs,
    SignalWindows,
    overlap,
    relative_error,
)
from mma_realtime.errors import SearchError
from mma_realtime.experiment import data_fingerprint, run
from shared.claims.results import Results
from shared.errors import UserError
from shared.resume import ResumeCheckpoint

from mma_realtime import tables

torch.set_num_threads(1)
DATA: dict[str, Any] = {
    "bank_size": 300, "noise_seconds": 128.0, "batch_size": 16, "steps_per_epoch": 4, "validation_windows": 40,
    "waveform_probability": 1.0, "seed": 5,
}  # fmt: skip
SIZE: dict[str, Any] = {"widths": [8, 16], "kernel": 5, "lr": 5e-3}
B = 2 * 380 / 1024


@pytest.fixture(autouse=True)
def nothing_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(scope="module")
def windows() -> SignalWindows:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_ROOT", "none")
        data = SignalWindows(**DATA)
        for part in ("train", "test"):
            data.banks(part)
    return data


def trainer(folder: Path, epochs: int, **more: Any) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
        limit_val_batches=0, **more,
    )  # fmt: skip


def fit(folder: Path, epochs: int, data: dict[str, Any], resume: Path | None = None, **more: Any) -> Denoising:
    L.seed_everything(0, verbose=False)
    module = Denoising(**SIZE)
    trainer(folder, epochs, **more).fit(module, SignalWindows(**{**DATA, **data}), ckpt_path=resume, weights_only=True)
    return module


def test_the_signal_is_what_the_window_holds_beside_its_noise(windows: SignalWindows) -> None:
    loud, quiet = (windows.pairs("train", "test", 0, 200, (snr, snr)) for snr in (20.0, 5.0))
    assert torch.allclose(loud.signal, 4 * quiet.signal, atol=1e-5)
    assert torch.allclose(loud.x - loud.signal, quiet.x - quiet.signal, atol=1e-5)
    assert float((loud.x - loud.signal).square().mean()) == pytest.approx(1, abs=0.02)
    power = B * loud.signal.square().sum((1, 2)) / 20**2
    assert power.max() < 1.001
    assert power.median() > 0.9  # a light system has been in the band for longer than a window
    assert power.min() > 0
    again = windows.pairs("train", "test", 0, 200, (20.0, 20.0))
    assert all(torch.equal(a, b) for a, b in zip(loud, again, strict=True))
    assert not torch.equal(loud.x, windows.pairs("train", "test", 1, 200, (20.0, 20.0)).x)


def test_every_window_of_a_batch_has_a_signal_whatever_the_share(windows: SignalWindows) -> None:
    data = SignalWindows(**{**DATA, "waveform_probability": 0.5, "detectors": 2, "mute": 0.5})
    for pairs in (windows.next_pairs(0), data.next_pairs(0)):
        assert len(pairs.x) == DATA["batch_size"]
        assert (pairs.signal.square().sum(-1) > 0).all()
        assert (pairs.snr > 0).all()


def test_tests_are_of_every_strength_and_of_masses_not_trained_on(windows: SignalWindows) -> None:
    batches = list(windows.test_dataloader())
    assert [set(b.snr.tolist()) for b in batches] == [set(SNRS)] * 3
    for snr in SNRS:
        assert [int((b.snr == snr).sum()) for b in batches] == [16, 16, 8]
    assert not torch.equal(batches[0].x[:8], batches[2].x[:8])
    for part in ("train", "test"):
        bank = windows.banks(part).signals
        assert bool(torch.isin(mass_part(bank.m1, bank.m2), torch.tensor(list(CELLS[part]))).all()), part


def test_overlap_and_error_of_known_windows() -> None:
    a = torch.tensor([[[3.0, 0.0, 4.0]], [[1.0, 0.0, 0.0]], [[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]])
    b = torch.tensor([[[6.0, 0.0, 8.0]], [[0.0, 2.0, 0.0]], [[-1.0, -1.0, 0.0]], [[1.0, 2.0, 3.0]]])
    assert overlap(a, b).tolist() == pytest.approx([1, 0, -1, 0])
    pairs = Pairs(b, b, torch.ones(4))
    assert float(relative_error(pairs, torch.zeros_like(b))) == pytest.approx(1)
    assert float(relative_error(pairs, b)) == 0
    assert float(relative_error(pairs, 2 * b)) == pytest.approx(1)
    assert float(relative_error(pairs, a)) == pytest.approx((0.25 + 5 / 4 + 4 + 1) / 4)


def test_the_linear_estimate_is_the_best_there_is() -> None:
    """Of signals along two of eight axes it keeps these, each by s / (s + 1); no other linear map errs less."""
    generator = torch.manual_seed(0)
    signals = torch.zeros(20_000, 1, 8)
    signals[:, 0, :2] = torch.randn(20_000, 2, generator=generator) * torch.tensor([0.2, 0.1])
    estimate = LinearEstimate(signals)
    truth = 10 * signals
    x = truth + torch.randn(truth.shape, generator=generator)
    found = estimate(x, torch.full((20_000,), 10.0))
    wanted = x * torch.tensor([4 / 5, 1 / 2, 0, 0, 0, 0, 0, 0])
    assert (found - wanted).abs().max() < 0.05
    error = (found - truth).square().mean()
    for other in (x, 0.5 * x, 0 * x, x * (torch.arange(8) < 2), 0.8 * x * (torch.arange(8) < 1)):
        assert error < (other - truth).square().mean()


class Guessing(SignalWindows):
    """Other windows' signals, in training."""

    def next_pairs(self, k: int) -> Pairs:
        pairs = super().next_pairs(k)
        return pairs._replace(signal=pairs.signal.roll(1, 0))


@pytest.mark.slow
def test_some_steps_teach_it_and_other_windows_signals_do_not(tmp_path: Path) -> None:
    settings = {**DATA, "steps_per_epoch": 60, "bank_size": 1000, "snr_slide": 0.0, "snr_end": [15.0, 20.0]}
    found = {}
    for kind in (SignalWindows, Guessing):
        L.seed_everything(0, verbose=False)
        module = Denoising(widths=[16, 32], kernel=9, lr=1e-2)
        trainer(tmp_path, 1).fit(module, kind(**settings))
        trainer(tmp_path, 1).test(module, SignalWindows(**settings), verbose=False)
        found[kind] = module.results()
    taught, guessed = found[SignalWindows], found[Guessing]
    assert taught["overlap/snr20"] > 0.75
    assert taught["overlap_linear/snr20"] > taught["overlap_noisy/snr20"] + 0.1
    assert taught["overlap/snr20"] > taught["overlap_noisy/snr20"] + 0.1
    assert abs(guessed["overlap/snr20"]) < 0.3
    for snr in SNRS:
        assert taught[f"overlap_noisy/snr{snr:g}"] == guessed[f"overlap_noisy/snr{snr:g}"]
        gain = taught[f"overlap/snr{snr:g}"] - taught[f"overlap_noisy/snr{snr:g}"]
        assert taught[f"overlap_gain/snr{snr:g}"] == pytest.approx(gain, abs=1e-5)
    # |signal|^2 = snr^2 / B beside 1024 samples of noise of unit variance.
    expected = math.sqrt(1 / (1 + 1024 * B / 20**2))
    assert taught["overlap_noisy/snr20"] == pytest.approx(expected, abs=0.05)


class Killed(Exception):
    pass


class Kill(L.Callback):
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 7:  # in the second epoch
            raise Killed


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = fit(tmp_path, 3, {}).state_dict()
    saved = tmp_path / "last.ckpt"
    with pytest.raises(Killed):
        fit(tmp_path, 3, {}, callbacks=[ResumeCheckpoint(saved, 0.0), Kill()])
    torch.manual_seed(99)  # another process has other global numbers
    resumed = fit(tmp_path, 3, {}, resume=saved)
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole[name]), name
    assert (resumed.data.handed_out, resumed.trainer.global_step) == (12, 12)
    with pytest.raises(SearchError, match="the checkpoint was made with snr_end"):
        fit(tmp_path, 3, {"snr_end": [6.0, 16.0]}, resume=saved)
    with pytest.raises(UserError, match="was trained with band"):
        fit(tmp_path, 3, {"band": [30.0, 400.0]}, resume=saved)


def test_an_experiment_and_its_table(tmp_path: Path) -> None:
    config = {
        "denoiser": {**SIZE, "schedule": "cosine"}, "data": {**DATA, "validation_windows": 8},
        "trainer": {"max_epochs": 1, "limit_val_batches": 1, "accelerator": "cpu", "logger": False},
    }  # fmt: skip
    assert data_fingerprint(config)[1] == "recipe"
    found = run(config, 3, tmp_path)
    metrics = {key: value for key, value in found.items() if not isinstance(value, list)}
    assert all(math.isfinite(value) for value in metrics.values())
    one = {"wall_seconds": 1, "device": "cpu", "date": "2026-01-01", "commit": "c", "versions": {}, "metrics": metrics}
    runs = [{**one, "key": key, "seed": seed, "curves": {}} for key, seed in (("a", 1), ("b", 2))]
    data = {"name": "d", "kind": "recipe", "fingerprint": "f", "detail": ""}
    results = Results.model_validate({
        "paper": "mma_realtime", "tier": "cpu", "created": "2026-01-01", "commit": "c", "dirty": False, "machine": "m",
        "versions": {}, "wall_seconds": 1,
        "experiments": {"denoiser": {"title": "denoiser", "config": {}, "data": data, "runs": runs}},
    })  # fmt: skip
    (table,) = tables.tables(results)
    assert table.columns == ["estimate", "SNR 6", "SNR 8", "SNR 10", "SNR 15", "SNR 20"]
    assert [row[0] for row in table.rows] == ["denoiser", "best linear estimate", "the window as it is"]
    for row, kind in zip(table.rows, ("", "_linear", "_noisy"), strict=True):
        assert row[3] == f"{metrics[f'overlap{kind}/snr10']:.3f} ± 0.000"
    with pytest.raises(UserError, match="unknown key 'model'; there are: data, denoiser, seed_everything, trainer"):
        run({**config, "model": {}}, 0, tmp_path)


def test_bad_settings_are_one_line(tmp_path: Path) -> None:
    for settings, says in (({"lr": 0.0}, "lr is 0.0"), ({"schedule": "step"}, "schedule 'step'")):
        with pytest.raises(SearchError, match=says):
            Denoising(**settings)  # type: ignore[arg-type]
    with pytest.raises(SearchError, match="needs a multiple of 8"):
        fit(tmp_path, 1, {"window": 0.99})
