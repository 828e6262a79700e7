"""GlitchNet's windows and training: what they hold, that shape alone tells, a killed run, and what is reported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as L
import torch
from mma_realtime.data.draws import CELLS, mass_part
from mma_realtime.data.glitch_windows import GlitchWindows, Transients
from mma_realtime.data.glitches import GLITCHES
from mma_realtime.errors import SearchError
from mma_realtime.experiment import data_fingerprint, run
from mma_realtime.glitch_classifier import (
    CHIRP,
    Confusions,
    GlitchClassifier,
    octaves,
    readings,
)
from shared.claims.results import Results
from shared.errors import UserError
from shared.resume import ResumeCheckpoint
from torch.utils.data import DataLoader

from mma_realtime import figures, tables

torch.set_num_threads(1)
DATA: dict[str, Any] = {
    "bank_size": 60, "noise_seconds": 128.0, "batch_size": 32, "steps_per_epoch": 4, "validation_windows": 300,
    "seed": 5,
}  # fmt: skip
B = 2 * 380 / 1024
CHANCE = 1 / len(GLITCHES)


@pytest.fixture(autouse=True)
def nothing_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(scope="module")
def windows() -> GlitchWindows:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_ROOT", "none")
        data = GlitchWindows(**DATA)
        for part in ("train", "validation", "test"):
            data.part(part)
    return data


def trainer(folder: Path, epochs: int, **more: Any) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
        limit_val_batches=0, **more,
    )  # fmt: skip


def fit(
    folder: Path,
    epochs: int,
    data: dict[str, Any],
    resume: Path | None = None,
    kind: type[GlitchWindows] = GlitchWindows,
    **more: Any,
) -> GlitchClassifier:
    L.seed_everything(0, verbose=False)
    module = GlitchClassifier(width=4, lr=1e-2)
    trainer(folder, epochs, **more).fit(module, kind(**{**DATA, **data}), ckpt_path=resume, weights_only=True)
    return module


def after_test(folder: Path, module: GlitchClassifier, data: GlitchWindows) -> dict[str, Any]:
    trainer(folder, 1).test(module, data, verbose=False)
    return module.results()


# ---- windows ----


def test_a_batch_is_a_function_of_seed_and_number(windows: GlitchWindows) -> None:
    again = GlitchWindows(**DATA)
    again.batch(0)
    for a, b in zip(windows.batch(3), again.batch(3), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(windows.batch(3).x, windows.batch(4).x)
    assert not torch.equal(windows.batch(3).x, GlitchWindows(**{**DATA, "seed": 6}).batch(3).x)
    assert not torch.equal(windows.batch(3).x, windows.windows("test", 3, 32).x)


def test_classes_are_equally_many_in_every_batch(windows: GlitchWindows) -> None:
    for k in range(3):
        counts = windows.windows("train", k, 50).kind.bincount(minlength=6)
        assert counts.max() - counts.min() <= 1
    assert len({int(windows.windows("train", k, 1).kind) for k in range(40)}) == 6


def test_parts_share_no_noise_no_shapes_and_no_masses(windows: GlitchWindows) -> None:
    for part in ("train", "validation", "test"):
        tenths = mass_part(*windows.part(part).masses.T)
        assert bool(torch.isin(tenths, torch.tensor(list(CELLS[part]))).all()), part
    train, test = windows.part("train"), windows.part("test")
    assert len(test.shapes.values) == len(train.shapes.values) // 4
    for a, b in ((train.noise, test.noise), (train.shapes.values[:, 900:], test.shapes.values[:, 900:])):
        a, b = a[:, None, :256], b[None, :, :256]
        # To rounding: a transform of other rows beside it need not give the same bits.
        assert float((a - b).square().mean(-1).min() / b.square().mean()) > 1e-10


def test_a_transient_is_as_strong_as_is_said_wherever_it_lies(windows: GlitchWindows) -> None:
    """Two batches of the same draws but strength differ by the transients alone, of unit ratio if all of it shows."""
    loud, quiet = windows.windows("train", 0, 600, (60.0, 60.0)), windows.windows("train", 0, 600, (10.0, 10.0))
    assert torch.equal(loud.kind, quiet.kind)
    assert set(loud.snr.tolist()) == {60.0}
    x = (loud.x - quiet.x)[:, 0].double()
    power = B * x.square().sum(1) / 50**2
    assert power.max() < 1 + 1e-4
    short = torch.isin(loud.kind, torch.tensor([GLITCHES.index("blip"), GLITCHES.index("koi_fish")]))
    assert power[short].min() > 0.85  # a tail may ring on beyond the window's end
    assert power.quantile(0.05) > 0.3
    place = x.abs().argmax(1)[loud.kind == GLITCHES.index("blip")]
    assert place.min() >= 0.1 * 1024 - 2
    assert place.max() <= 0.9 * 1024 + 2
    assert place.min() < 0.2 * 1024
    assert place.max() > 0.8 * 1024
    noise = (quiet.x[:, 0].double() - x / 5).square().mean()  # what is left of the quiet ones
    assert noise == pytest.approx(1, abs=0.02)


def test_strengths_are_log_uniform_and_both_signs_come(windows: GlitchWindows) -> None:
    many = windows.windows("train", 0, 6000)
    logs = many.snr.log()
    assert math.log(8) <= logs.min()
    assert logs.max() <= math.log(100)
    assert logs.mean() == pytest.approx(math.log(800) / 2, abs=0.05)
    for k in range(6):  # none of the classes is louder
        assert logs[many.kind == k].mean() == pytest.approx(math.log(800) / 2, abs=0.1)
    blips = windows.windows("train", 1, 600, (100.0, 100.0))
    blips_x = blips.x[blips.kind == 0, 0]
    upward = (blips_x.amax(1) > -blips_x.amin(1)).float().mean()
    assert 0.3 < upward < 0.7


def test_a_chirp_rises_to_its_merger(windows: GlitchWindows) -> None:
    shapes = windows.part("train").shapes
    chirps = shapes.values[shapes.kind == CHIRP]
    early, late = (chirps[:, a:b] for a, b in ((1024 - 256, 1024 - 128), (1024 - 64, 1024 + 64)))

    def pitch(x: torch.Tensor) -> torch.Tensor:
        power = torch.fft.rfft(x * torch.hann_window(128), 1024).abs().square()
        return (power * torch.arange(513)).sum(1) / power.sum(1)

    assert (pitch(late) > pitch(early)).float().mean() > 0.9
    assert (chirps.square()[:, 1024 + 128 :].sum(1) / chirps.square().sum(1)).max() < 0.05


# ---- training ----


class Shuffled(GlitchWindows):
    """Labels that belong to other windows, in training."""

    def batch(self, k: int) -> Transients:
        batch = super().batch(k)
        return batch._replace(kind=batch.kind[torch.randperm(len(batch.kind), generator=torch.manual_seed(k))])


class OnTrainingNoise(GlitchWindows):
    """Tested on other windows of what it was trained on, so that a class's own stretches of noise would tell it."""

    def test_dataloader(self) -> Any:
        unseen = [self.windows("train", 10_000 + k, self.batch_size) for k in range(10)]
        return DataLoader(unseen, batch_size=None)  # type: ignore[arg-type]  # a list alone would be ten loaders


