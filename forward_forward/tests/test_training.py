"""Training through Lightning: schedules, options, resumption, two processes, and what a user gets wrong."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as L
import torch
import yaml
from forward_forward.baselines import Backprop
from forward_forward.data import EpochBatches, PairData, shifted
from forward_forward.experiment import run
from forward_forward.module import ForwardForward
from forward_forward.optimiser import SmoothedSGD
from forward_forward.pair_module import PairModule, gain
from shared.cli import train_and_test
from shared.errors import UserError
from shared.runs.plan import load_plan

HERE = Path(__file__).resolve().parent.parent
TRAINER: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def fit(module: PairModule, epochs: int = 1, train_size: int = 320, **trainer: Any) -> PairModule:
    torch.manual_seed(0)
    data = PairData("digits", batch_size=32, label_slots="prepend", train_size=train_size)
    options = {**TRAINER, "enable_checkpointing": False, "limit_val_batches": 0, **trainer}
    L.Trainer(max_epochs=epochs, **options).fit(module, data)
    return module


def weights(module: PairModule) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.net.parameters()])  # type: ignore[union-attr]


def test_greedy_trains_one_layer_at_a_time() -> None:
    module = ForwardForward([16, 16], gamma="prev", schedule="greedy")
    seen: list[list[int]] = []
    original = module.update

    def spy(passed: Any, layer: int, *rest: Any) -> None:
        seen.append([module.current_epoch, layer, len(passed.h)])
        original(passed, layer, *rest)

    module.update = spy  # type: ignore[method-assign]
    fit(module, epochs=4)
    assert {tuple(entry) for entry in seen} == {(0, 0, 1), (1, 0, 1), (2, 1, 2), (3, 1, 2)}
    with pytest.raises(UserError, match="multiple of 2"):
        fit(ForwardForward([16, 16], gamma="prev", schedule="greedy"), epochs=3)


def test_alternate_uses_its_own_minibatch_for_each_layer_and_fresh_gamma() -> None:
    module = ForwardForward([16, 16, 16], schedule="alternate")
    inputs, shapes = [], []
    original = module.forward_pairs

    def spy(images: torch.Tensor, *rest: Any, **options: Any) -> Any:
        inputs.append(images.clone())
        out = original(images, *rest, **options)
        shapes.append((module.net.weights[0].detach().clone(), out[0].goodness.clone()))
        return out

    module.forward_pairs = spy  # type: ignore[method-assign]
    fit(module, train_size=32)
    assert len(inputs) == 3  # one sweep: every layer saw every sample once
    assert not torch.equal(inputs[0], inputs[1])
    assert torch.equal(inputs[0].sum(0).sort().values, inputs[1].sum(0).sort().values) or torch.allclose(
        inputs[0].sum(), inputs[1].sum(), rtol=1e-4
    )
    assert not torch.equal(shapes[0][0], shapes[1][0])  # layer 2 saw layer 1 already updated


def test_stale_gamma_differs_from_fresh_gamma() -> None:
    fresh = weights(fit(ForwardForward([16, 16], schedule="alternate")))
    stale = weights(fit(ForwardForward([16, 16], schedule="alternate", stale_gamma=True)))
    assert not torch.equal(fresh, stale)


@pytest.mark.parametrize("schedule", ["alternate", "simultaneous"])
def test_gamma_weight_zero_is_plain_forward_forward(schedule: Any) -> None:
    plain = weights(fit(ForwardForward([16, 16], gamma="none", schedule=schedule)))
    weighted = weights(fit(ForwardForward([16, 16], gamma="all", gamma_weight=0.0, schedule=schedule)))
    torch.testing.assert_close(plain, weighted, rtol=1e-5, atol=1e-6)


def test_the_default_temperature_does_not_collapse() -> None:
    assert ForwardForward([128, 128], schedule="alternate").tau == pytest.approx(12.8)
    assert ForwardForward([128, 128], schedule="alternate", norm="none").tau == 1.0
    assert ForwardForward([128, 128], schedule="alternate", tau=1.0).tau == 1.0
    assert ForwardForward([128, 128]).tau == 1.0


def test_frozen_layers_stay() -> None:
    one = fit(ForwardForward([16, 16], freeze_after=[1, None]), epochs=1)
    three = fit(ForwardForward([16, 16], freeze_after=[1, None], decay="constant"), epochs=3)
    assert torch.equal(one.net.weights[0], three.net.weights[0])  # type: ignore[union-attr, index]
    assert not torch.equal(one.net.weights[1], three.net.weights[1])  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    "options",
    [
        {"negatives": "hard", "head": True},
        {"negatives": "permute"},
        {"objective": "entropy"},
        {"objective": "entropy_raw", "weight_decay": 0.1},
        {"peer": "hinton", "optimiser": "smoothed", "lr": 0.01, "init": "fan_in"},
        {"dropout": 0.1},
        {"optimiser": "sgd"},
        {"gamma": [[0, 1], [0, 0]]},
    ],
)
def test_options_train_to_finite_weights(options: dict[str, Any]) -> None:
    module = ForwardForward([16, 16], **options)
    fit(module, epochs=1)
    start = ForwardForward([16, 16], **options)
    fit(start, epochs=1, limit_train_batches=1, train_size=32)
    assert torch.isfinite(weights(module)).all()
    assert not torch.equal(weights(module), weights(start))


def test_loader_leaves_the_images_alone() -> None:
    torch.manual_seed(0)
    data = PairData("digits", batch_size=32, label_slots="overwrite", train_size=100)
    data.setup("fit")
    before = data.train_images.clone()
    total = sum(len(labels) for _, labels, _ in EpochBatches(data))
    assert total == 100  # the last, smaller batch is not dropped
    assert torch.equal(before, data.train_images)
    assert data.image_size == 54


def test_shift_moves_by_pixels() -> None:
    image = torch.arange(1.0, 10.0).reshape(1, 9)
    moved = shifted(image, torch.tensor([[1, -1]]), (1, 3, 3)).reshape(3, 3)
    assert moved.tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]


def test_smoothed_sgd_by_hand() -> None:
    w = torch.nn.Parameter(torch.ones(1, 1))
    optimiser = SmoothedSGD([w], lr=0.1, weight_decay=0.5)
    w.grad = torch.full((1, 1), 2.0)
    optimiser.step()
    assert w.item() == pytest.approx(1 - 0.1 * (0.1 * 2 + 0.5 * 1))
    assert [round(gain("second_half", e, 10), 3) for e in (0, 4, 5, 9)] == [1, 1, 1, 0.3]


def test_collapse_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="forward_forward.module"):
        fit(ForwardForward([64, 64, 64], theta=0.1), train_size=32)
        assert "collapse" in caplog.text
        caplog.clear()
        fit(ForwardForward([64, 64, 64], theta=1.0), train_size=32)
        assert "collapse" not in caplog.text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"theta": 0.0}, "theta is 0.0"),
        ({"theta": -1.0}, "theta is -1.0"),
        ({"tau": 0.0}, "tau"),
        ({"gamma": "every"}, "unknown gamma mask"),
        ({"gamma": [[1, 0], [0, 0]]}, "diagonal"),
        ({"schedule": "greedy"}, "greedy"),
        ({"negatives": "hard"}, "read-out"),
        ({"stale_gamma": True}, "alternate"),
        ({"freeze_after": [1]}, "freeze_after"),
        ({"freeze_after": [1, None], "schedule": "greedy", "gamma": "none"}, "by itself"),
        ({"stale_gamma": True, "schedule": "alternate", "dropout": 0.1}, "same pairs"),
        ({"tau_unit": "width"}, "without tau"),
        ({"objective": "entropy", "schedule": "alternate"}, "simultaneous"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_bad_settings(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        ForwardForward([16, 16], **options)


def test_backprop_baselines_learn() -> None:
    for form in ("label", "pairwise"):
        module = Backprop([32, 32], form=form)  # type: ignore[arg-type]
        fit(module, epochs=20, train_size=1000, limit_val_batches=1.0, check_val_every_n_epoch=20)
        assert module.curves["test/error"][-1] < 25


def digits_config(**changes: Any) -> dict[str, Any]:
    config = yaml.safe_load((HERE / "configs/digits.yaml").read_text())
    config["model"]["init_args"].update({"hidden": [16, 16], **changes})
    config["trainer"]["max_epochs"] = 2
    return config


def test_an_experiment_run_returns_every_metric(tmp_path: Path) -> None:
    metrics = run(digits_config(), 0, tmp_path)
    for name in (
        "error",
        "error_layer1",
        "error_prefix2",
        "error_without_layer1",
        "entropy_positive_scale_free",
        "gain_of_later_layers",
        "smallest_gain_of_a_layer",
    ):
        assert isinstance(metrics[f"test/{name}"], float)
    assert len(metrics["curve/test/error"]) == 2
    assert metrics["test/error_prefix1"] == metrics["test/error_layer1"]
    assert metrics["test/error_prefix2"] == metrics["test/error"]
    again = run(digits_config(), 0, tmp_path / "again")
    assert metrics == again  # bit-equal: all draws follow from (seed, epoch)
    assert metrics != run(digits_config(), 1, tmp_path / "other")


def test_what_is_logged_while_training() -> None:
    """Speed is logged but is no result; the entropy objective logs its own loss and its own saturation."""
    module = ForwardForward([16, 16], objective="entropy")
    logged: dict[str, float] = {}
    module.log = lambda name, value, **_: logged.update({name: float(value)})  # type: ignore[method-assign]
    fit(module, epochs=1, limit_val_batches=2)
    assert logged["test/images_per_second"] > 0
    assert not any("per_second" in name for name in module.results())
    assert abs(logged["train/loss_layer1"]) < 1  # the sigmoid loss at theta = width would be about 8
    assert logged["train/loss_layer1"] == logged["train/loss_layer2"]
    assert 0 <= logged["train/saturated_layer1"] < 50


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    """DDP over gloo: the closed-form gradients are summed over processes, each with its rows of the same minibatch."""
    script = """
