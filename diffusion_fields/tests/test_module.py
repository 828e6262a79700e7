"""The trainer: losses and floors, an exact average, a resumed run, two processes, and what a user gets wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from diffusion_fields.controls import ContextBlind
from diffusion_fields.data import Fields
from diffusion_fields.errors import FieldError
from diffusion_fields.experiment import run
from diffusion_fields.module import DiffusionField
from diffusion_fields.oracle import bayes_mse
from shared.errors import UserError
from shared.resume import ResumeCheckpoint

SIZE: dict[str, Any] = {
    "num_freq": 1, "d_model": 8, "num_latents": 4, "d_latents": 8, "num_blocks": 1, "self_per_block": 1, "heads": 2,
}  # fmt: skip
MODEL: dict[str, Any] = {"size": SIZE, "warmup": 2, "ema": 0.9, "sampling": {"steps": 3, "samples": 8}}
DATA: dict[str, Any] = {
    "batch_size": 8, "num_context": 5, "num_query": 6, "steps_per_epoch": 3, "validation_fields": 16,
    "options": {"points": 12},
}  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def trainer(folder: Path, epochs: int = 3, **more: Any) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder, **more,
    )  # fmt: skip


def fit(
    folder: Path, model: dict[str, Any], data: dict[str, Any], resume: Path | None = None, **more: Any
) -> DiffusionField:
    L.seed_everything(0, verbose=False)
    module = DiffusionField(**{**MODEL, **model})
    trainer(folder, **more).fit(module, Fields(**{**DATA, **data}), ckpt_path=resume, weights_only=True)
    return module


def everything(module: DiffusionField) -> dict[str, torch.Tensor]:
    """Network, average with its counter, Adam, curves, and the place in the data."""
    out = dict(module.state_dict())
    (optimiser,) = module.trainer.optimizers
    for place, state in optimiser.state_dict()["state"].items():
        out |= {f"adam {place} {key}": torch.as_tensor(value) for key, value in state.items()}
    out |= {name: torch.tensor(values) for name, values in module.curves.items()}
    return out | {"places": torch.tensor([module.fields.handed_out, module.trainer.global_step])}


class Killed(Exception):
    pass


class Kill(L.Callback):
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 7:  # in the third epoch
            raise Killed


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "v": ({}, {}),
    "eps, independent noise": ({"prediction": "eps", "noise": "independent"}, {}),
    "flow, contexts of many sizes": ({"prediction": "flow"}, {"num_context": [2, 6]}),
    "dropout": ({"size": {**SIZE, "dropout": 0.2}}, {}),
    "by class": (
        {"conditional": True},
        {"dataset": "digits", "labels": True, "options": None, "num_context": 9, "num_query": 10},
    ),
    "bodies": ({}, {"dataset": "sdf_shapes", "options": {"points": 20}}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    """Invariant 8: weights, average, optimiser, losses and the place in the data."""
    model, data = KINDS[kind]
    whole = everything(fit(tmp_path, model, data))
    saved = tmp_path / "last.ckpt"
    with pytest.raises(Killed):
        fit(tmp_path, model, data, callbacks=[ResumeCheckpoint(saved, 0.0), Kill()])
    torch.manual_seed(99)  # another process has other global numbers
    again = [ResumeCheckpoint(tmp_path / "again.ckpt", 1e9)]  # it carries the random numbers too
    resumed = everything(fit(tmp_path, model, data, resume=saved, callbacks=again))
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert int(whole["places"][1]) == 9


def test_the_average_follows_every_step_and_is_what_is_measured(tmp_path: Path) -> None:
    module = fit(tmp_path, {}, {})
    assert int(module.average.n_averaged) == 1 + 9
    assert not torch.equal(module.ema_net().latents, module.net.latents)
    data = module.fields
    for p in module.net.parameters():  # whatever the trained weights are, nothing that is measured changes
        p.data.fill_(7.0)
    module.reset_sums()
    for k, batch in enumerate(data.val_dataloader()):
        module.validation_step(batch, k)
    assert module.reading("val")["val/loss"] == pytest.approx(module.curves["curve/val/loss"][-1], rel=1e-6)


class Perfect(torch.nn.Module):
    """The Bayes estimate of the noise for fields on one grid, as a network that predicts eps."""

    def __init__(self, truth: Any, coords: torch.Tensor, schedule: Any) -> None:
        super().__init__()
        self.K, self.coords, self.schedule = truth.covariance(coords.numpy()), coords, schedule

    def forward(
        self, cc: torch.Tensor, cs: torch.Tensor, t: torch.Tensor, qc: torch.Tensor, qs: torch.Tensor
    ) -> torch.Tensor:
        place = [int((self.coords == x).all(1).nonzero()) for x in cc]
        asked = [int((self.coords == x).all(1).nonzero()) for x in qc]
        out = torch.empty_like(qs)
        for b, step in enumerate(t.tolist()):
            abar = float(self.schedule.alphas_cumprod[step])
            for j, q in enumerate(asked):
                rows = place if q in place else [*place, q]
                S = abar * self.K[np.ix_(rows, rows)] + (1 - abar) * np.eye(len(rows))
                values = cs[b, :, 0].double().numpy()
                values = values if q in place else np.append(values, float(qs[b, j, 0]))
                e = np.zeros(len(rows))
                e[rows.index(q)] = 1
                out[b, j, 0] = float(np.sqrt(1 - abar) * np.linalg.solve(S, e) @ values)
        return out


def test_a_perfect_network_has_context_efficiency_1_and_a_blind_one_0(tmp_path: Path) -> None:
    """The yardstick itself: the optimum reaches the floor, and no use of the context is 0."""
    module = fit(tmp_path, {"prediction": "eps"}, {"validation_fields": 256, "batch_size": 128}, epochs=1)
    data = module.fields
    coords = data.field_set.shared_coords
    assert coords is not None
    for net, expected in ((Perfect(data.truth, coords, module.schedule), 1), (OwnOnly(module.schedule), 0)):
        module.average.module = net
        module.reset_sums()
        above = [
            module.add_errors(fields, module.times()[torch.arange(128) % 50], c, q, torch.Generator().manual_seed(k))
            for k in range(4)
            for fields, c, q in data.val_dataloader()
        ]
        found = module.reading("val")
        assert found["val/context_efficiency"] == pytest.approx(expected, abs=0.15)
        gap = torch.cat(above)  # of each field, to the Bayes floor at its own t and context
        error = float(gap.std() / len(gap) ** 0.5)
        assert (abs(float(gap.mean())) < 3 * error) == (expected == 1)


class OwnOnly(torch.nn.Module):
    def __init__(self, schedule: Any) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, cc: Any, cs: Any, t: torch.Tensor, qc: Any, qs: torch.Tensor) -> torch.Tensor:
        return ((1 - self.schedule.alphas_cumprod[t]).sqrt().float())[:, None, None] * qs


def test_floors_are_of_the_same_contexts_and_levels(tmp_path: Path) -> None:
    module = fit(tmp_path, {}, {}, epochs=1)
    data = module.fields
    fields = data.validation(16)
    context, query = torch.tensor([0, 3, 7]), torch.tensor([1, 2, 3, 11])
    t = torch.tensor([10, 500] * 8)
    module.reset_sums()
    module.add_errors(fields, t, context, query, torch.Generator().manual_seed(0))
    K = data.truth.covariance(data.field_set.shared_coords.numpy())  # type: ignore[union-attr]
    by_hand = [bayes_mse(K, context.numpy(), float(module.schedule.alphas_cumprod[s]))[query.numpy()].mean() for s in t]
    assert module.sums["floor"] == pytest.approx(sum(by_hand), rel=1e-10)
    assert module.sums["own"] == pytest.approx(float(module.schedule.alphas_cumprod[t].sum()), rel=1e-12)


def test_the_own_only_floor_of_fields_whose_variance_varies(tmp_path: Path) -> None:
    """Of a variance s at a point: abar s / (abar s + 1 - abar), averaged over the queries."""
    settings = {"dataset": "mesh_grf", "options": {"modes": 2, "features": 3}, "validation_fields": 8}
    size = {**SIZE, "coord_embedding": "none"}
    module = fit(tmp_path, {"size": size}, settings, epochs=1)
    data = module.fields
    query, t = torch.tensor([0, 100, 400]), torch.tensor([10, 300, 500, 700] * 2)
    module.reset_sums()
    module.add_errors(data.validation(8), t, torch.arange(5), query, torch.Generator().manual_seed(0))
    s = data.truth.covariance(data.field_set.shared_coords.double().numpy()).diagonal()[query.numpy()]
    assert s.std() > 0.05
    abar = module.schedule.alphas_cumprod[t].numpy()[:, None]
    assert module.sums["own"] == pytest.approx(float((abar * s / (abar * s + 1 - abar)).mean(1).sum()), rel=1e-6)


def test_a_blind_network_sees_no_context(tmp_path: Path) -> None:
    """Neither in training nor in the three calls of sampling; its gradient by the context's values is zero."""
    module = fit(tmp_path, {"context_blind": True}, {}, epochs=1)
    net = module.ema_net()
    assert isinstance(net, ContextBlind)
    coords, t = torch.randn(4, 2), torch.tensor([3, 7])
    signal, other, query = torch.randn(2, 4, 1), torch.randn(2, 4, 1), torch.randn(2, 4, 1)
    assert torch.equal(net(coords, signal, t, coords, query), net(coords, other, t, coords, query))
    assert torch.equal(net.encode_context(coords, signal, t), net.encode_context(coords, other, t))
    sighted = fit(tmp_path, {}, {}, epochs=1).ema_net()
    assert not torch.equal(sighted.encode_context(coords, signal, t), sighted.encode_context(coords, other, t))