LEARN: dict[str, Any] = {"steps_per_epoch": 60, "bank_size": 200}


@pytest.mark.slow
def test_some_steps_teach_it_and_shape_alone_tells(tmp_path: Path) -> None:
    data = GlitchWindows(**{**DATA, **LEARN, "snr": [30.0, 100.0]})
    found = after_test(tmp_path, fit(tmp_path, 1, {**LEARN, "snr": [30.0, 100.0]}), data)
    assert found["test/accuracy"] > 0.5
    assert found["test/chirps_from_glitches"] > 0.7
    for more, kind in (({"snr": [1e-3, 1e-3]}, GlitchWindows), ({"snr": [30.0, 100.0]}, Shuffled)):
        control = fit(tmp_path, 1, {**LEARN, **more}, kind=kind)
        chance = after_test(tmp_path, control, GlitchWindows(**{**DATA, **LEARN, **more}))
        # 4 deviations of 300 windows; what is learnt from shuffled labels may still lean on one shape.
        assert abs(chance["test/accuracy"] - CHANCE) < (0.09 if kind is GlitchWindows else 0.15), kind
        if kind is GlitchWindows:
            known = after_test(tmp_path, control, OnTrainingNoise(**{**DATA, **LEARN, **more}))
            assert abs(known["test/accuracy"] - CHANCE) < 0.09


