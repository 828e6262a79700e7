"""Training: losses and penalties reach the right players, in the reference's order; a run goes on to the same bits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as L
import torch
from rpgan_landscape.data import GanData
from rpgan_landscape.experiment import run
from rpgan_landscape.module import RelativisticGAN
from shared.errors import UserError
from torch import nn

POINTS: dict[str, Any] = {
    "model": {"network": "gaussians", "width": 16, "order": "d_first", "betas": [0.0, 0.9], "lr_g": 1e-3, "lr_d": 1e-3},
    "data": {"dataset": "gaussians", "batch_size": 64, "iterations": 5},
    "trainer": {"max_epochs": 3, "enable_progress_bar": False, "accelerator": "cpu"},
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def trained(model: RelativisticGAN, data: GanData, epochs: int = 1, **trainer: Any) -> RelativisticGAN:
    L.seed_everything(0, verbose=False)
    L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **trainer,
    ).fit(model, data)  # fmt: skip
    return model


def with_settings(**changes: Any) -> dict[str, Any]:
    config = copy.deepcopy(POINTS)
    for dotted, value in changes.items():
        section, key = dotted.split("__")
        config[section][key] = value
    return config


def test_one_iteration_on_points_is_written_out_by_hand() -> None:
    """D on fakes held fixed, then G on the same latents and reals, both by Adam (section 8)."""
    L.seed_everything(0, verbose=False)
    model = RelativisticGAN(**{**POINTS["model"], "normalize_last": "on"})
    g, d = copy.deepcopy(model.G), copy.deepcopy(model.D)
    data = GanData("gaussians", batch_size=64, iterations=1, seed=1)
    data.setup("fit")
    x = data.batch(0).x
    L.seed_everything(0, verbose=False)
    z = torch.randn(64, 2)
    by_g, by_d = (torch.optim.Adam(net.parameters(), 1e-3, betas=(0.0, 0.9)) for net in (g, d))
    nn.functional.softplus(d(g(z).detach()) - d(x)).mean().backward()
    by_d.step()
    with torch.no_grad():
        d[-1].weight.div_(d[-1].weight.norm())
    by_g.zero_grad()
    nn.functional.softplus(d(x) - d(g(z))).mean().backward()
    by_g.step()
    trained(model, GanData("gaussians", batch_size=64, iterations=1, seed=1))
    for ours, theirs in ((model.G, g), (model.D, d)):
        for a, b in zip(ours.parameters(), theirs.parameters()):
            assert torch.allclose(a, b, atol=1e-6)


def test_images_take_reals_of_their_own_for_every_step() -> None:
    model = RelativisticGAN("cnn32", 4, d_steps=5)
    assert model.reals_per_iteration == 6
    assert RelativisticGAN("cnn32", 4, pairing="separable").reals_per_iteration == 1  # G's loss needs none
    seen: list[str] = []
    data = GanData("digits", batch_size=8, iterations=1, seed=0)
    model.step_critic = lambda opt, real, z: seen.append(f"d{real.mean():.6f}{z.mean():.6f}") or torch.zeros(())  # type: ignore[method-assign,func-returns-value]
    model.step_generator = lambda opt, real, z: seen.append(f"g{real.mean():.6f}{z.mean():.6f}") or torch.zeros(())  # type: ignore[method-assign,func-returns-value]
    trained(model, data)
    assert [s[0] for s in seen] == ["g", "d", "d", "d", "d", "d"]
    assert len({s[1:] for s in seen}) == 6


def test_penalties_change_d_alone_and_gamma_falls() -> None:
    plain, penalised = (
        trained(RelativisticGAN(**{**POINTS["model"], "r1": r, "r2": r}), GanData("gaussians", iterations=1, seed=0))
        for r in (0.0, 5.0)
    )
    assert any(not torch.equal(a, b) for a, b in zip(plain.D.parameters(), penalised.D.parameters()))
    model = RelativisticGAN(**{**POINTS["model"], "r1": 1.0, "gamma_end": 0.1})
    trained(model, GanData("gaussians", iterations=4, seed=0))
    values = []
    for model.iteration in (0, 2, 4):
        values.append(model._gamma())
    assert values == pytest.approx([1.0, 0.55, 0.1])


def test_the_learning_rate_falls_to_zero_from_where_it_is_told() -> None:
    model = RelativisticGAN(**{**POINTS["model"], "decay_from": 0.5})
    trained(model, GanData("gaussians", iterations=8, seed=0))
    rates = []
    for model.iteration in (0, 4, 6, 7):
        model._schedule()
        rates.append(model.trainer.optimizers[0].param_groups[0]["lr"])
    assert rates == pytest.approx([rates[0], 1e-3, 5e-4, 2.5e-4])


def test_the_average_holds_buffers_too() -> None:
    model = RelativisticGAN("cnn32", 4, ema=0.5)
    trained(model, GanData("digits", batch_size=8, iterations=3, seed=0))
    assert model.average is not None
    assert model.sampler is model.average.module
    own, mean = model.G.deconv1_bn.running_mean, model.sampler.deconv1_bn.running_mean
    assert not torch.equal(own, mean)
    assert mean.abs().max() > 0


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    config = with_settings(model__ema=0.9, model__r1=0.1, model__r2=0.1, trainer__max_epochs=4)
    whole = run(config, 0, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(self: RelativisticGAN) -> None:
        original(self)
        if self.current_epoch == 2:
            raise Stop

    original = RelativisticGAN.on_train_epoch_end
    import shared.cli as cli

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RelativisticGAN, "on_train_epoch_end", stop)
        with pytest.raises(Stop):
            cli.train_and_test(
                RelativisticGAN, GanData, config, 0, tmp_path / "killed", "rpgan_landscape", "x", "t", every_seconds=0
            )
    assert (tmp_path / "killed" / "last.ckpt").is_file()
    assert run(config, 0, tmp_path / "killed") == whole


def test_divergence_is_noticed_and_the_run_ends(tmp_path: Path) -> None:
    config = with_settings(model__lr_g=1e4, model__optimiser="sgd", model__kind="ls", trainer__max_epochs=30)
    found = run(config, 0, tmp_path)
    assert found["diverged"] == 1
    assert found["diverged_at"] < 150
    assert len(found["curve/modes"]) < 30
    calm = run(with_settings(), 0, tmp_path / "calm")
    assert (calm["diverged"], calm["diverged_at"]) == (0, 15)


def test_two_clusters_train_with_fixed_pairs(tmp_path: Path) -> None:
    config = {
        "model": {"network": "two_cluster", "pairing": "fixed", "order": "d_first", "d_steps": 10, "g_steps": 10,
                  "optimiser": "sgd", "betas": [0.9, 0.0], "lr_g": 1e-2, "lr_d": 1e-2},
        "data": {"dataset": "two_cluster", "iterations": 50},
        "trainer": {"max_epochs": 1, "enable_progress_bar": False},
    }  # fmt: skip
    assert 0.3 < run(config, 0, tmp_path)["d_loss"] < 0.8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model__network": "cnn33"}, "unknown network 'cnn33'"),
        ({"model__kind": "logit"}, "kind"),
        ({"model__d_steps": 0}, "d_steps is 0 and g_steps 1: both have to be at least 1"),
        ({"model__lr_g": -1.0}, "lr_g is -1.0"),
        ({"model__ema": 1.0}, r"ema is 1.0: a decay lies in \[0, 1\)"),
        ({"model__decay_from": 2.0}, "decay_from is 2.0"),
        ({"model__r1": -1.0}, "a penalty's weight is not negative"),
        ({"model__network": "cnn32"}, "network cnn32 makes images of 32 x 32 pixels, gaussians has points"),
        ({"model__network": "cnn32", "model__width": 4, "data__dataset": "digits", "model__normalize_last": "on"},
         "normalize_last is for the networks on points"),
        ({"model__colour": "red"}, "unknown key 'model.colour'"),
        ({"model__pairing": "fixed"}, "model.pairing is fixed and data.pairing batch: fixed pairs need data in a"),
        ({"data__dataset": "gausians"}, "did you mean gaussians"),
    ],
)  # fmt: skip
def test_bad_settings_are_one_line(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run(with_settings(**settings), 0, tmp_path)
    assert "\n" not in str(caught.value)