def test_classes_are_hidden_as_often_as_asked(tmp_path: Path) -> None:
    module = DiffusionField(**{**MODEL, "conditional": True, "label_drop": 0.2})
    data = Fields(**{**DATA, "dataset": "digits", "labels": True, "options": None, "batch_size": 400, "num_context": 9})
    data.setup()
    module.build(data)
    seen = []

    def watch(net: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs["label"])

    module.net.register_forward_pre_hook(watch, with_kwargs=True)
    module.loss(data.batch(0))
    share = float((seen[0] == 10).float().mean())
    assert 0.14 < share < 0.26
    assert set(seen[0].tolist()) <= set(range(11))


def test_warm_up_then_half_a_cosine(tmp_path: Path) -> None:
    module = fit(tmp_path, {"lr": 1.0, "warmup": 4}, {"steps_per_epoch": 20}, epochs=1)
    (scheduler,) = (each.scheduler for each in module.trainer.lr_scheduler_configs)
    rate = scheduler.lr_lambdas[0]
    assert [rate(k) for k in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert rate(12) == pytest.approx(0.5)
    assert rate(20) == pytest.approx(0, abs=1e-12)


def test_training_lowers_the_loss_and_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    settings = {"data": {**DATA, "steps_per_epoch": 60}, "trainer": {"max_epochs": 2, "accelerator": "cpu"}}
    config = {"model": {**MODEL, "lr": 3e-3}, **settings}
    first, second = (run(copy.deepcopy(config), 3, tmp_path / str(i)) for i in range(2))
    assert first.keys() == second.keys()
    assert list((tmp_path / "0").glob("wandb/offline-run*/files/media/images/samples/*.png"))
    for name, value in first.items():  # least squares of samples may differ in the last bit by where arrays lie
        assert value == (
            second[name] if name.startswith(("curve", "test/")) else pytest.approx(second[name], rel=1e-12)
        )
    losses = first["curve/val/loss"]
    assert losses[-1] < losses[0]
    assert first["test/bayes_floor"] < first["test/loss"] < 1.2 * first["test/own_only"]
    assert run(config, 4, tmp_path / "other")["test/loss"] != first["test/loss"]


@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        ({"lr": 0.0}, {}, "lr is 0.0: it has to be > 0"),
        ({"ema": 1.0}, {}, r"ema is 1.0: the decay of an average lies in \[0, 1\)"),
        ({"warmup": 9}, {}, "warmup is 9 steps of 9: it has to end before the last"),
        ({"size": {**SIZE, "d_modl": 8}}, {}, "d_modl"),
        ({"sampling": {"stps": 3}}, {}, "sampling.stps: no such key"),
        ({"sampling": {"looks": {"a": {"numcontext": 3}}}}, {}, "sampling.looks.a.numcontext: no such key"),
        (
            {"sampling": {"method": "euler"}},
            {},
            "sampling.method: Input should be 'ddpm'",
        ),
        ({"sampling": {"eta": 3}}, {}, "sampling.eta: Input should be less than or equal to 1"),
        ({"sampling": {"looks": ["a"]}}, {}, "sampling.looks: Input should be a valid dictionary"),
        ({"sampling": {"method": "flow"}}, {}, "sampling: method flow does not sample a network that predicts v"),
        ({"sampling": {"observed": 6}}, {}, "sampling.observed is 6: the context of 5 has to hold them all"),
        ({"sampling": {"looks": {"a": {"num_context": 99}}}}, {}, "looks.a: num_context is 99, of 12 queries"),
        ({"sampling": {"looks": {"a": {"context": "regular"}}}}, {}, "looks.a: a regular context of 5 does not fit"),
        ({"sampling": {"looks": {"a": {"guidance": 1.0}}}}, {}, "looks.a: guidance needs classes"),
        ({"conditional": True}, {}, "conditional: circle_grf has no classes"),
        ({}, {"num_context": 13}, "num_context is 13: a field of circle_grf has 12 pairs"),
        ({"prediction": "score"}, {}, "prediction is 'score'; there are: eps, v, x0, flow"),
    ],
)
def test_bad_settings_are_one_line(model: dict[str, Any], data: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=says) as caught:
        fit(tmp_path, model, data)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss is nan at step .*: training has diverged; lower model.lr"):
        fit(tmp_path, {"lr": 1e30, "warmup": 0}, {"steps_per_epoch": 60}, epochs=1)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    saved = tmp_path / "last.ckpt"
    fit(tmp_path, {}, {}, callbacks=[ResumeCheckpoint(saved, 0.0)])
    with pytest.raises(UserError, match="was trained with prediction 'v', this configuration has 'eps'"):
        fit(tmp_path, {"prediction": "eps"}, {}, resume=saved)
    with pytest.raises(UserError, match=r"was trained with num_context \[5, 5\], this configuration has \[4, 4\]"):
        fit(tmp_path, {}, {"num_context": 4}, resume=saved)
    with pytest.raises(UserError, match="batch_size"):
        fit(tmp_path, {}, {"batch_size": 4}, resume=saved)