def test_untrained_it_knows_nothing(windows: GlitchWindows, tmp_path: Path) -> None:
    found = after_test(tmp_path, GlitchClassifier(width=4), windows)
    assert abs(found["test/accuracy"] - CHANCE) < 0.12
    assert abs(found["test/chirps_from_glitches"] - 0.5) < 0.12
    matrix = torch.tensor(found["curve/confusion"]).view(6, 6)
    assert (matrix.sum(1) - 50).abs().max() <= 5  # about as many of each, whatever is left over of a batch
    assert matrix.sum() == 300
    assert float(matrix.diagonal().sum() / matrix.sum()) == pytest.approx(found["test/accuracy"])
    assert found["curve/snr"] == [8, 16, 32, 64]
    assert all(math.isfinite(v) for v in found.values() if isinstance(v, float))


class Killed(Exception):
    pass


class Kill(L.Callback):
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 7:  # in the second epoch
            raise Killed


def everything(module: GlitchClassifier) -> dict[str, torch.Tensor]:
    out = dict(module.state_dict())
    (optimiser,) = module.trainer.optimizers
    for place, state in optimiser.state_dict()["state"].items():
        out |= {f"adam {place} {key}": torch.as_tensor(value) for key, value in state.items()}
    return out | {"places": torch.tensor([module.data.handed_out, module.trainer.global_step])}


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    small = {"batch_size": 8}
    whole = everything(fit(tmp_path, 3, small))
    saved = tmp_path / "last.ckpt"
    with pytest.raises(Killed):
        fit(tmp_path, 3, small, callbacks=[ResumeCheckpoint(saved, 0.0), Kill()])
    torch.manual_seed(99)  # another process has other global numbers
    resumed = everything(fit(tmp_path, 3, small, resume=saved))
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert whole["places"].tolist() == [12, 12]
    with pytest.raises(SearchError, match="the checkpoint was made with snr"):
        fit(tmp_path, 3, {**small, "snr": [10.0, 100.0]}, resume=saved)
    with pytest.raises(UserError, match="was trained with band"):
        fit(tmp_path, 3, {**small, "band": [30.0, 400.0]}, resume=saved)


# ---- what is reported ----


def test_readings_of_known_counts() -> None:
    edges = octaves((8.0, 100.0))
    assert edges == [8, 16, 32, 64, 100]
    assert octaves((8.0, 8.0)) == [8, 8]
    assert octaves((8.0, 16.0)) == [8, 16]
    confusions = Confusions(edges)
    x = torch.zeros(6, 1, 4)
    kind, snr = torch.tensor([0, 1, CHIRP, CHIRP, CHIRP, 2]), torch.tensor([8.0, 15.9, 16.0, 64.0, 99.0, 70.0])
    confusions.update(torch.tensor([0, CHIRP, CHIRP, CHIRP, 0, 3]), Transients(x, kind, snr))
    found = readings(confusions.compute(), edges, "test")
    assert found == {
        "test/accuracy": 0.5, "test/accuracy/blip": 1.0, "test/accuracy/whistle": 0.0,
        "test/accuracy/scattered_light": 0.0, "test/accuracy/chirp": pytest.approx(2 / 3),
        "test/accuracy/snr8-16": 0.5, "test/accuracy/snr16-32": 1.0, "test/accuracy/snr64-100": pytest.approx(1 / 3),
        "test/chirps_from_glitches": pytest.approx((2 / 3 + 2 / 3) / 2),
    }  # fmt: skip
    assert readings(torch.zeros(4, 6, 6, dtype=torch.int64), edges, "test") == {}


CONFIG: dict[str, Any] = {
    "glitch_classifier": {"width": 4}, "data": {**DATA, "validation_windows": 36},
    "trainer": {"max_epochs": 1, "limit_val_batches": 0, "accelerator": "cpu", "logger": False},
}  # fmt: skip


