"""The data module: batches that depend on the seed and their number only, resume, and what is said of bad settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from diffusion_fields.data import DATASETS, FieldBatch, Fields
from diffusion_fields.data.fields import check_coords, check_signal, random_rotations, stream
from diffusion_fields.errors import FieldError
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor


def fields(dataset: str = "circle_grf", **settings: Any) -> Fields:
    data = Fields(dataset, **{"seed": 0, "batch_size": 8, "num_context": 5, **settings})
    data.setup()
    return data


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a is b is None


SMALL: dict[str, dict[str, Any]] = {
    "circle_grf": {},
    "sphere_grf": {"points": 30},
    "mesh_grf": {"options": {"modes": 2, "features": 4}},
    "digits": {"options": {"jitter": 1.0}},
    "sphere_digits": {"points": 60},
    "sdf_shapes": {"points": 50},
    "planet_topography": {"points": 60, "options": {"degree": 6}},
    "cifar10": {},
    "mnist": {"resolution": 14},
    "fashion": {},
}


@pytest.mark.parametrize("dataset", SMALL)
def test_batches_depend_on_seed_and_number_only(dataset: str, toy_data: Path) -> None:
    one, other = (fields(dataset, root=str(toy_data), **SMALL[dataset]) for _ in range(2))
    later = [one.batch(k) for k in (0, 3, 20)]
    assert same([other.batch(k) for k in (20, 3, 0)], later[::-1])
    assert not same(later[0], later[1])
    changed = fields(dataset, root=str(toy_data), seed=1, **SMALL[dataset])
    assert not torch.equal(changed.batch(0)[1], later[0][1])
    assert not torch.equal(changed.batch(0)[0].signal, later[0][0].signal)
    batch, context, query = later[0]
    n, shared = one.field_set.num_points, batch.coords.ndim == 2
    assert batch.coords.shape == ((n, one.field_set.coord_dim) if shared else (8, n, one.field_set.coord_dim))
    assert batch.signal.shape == (8, n, one.field_set.signal_dim)
    assert (context.shape, query.shape) == (((5,), (n,)) if shared else ((8, 5), (8, n)))
    assert shared == (dataset != "sdf_shapes")
    assert batch.label is None
    assert batch.signal.dtype == batch.coords.dtype == torch.float32
    if one.field_set.bounded:
        assert batch.signal.abs().max() <= 1
    assert len(one.field_set.fingerprint) == 64


def test_every_source_is_offered() -> None:
    assert set(SMALL) | {"image_folder", "voxels", "meshes", "latlon_grid"} == set(DATASETS)


def test_index_sets_are_uniform_without_replacement_and_independent() -> None:
    data = fields(num_context=12, num_query=24)
    drawn = [data.batch(k)[1:] for k in range(1000)]
    overlaps = []
    for context, query in drawn:
        assert len(context.unique()) == 12
        assert len(query.unique()) == 24
        overlaps.append(len(np.intersect1d(context, query)))
    assert abs(np.mean(overlaps) - 6) < 0.2  # 12 x 24 / 48
    hits = torch.bincount(torch.cat([context for context, _ in drawn]), minlength=48) / 1000
    assert (hits - 0.25).abs().max() < 5 * (0.25 * 0.75 / 1000) ** 0.5


def test_a_range_of_contexts() -> None:
    data = fields(num_context=[4, 7])
    assert {len(data.batch(k)[1]) for k in range(60)} == {4, 5, 6, 7}
    assert data.context_range == (4, 7)
    assert fields(num_context=9).context_range == (9, 9)


def test_an_epoch_meets_every_field_once() -> None:
    data = fields("digits", batch_size=100, labels=True)
    assert len(data.train_dataloader()) == 12
    batches = list(data.train_dataloader())
    assert data.handed_out == 12
    flat = torch.cat([batch.signal.flatten(1) for batch, _, _ in batches])
    everything = data.field_set.train(torch.arange(1297), torch.Generator()).signal.flatten(1)
    met = (torch.cdist(everything, flat) < 1e-4).float() @ torch.ones(1200)
    assert (met > 0).sum() >= 1195  # a few digits occur twice in the set itself
    again = torch.cat([batch.signal.flatten(1) for batch, _, _ in data.train_dataloader()])
    assert not torch.equal(again, flat)


def test_labels_are_those_of_their_images() -> None:
    data = fields("digits", labels=True)
    source = data.field_set.train
    batch = data.batch(7)[0]
    everything = source(torch.arange(1297), torch.Generator())
    assert batch.label is not None
    assert everything.label is not None
    nearest = torch.cdist(batch.signal.flatten(1), everything.signal.flatten(1)).argmin(1)
    assert torch.equal(batch.label, everything.label[nearest])


@pytest.mark.parametrize("dataset", ["sphere_grf", "digits", "sdf_shapes"])
def test_validation_is_fixed(dataset: str) -> None:
    data = fields(dataset, batch_size=64, **SMALL[dataset])
    first = list(data.val_dataloader())
    for k in range(3):
        data.batch(k)
    assert same(list(data.val_dataloader()), first)
    assert sum(len(batch.signal) for batch, _, _ in first) == 256
    assert not torch.equal(first[0][1], first[1][1])  # contexts are random
    joined = torch.cat([batch.signal for batch, _, _ in first])
    assert torch.equal(data.validation(256).signal, joined)
    changed = fields(dataset, seed=1, batch_size=64, **SMALL[dataset])
    assert not torch.equal(next(iter(changed.val_dataloader()))[1], first[0][1])
    assert len(fields(dataset, validation_fields=20, **SMALL[dataset]).val_dataloader()) == 3


def test_validation_is_never_trained_on() -> None:
    data = fields()
    assert not torch.equal(data.validation(8).signal, data.batch(0)[0].signal)


class Recorder(L.LightningModule):
    """Keeps a sum of what it saw, of a kind that depends on the order."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[float] = []

    def training_step(self, batch: tuple[FieldBatch, Tensor, Tensor], _: int) -> Tensor:
        fields, context, query = batch
        value = (fields.signal[:, context].mean() - fields.signal[:, query[:3]].sum()).double()
        self.seen.append(float(value))
        return ((self.weight - value) ** 2).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.1)