import sys, torch, pytorch_lightning as L
torch.set_num_threads(1)
from forward_forward.data import PairData
from forward_forward.module import ForwardForward
L.seed_everything(0, verbose=False)
n = int(sys.argv[1])
options = dict(strategy="ddp", devices=n) if n > 1 else {}
trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                    enable_model_summary=False, accelerator="cpu", limit_val_batches=0, **options)
module = ForwardForward([16, 16], peer="hinton")
trainer.fit(module, PairData("digits", batch_size=32, label_slots="prepend", train_size=200))
if trainer.is_global_zero:
    torch.save([p.detach() for p in module.net.parameters()], sys.argv[2])
"""
    path = tmp_path / "two.py"
    path.write_text(script)
    saved = []
    for n in (1, 2):
        out = tmp_path / f"{n}.pt"
        done = subprocess.run(
            [sys.executable, str(path), str(n), str(out)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
        saved.append(torch.load(out, weights_only=True))
    for one, two in zip(*saved):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def one_batch(config: dict[str, Any], run_dir: Path, root: Path) -> dict[str, Any]:
    """A configuration as a user has it, for one batch, on small files in the data sets' own formats."""
    config = copy.deepcopy(config)
    if config["data"]["dataset"] != "digits":
        config["data"]["root"] = str(root)
        config["data"].pop("train_size", None)
    config["trainer"]["fast_dev_run"] = True
    return train_and_test(
        None, PairData, config, 0, run_dir, paper="forward_forward", experiment=run_dir.name, tier="test"
    )