def test_an_experiment_its_table_and_its_figure(tmp_path: Path) -> None:
    found = run(CONFIG, 3, tmp_path)
    metrics = {key: value for key, value in found.items() if not isinstance(value, list)}
    curves = {key: value for key, value in found.items() if isinstance(value, list)}
    assert set(curves) >= {"curve/confusion", "curve/snr", "curve/accuracy"}
    one = {"key": "a", "wall_seconds": 1, "device": "cpu", "date": "2026-01-01", "commit": "c", "versions": {}}
    runs = [
        {**one, "seed": 1, "metrics": metrics, "curves": curves},
        {**one, "key": "b", "seed": 2, "metrics": metrics, "curves": curves},
    ]
    data = {"name": "d", "kind": "recipe", "fingerprint": "f", "detail": ""}
    results = Results.model_validate({
        "paper": "mma_realtime", "tier": "cpu", "created": "2026-01-01", "commit": "c", "dirty": False, "machine": "m",
        "versions": {}, "wall_seconds": 1,
        "experiments": {"glitches": {"title": "GlitchNet", "config": {}, "data": data, "runs": runs}},
    })  # fmt: skip
    (table,) = tables.tables(results)
    assert [row[0] for row in table.rows] == [
        "blip",
        "whistle",
        "scattered light",
        "koi fish",
        "sine gaussian",
        "chirp",
    ]
    for row, name in zip(table.rows, GLITCHES, strict=True):
        assert sum(map(float, row[1:7])) == pytest.approx(1, abs=0.004)
        assert row[7].startswith(f"{metrics[f'test/accuracy/{name}']:.3f}")
    (figure,) = figures.draw(results, tmp_path)
    assert "scattered light" in (tmp_path / figure.file).read_text()


def test_the_datas_name_follows_its_recipe() -> None:
    first = data_fingerprint(CONFIG)
    assert first[1] == "recipe"
    assert "koi_fish" in first[2]
    assert data_fingerprint({**CONFIG, "data": {**CONFIG["data"], "validation_windows": 7}})[0] == first[0]
    assert data_fingerprint({**CONFIG, "data": {**CONFIG["data"], "margin": 0.2}})[0] != first[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"bank_size": 0}, "bank_size is 0: at least 1"),
        ({"snr": [0.0, 10.0]}, r"snr is \[0.0, 10.0\]: \[low, high\] is needed, above 0"),
        ({"snr": [10.0, 8.0]}, r"snr is \[10.0, 8.0\]"),
        ({"margin": 0.5}, "margin is 0.5 s: from 0 to below half of the window of 1 s"),
        ({"noise_seconds": 1.0}, "noise_seconds is 1 and window 1 s"),
        ({"noise": "pink"}, "noise is 'pink': white or conditioned"),
        ({"band": [20.0, 600.0]}, "band 20 to 600 Hz does not fit 1024 Hz"),
    ],
)
def test_bad_windows_are_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SearchError, match=says) as caught:
        GlitchWindows(**settings)
    assert "\n" not in str(caught.value)


def test_bad_settings_are_one_line(tmp_path: Path) -> None:
    bad: tuple[tuple[dict[str, Any], str], ...] = (
        ({"width": 0}, "width is 0 and lr 0.003"),
        ({"lr": 0.0}, "lr 0.0"),
        ({"schedule": "step"}, "schedule is 'step'"),
    )
    for settings, says in bad:
        with pytest.raises(SearchError, match=says):
            GlitchClassifier(**settings)
    with pytest.raises(SearchError, match="needs a multiple of 64"):
        fit(tmp_path, 1, {"window": 0.99})
    with pytest.raises(UserError, match="unknown key 'model'; there are: data, glitch_classifier, seed_everything"):
        run({**CONFIG, "model": {}}, 0, tmp_path)
    with pytest.raises(UserError, match="widht"):
        run({**CONFIG, "glitch_classifier": {"widht": 3}}, 0, tmp_path)
    with pytest.raises(UserError, match=r"unknown key 'data\.mute'"):
        data_fingerprint({**CONFIG, "data": {"mute": 1}})