def trainer(path: Path, steps: int) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    keep = ModelCheckpoint(path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    return L.Trainer(max_steps=steps, callbacks=[keep], limit_val_batches=0, **quiet)  # type: ignore[arg-type]


@pytest.mark.parametrize("dataset", ["circle_grf", "digits"])
def test_a_resumed_run_goes_on_with_the_same_bits(dataset: str, tmp_path: Path) -> None:
    settings = {"steps_per_epoch": 4, **SMALL[dataset]}
    whole, cut, resumed = Recorder(), Recorder(), Recorder()
    trainer(tmp_path / "a", 10).fit(whole, datamodule=Fields(dataset, seed=0, num_context=5, **settings))
    trainer(tmp_path / "b", 6).fit(cut, datamodule=Fields(dataset, seed=0, num_context=5, **settings))
    path = tmp_path / "b" / "step=6.ckpt"  # in the middle of the second epoch
    trainer(tmp_path / "c", 10).fit(
        resumed, datamodule=Fields(dataset, seed=0, num_context=5, **settings), ckpt_path=path, weights_only=True
    )
    assert len(whole.seen) == 10
    assert cut.seen + resumed.seen == whole.seen
    assert torch.equal(resumed.weight, whole.weight)


def test_a_checkpoint_of_other_batches_is_refused() -> None:
    state = fields().state_dict()
    assert fields().load_state_dict(state) is None
    for settings, message in (
        ({"seed": 3}, "the checkpoint was made with seed 0, this run has 3"),
        ({"batch_size": 4}, "the checkpoint was made with batch_size 8, this run has 4"),
        ({"points": 47}, "the checkpoint was made with data"),
    ):
        with pytest.raises(FieldError, match=message):
            fields(**settings).load_state_dict(state)


def test_masked_points_are_left_out_of_contexts(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(40, 5, 8))
    values[:, 1:3, ::2] = np.nan
    np.savez(tmp_path / "a.npz", lat=np.linspace(-80, 80, 5), lon=np.arange(8) * 45.0, t=values)
    data = fields("latlon_grid", root=str(tmp_path), num_context=20, options={"file": "a.npz"})
    for k in range(4):
        batch, context, _ = data.batch(k)
        assert batch.mask is not None
        assert batch.mask.gather(1, context).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "mnits"}, "unknown data set 'mnits'.*did you mean mnist"),
        ({"num_context": 49}, "num_context is 49: a field of circle_grf has 48 pairs"),
        ({"num_context": [4, 60]}, "num_context is 60: a field of circle_grf has 48 pairs"),
        ({"num_context": [7, 4]}, r"num_context is \[7, 4\]: it has to be a number from 1, or \[low, high\]"),
        ({"num_context": 0}, "num_context is 0"),
        ({"num_query": 49}, "num_query is 49: a field of circle_grf has 48 pairs"),
        ({"num_query": 0}, "num_query is 0: it has to be at least 1"),
        ({"batch_size": 0}, "batch_size is 0: it has to be at least 1"),
        ({"batch_size": 1298, "dataset": "digits"}, "batch_size is 1298: digits has 1297 training fields here"),
        ({"labels": True}, "labels: circle_grf has none"),
        ({"resolution": 3}, "unknown option 'resolution' of circle_grf: there are modes, tilt, points"),
        ({"options": {"root": "x"}}, "options: root is an argument beside them"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        fields(**settings)


def test_too_many_validation_fields_are_refused() -> None:
    with pytest.raises(FieldError, match="501 validation fields asked for: digits has 500 test fields"):
        fields("digits").validation(501)


def test_coordinates_and_signals_are_checked() -> None:
    good = torch.zeros(4, 2)
    check_coords(good, 2, "c.npy")
    for bad, message in (
        (torch.zeros(4, 3), r"c.npy: coordinates of shape \(4, 3\), expected is \(N, 2\)"),
        (torch.zeros(4), r"c.npy: coordinates of shape \(4,\)"),
        (torch.zeros(0, 2), "c.npy: no coordinates"),
        (good.numpy() * np.nan, "c.npy: coordinates that are NaN or infinite"),
    ):
        with pytest.raises(FieldError, match=message):
            check_coords(bad, 2, "c.npy")
    signal = torch.zeros(2, 4, 1)
    signal[1, 2] = float("inf")
    mask = torch.ones(2, 4, dtype=torch.bool)
    for given in (None, mask):
        with pytest.raises(ValueError, match="y: the signal of field 1 at point 2 is NaN or infinite"):
            check_signal(signal, given, "y")
    mask[1, 2] = False
    check_signal(signal, mask, "y")


def test_rotations_are_uniform() -> None:
    turns = random_rotations(20_000, stream(0, "turns"))
    assert torch.allclose(torch.linalg.det(turns), torch.ones(20_000), atol=1e-4)
    trace = turns.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(float(trace.mean())) < 5 / 20_000**0.5  # mean 0, variance 1 of the character of SO(3)
    assert abs(float(trace.var()) - 1) < 0.05
    assert turns.mean(0).abs().max() < 5 * (1 / 3 / 20_000) ** 0.5