@pytest.mark.parametrize("path", sorted((HERE / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_configuration_runs_one_batch(path: Path, tmp_path: Path, toy_data: Path) -> None:
    assert 0 <= one_batch(yaml.safe_load(path.read_text()), tmp_path, toy_data)["test/error"] <= 100


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["gpu", "paper"])
def test_every_experiment_of_a_large_tier_runs_one_batch(tier: str, tmp_path: Path, toy_data: Path) -> None:
    experiments = load_plan(HERE, tier).experiments
    assert len({experiment.name for experiment in experiments}) == len(experiments) >= 21
    for experiment in experiments:
        metrics = one_batch(experiment.config, tmp_path / experiment.name, toy_data)
        assert 0 <= metrics["test/error"] <= 100, experiment.name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model.init_args.gama", "all"], "gama"),
        (["--model.init_args.theta", "0"], "theta is 0"),
        (["--model.init_args.gamma", "every"], "unknown gamma mask"),
    ],
)
def test_command_line_mistakes_are_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(HERE / "train.py"),
        "fit",
        "--config",
        str(HERE / "configs/digits.yaml"),
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_no_data_at_the_cpu_tier(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train-images-idx3-ubyte"):
        PairData("mnist", root=str(tmp_path)).setup("fit")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": "alternate", "dropout": 0.1},
        {"schedule": "greedy", "gamma": "prev"},
        {"optimiser": "smoothed", "lr": 0.01, "peer": "hinton", "head": True, "negatives": "hard"},
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    """Optimiser states, running means, step size and the draws of each epoch go on as if nothing had happened."""
    from shared.resume import ResumeCheckpoint

    whole = fit(ForwardForward([16, 16], **options), epochs=4)
    last = tmp_path / "last.ckpt"

    class Killed(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            if trainer.current_epoch == 3:
                raise KeyError("killed")

    with pytest.raises(KeyError, match="killed"):
        fit(ForwardForward([16, 16], **options), epochs=4, callbacks=[ResumeCheckpoint(last, 0.0), Killed()])
    torch.manual_seed(0)
    resumed = ForwardForward([16, 16], **options)
    data = PairData("digits", batch_size=32, label_slots="prepend", train_size=320)
    epochs: list[int] = []

    class Counted(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            epochs.append(trainer.current_epoch)

    options_of_trainer = {**TRAINER, "enable_checkpointing": False, "limit_val_batches": 0}
    trainer = L.Trainer(max_epochs=4, callbacks=[Counted()], **options_of_trainer)
    trainer.fit(resumed, data, ckpt_path=str(last), weights_only=True)
    assert epochs == [3]  # neither repeated from the start nor skipped
    assert torch.equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("optimiser", ["adam", "smoothed"])
def test_the_fused_step_is_the_step(optimiser: Any) -> None:
    """K2b on the optimiser's own state: the same weights, and a run may switch from one to the other."""
    options: dict[str, Any] = {"optimiser": optimiser, "weight_decay": 1e-3, "lr": 1e-2}
    plain, fused = (fit(ForwardForward([16, 12, 8], fused_step=f, **options), epochs=2) for f in (False, True))
    assert torch.allclose(weights(plain), weights(fused), atol=1e-5)
    other = fit(ForwardForward([16, 12, 8], fused_step=True, **{**options, "lr": 2e-2}), epochs=2)
    assert not torch.allclose(weights(plain), weights(other), atol=1e-3)

    def switch(self: ForwardForward) -> None:
        self.fused_step = self.current_epoch == 1

    with pytest.MonkeyPatch.context() as patch:
        original = ForwardForward.on_train_epoch_start
        patch.setattr(ForwardForward, "on_train_epoch_start", lambda self: (original(self), switch(self))[0])
        mixed = fit(ForwardForward([16, 12, 8], **options), epochs=2)
    assert torch.allclose(weights(plain), weights(mixed), atol=1e-5)
    with pytest.raises(UserError, match="fused_step is for the optimisers"):
        ForwardForward([8], optimiser="sgd", fused_step=True)
    with pytest.raises(UserError, match="without peer normalisation"):
        ForwardForward([8], peer="hinton", fused_step=True)
