"""The Lightning path: a resumed run, mixed precision, looks and results, and what a user gets wrong."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as L
import torch
from diggan.data import LimitedImages
from diggan.experiment import run
from diggan.features import LocalFeatures
from diggan.gradient_gap import DIGRegularizer
from diggan.module import DigGAN
from diggan.regulariser import RegulariserError
from diggan.rivals import LeCam
from diggan.training import Batch, Game, adam
from shared.errors import UserError
from shared.resume import ResumeCheckpoint

from diggan import nets

SMALL: dict[str, Any] = {"width": 16, "samples": 60, "final_samples": 60, "ema_start": 5}
DIGITS: dict[str, Any] = {"dataset": "digits", "num_samples": 40, "batch_size": 8, "iterations": 4}
DIG: dict[str, Any] = {"regulariser": "dig", "weight": 10.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent anywhere, and the features' classifier is trained for five steps."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    original = LocalFeatures.__init__

    def init(self: LocalFeatures, source: Any) -> None:
        original(self, source)
        self.steps = 5

    monkeypatch.setattr(LocalFeatures, "__init__", init)


def fit(
    model: dict[str, Any],
    data: dict[str, Any],
    folder: Path,
    epochs: int = 3,
    resume: Path | None = None,
    **trainer: Any,
) -> DigGAN:
    L.seed_everything(0, verbose=False)
    module, images = DigGAN(**{**SMALL, **model}), LimitedImages(**{**DIGITS, **data})
    if isinstance(module.regulariser, LeCam):
        module.regulariser.start = 2  # of 1000: the penalty is in most iterations here
    L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **trainer,
    ).fit(module, images, ckpt_path=resume, weights_only=True)  # fmt: skip
    return module


def everything(module: DigGAN) -> dict[str, torch.Tensor]:
    """Networks, the average of G, what regularisers remember, Adam, places in the streams, curves."""
    out = dict(module.state_dict())
    for name, opt in zip("gd", module.trainer.optimizers):
        for place, state in opt.state_dict()["state"].items():
            out |= {f"{name} {place} {key}": torch.as_tensor(value) for key, value in state.items()}
    out |= {f"curve {name}": torch.tensor(values) for name, values in module.curves.items()}
    places = [module.data.handed_out, module.game.iteration, module.trainer.global_step]
    return out | {"places": torch.tensor(places)}


KINDS: dict[str, dict[str, Any]] = {
    "dig": DIG,
    "dig every 3": {**DIG, "every": 3, "policy": "translation,cutout"},
    "accumulated": {**DIG, "accumulate": 2, "policy": "translation,cutout"},
    "automatic": {"regulariser": "dig", "weight": "auto"},
    "lecam": {"regulariser": "lecam"},
    "dragan": {"regulariser": "dragan", "network": "conv8", "width": 4},
    "conv8": {**DIG, "network": "conv8", "width": 4},
    "biggan_cifar": {**DIG, "network": "biggan_cifar", "width": 1, "samples": 8, "d_steps": 1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_bits(kind: str, tmp_path: Path, toy_data: Path) -> None:
    model, data = KINDS[kind], {}
    if kind == "biggan_cifar":
        data = {"dataset": "cifar10", "root": str(toy_data), "batch_size": 3}
    whole = everything(fit(model, data, tmp_path / "whole"))
    last = tmp_path / "killed" / "last.ckpt"
    last.parent.mkdir()

    class Killed(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
            if pl_module.game.iteration == 10:  # the third epoch began after the eighth
                raise KeyError("killed")

    with pytest.raises(KeyError, match="killed"):
        fit(model, data, last.parent, callbacks=[ResumeCheckpoint(last, 0.0), Killed()])
    begun = torch.load(last, weights_only=True)
    assert begun["gan"]["iteration"] == 8
    resumed = fit(model, data, last.parent, resume=last, callbacks=[ResumeCheckpoint(tmp_path / "x.ckpt", 1e9)])
    found = everything(resumed)
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(found[name], value), name
    assert found["places"].tolist() == [12, 12, 12 * (resumed.d_steps + 1)]
    before = begun["state_dict"]
    moved = [name for name in before if not torch.equal(before[name], whole[name])]
    ends = {"lecam": "anchor_real", "automatic": "averages", "conv8": "s_real", "biggan_cifar": "u0"}
    wanted = ends.get(kind, "average")
    assert any(name.endswith(wanted) or f".{wanted}." in name for name in moved), moved
    assert resumed.regulariser is not None


@pytest.mark.parametrize("model", [{**DIG, "every": 4}, {**DIG, "every": 4, "d_steps": 1}, {}])
def test_what_is_logged_does_not_hang_on_the_iteration(
    model: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged at 3, 6, ...; the penalty is in 1, 5, ...; a run without one says that its weight is 0."""
    monkeypatch.setattr("diggan.module.LOG_EVERY", 3)
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(DigGAN, "log_dict", lambda self, values, **_: seen.append(values))
    fit(model, {}, tmp_path, epochs=3)
    logged = [values for values in seen if "train/g" in values]
    assert len(logged) == 4
    names = {"train/penalty", "train/weight", "train/penalty_share_of_d"} if model else {"train/weight"}
    for values in logged[2:]:  # by then updates of both kinds have been timed
        assert {"train/penalty", "train/weight", "train/penalty_share_of_d"} & values.keys() == names
        assert float(values["train/weight"]) == model.get("weight", 0.0)


def test_what_is_timed_is_waited_for_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is logged, so that what was launched before is not counted and what is launched now is; nowhere else."""
    monkeypatch.setattr("diggan.module.LOG_EVERY", 3)
    order: list[str] = []
    monkeypatch.setattr(DigGAN, "wait", lambda self: order.append("wait"), raising=False)
    original = Game.iterate

    def iterate(self: Game, *args: Any) -> Any:
        out = original(self, *args)
        order.append(f"iteration {self.iteration}")
        return out

    monkeypatch.setattr(Game, "iterate", iterate)
    fit({}, {}, tmp_path, epochs=1)
    assert order == ["iteration 1", "iteration 2", "wait", "iteration 3", "wait", "iteration 4"]


def test_looks_change_nothing(tmp_path: Path, toy_data: Path) -> None:
    for model, data in (
        ({**DIG, "network": "conv8", "width": 4}, {}),
        ({"network": "biggan_cifar", "width": 1, "samples": 8, "d_steps": 1, "eval_bn": "standing"},
         {"dataset": "cifar10", "root": str(toy_data), "batch_size": 3}),
    ):  # fmt: skip
        often = everything(fit(model, {**data, "iterations": 2}, tmp_path, epochs=3))
        once = everything(fit(model, {**data, "iterations": 6}, tmp_path, epochs=1))
        assert len(often["curve fid"]) == 4
        assert len(once["curve fid"]) == 2
        for name in once:
            assert name.startswith("curve") or torch.equal(often[name], once[name]), name


def test_d_is_looked_at_on_fakes_with_the_classes_they_were_made_of(tmp_path: Path, toy_data: Path) -> None:
    """A D whose logit is the class: on fakes the mean logit is the mean of their classes, not of other ones."""
    from diggan.evaluation import latents

    data = {"dataset": "cifar10", "root": str(toy_data), "batch_size": 3, "iterations": 1}
    module = fit({"network": "biggan_cifar", "width": 1, "samples": 8, "d_steps": 1}, data, tmp_path, epochs=1)
    module.game.d.forward = lambda x, y: y.float() + 0 * x.sum()  # type: ignore[method-assign]
    y = latents(module.game.g, 8, module.data.seed)[1]
    assert y is not None
    assert module.looked(8)["logit_fake"] == pytest.approx(y.float().mean().item())


CONFIG: dict[str, Any] = {
    "model": {**SMALL, **DIG, "pictures": 5},
    "data": DIGITS,
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
}


def changed(**settings: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    for dotted, value in settings.items():
        section, key = dotted.split("__")
        config[section][key] = value
    return config


def test_a_result_has_all_that_tables_and_figures_ask_for(tmp_path: Path) -> None:
    found = run(CONFIG, 3, tmp_path / "run")
    titles = [name for name in found if name.startswith("features/digits-cnn-")]
    assert len(titles) == 1
    for name in ("fid", "kid", "precision", "recall", "coverage", "is", "nearest_training", "leak", "best/fid",
                 "last/fid", "tail/fid", "tail/val_fid", "tail/gap", "tail/norm_real", "tail/overfitting"):  # fmt: skip
        assert math.isfinite(found[name]), name
    for name in ("fid", "val_fid", "gap", "norm_real", "norm_held_out", "norm_fake", "logit_real", "accuracy_real"):
        assert len(found[f"curve/{name}"]) == 3, name  # before training, and after each of two epochs
    assert found["last/fid"] == pytest.approx(found["curve/fid"][-1], rel=1e-5)
    assert found["best/fid"] == pytest.approx(min(found["curve/fid"]), rel=1e-5)
    assert found["tail/gap"] == pytest.approx(sum(found["curve/gap"]) / 3, rel=1e-5)
    assert found["samples/shape"] == [5, 1, 8, 8]
    assert len(found["samples/pixels"]) == len(found["samples/nearest"]) == 5 * 64
    assert not any(name.startswith("plan/") for name in found)
    saved = json.loads((tmp_path / "run" / "subset.json").read_text())
    assert found["subset"] == saved["crc32"]
    assert len(set(saved["indices"])) == 40
    assert found != run(CONFIG, 4, tmp_path / "other")


def test_mixed_precision_leaves_penalties_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[torch.dtype]] = {"grad": set(), "logits": set()}
    for kind in (DIGRegularizer, LeCam):
        original = kind.penalty

        def penalty(self: Any, at: Any, original: Any = original) -> torch.Tensor:
            seen["logits"].add(at.real.dtype)
            if at.grad is not None:
                seen["grad"].add(at.grad.dtype)
            return original(self, at)

        monkeypatch.setattr(kind, "penalty", penalty)
    inside: set[torch.dtype] = set()
    original_forward = nets.small.MLPDiscriminator.forward

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        out = original_forward(self, x)
        inside.add(out.dtype)
        return out

    monkeypatch.setattr(nets.small.MLPDiscriminator, "forward", forward)
    dig = fit(DIG, {}, tmp_path, epochs=1, precision="bf16-mixed")
    assert inside == {torch.float32, torch.bfloat16}  # the update with the penalty, and the others
    lecam = fit({"regulariser": "lecam"}, {}, tmp_path, epochs=1, precision="bf16-mixed")
    assert seen == {"grad": {torch.float32}, "logits": {torch.float32}}
    assert dig.regulariser.s_real.dtype == lecam.regulariser.anchor_real.dtype == torch.float32
    assert all(value.isfinite().all() for value in dig.state_dict().values())


def test_in_mixed_precision_every_update_starts_from_the_last() -> None:
    """The copies of the weights that autocast keeps would be those before the first update."""
    games = []
    for _ in range(2):
        torch.manual_seed(0)
        games.append(Game(*nets.build("mlp64", 16), ema=0.0))
    torch.manual_seed(1)
    batch = Batch(torch.rand(3, 8, 1, 8, 8) * 2 - 1, None, torch.randn(4, 8, 32), None)
    whole, apart = games
    with torch.autocast("cpu", torch.bfloat16):
        whole.iterate(batch, adam(whole.g, 1e-3), adam(whole.d, 1e-3))
    opt_g, opt_d = adam(apart.g, 1e-3), adam(apart.d, 1e-3)
    apart.g.requires_grad_(False)
    for step in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            apart.update_d(batch, step, opt_d, torch.Tensor.backward)
    apart.g.requires_grad_(True)
    apart.d.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        apart.update_g(batch, opt_g, torch.Tensor.backward)
    for (name, a), b in zip(whole.named_parameters(), apart.parameters()):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model__regulariser": "digg"}, r"model\.regulariser.*'dig', 'lecam', 'r1'.*'digg'"),
        ({"model__variant": "offical"}, r"model\.variant.*'official', 'pair'.*'offical'"),
        ({"model__network": "mlp32"}, r"model\.network.*'mlp64', 'mlp784'.*'mlp32'"),
        ({"model__eval_bn": "frozen"}, r"model\.eval_bn.*'batch', 'running', 'standing'.*'frozen'"),
        ({"model__policy": "colour"}, "unknown.*'colour'.*color"),
        ({"model__grad_wrt": "inputs"}, r"model\.grad_wrt"),
        ({"model__network": "mlp784"}, "network mlp784 takes images of 28 x 28 pixels in 1 channel, digits has 8 x 8"),
        ({"model__weight": "best"}, "weight is 'best': give a number, or auto"),
        ({"model__weight": -1.0}, "weight is -1.0: a penalty's weight is not negative"),
        ({"model__weight": "auto", "model__regulariser": "none"}, "weight is auto without a penalty"),
        ({"model__d_steps": 0}, "d_steps is 0: it has to be at least 1"),
        ({"model__accumulate": 0}, "accumulate is 0: an update takes at least 1 batch"),
        ({"model__lr_g": 0.0}, "lr_g is 0.0 and lr_d 0.0005: both have to be > 0"),
        ({"model__betas": [0.0, 1.0]}, r"betas is .*: both lie in \[0, 1\)"),
        ({"model__samples": 1}, "samples is 1 and final_samples 60: distances need at least 2"),
        ({"model__final_samples": 9}, "samples is 60 and final_samples 9: .* the inception score's splits at least 10"),
        ({"model__every": 0}, "every is 0: use first_d_step, or a number of G iterations"),
        ({"model__gamma": 1.0}, "unknown key 'model.gamma'"),
        ({"data__dataset": "digit"}, "unknown data set 'digit'.*did you mean digits"),
        ({"trainer__strategy": "ddp"}, "use ddp_find_unused_parameters_true, as the two networks take turns"),
    ],
)  # fmt: skip
def test_bad_settings_are_one_line(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says) as caught:
        run(changed(**settings), 0, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_names_that_do_not_exist_list_those_that_do() -> None:
    for settings, says in (
        ({"regulariser": "digg"}, "unknown regulariser 'digg': there are none, dig, lecam, r1, r2, gp, dragan, cr"),
        ({"network": "mlp32"}, "unknown network 'mlp32': there are mlp64, mlp784, conv8, biggan_cifar"),
        ({"regulariser": "dig", "variant": "all"}, "unknown variant 'all': there are official, pair, mean, allpairs"),
        ({"eval_bn": "frozen"}, "unknown eval_bn 'frozen': there are batch, running, standing"),
        ({"loss": "ls"}, "unknown loss 'ls': there are hinge, nonsaturating"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            DigGAN(**settings)
        assert isinstance(caught.value, RegulariserError) == ("regulariser" in settings)


def test_fewer_classes_than_the_data_have(tmp_path: Path, toy_data: Path) -> None:
    config = changed(model__network="biggan_cifar", model__width=1, data__dataset="cifar100", data__root=str(toy_data))
    with pytest.raises(UserError, match=r"classes is 10: cifar100 has 100; set model\.classes"):
        run(config, 0, tmp_path / "run")


@pytest.mark.parametrize(
    ("network", "dataset", "says"),
    [
        ("mlp784", "digits", "digits has 8 x 8 pixels in 1 channel: choose another network, or set data.resize$"),
        ("biggan64", "mnist", r"choose another network, or set data\.to_rgb and data\.resize$"),
        ("conv8", "cifar10", "cifar10 has 32 x 32 pixels in 3 channels: choose another network$"),
    ],
)
def test_the_advice_on_images_of_another_shape_helps(
    network: str, dataset: str, says: str, tmp_path: Path, toy_data: Path
) -> None:
    config = changed(model__network=network, model__width=8, data__dataset=dataset, data__root=str(toy_data))
    with pytest.raises(UserError, match=says):
        run(config, 0, tmp_path / "run")


def test_a_reference_too_small_to_compare_with_is_said_before_training(tmp_path: Path, toy_data: Path) -> None:
    pets = tmp_path / "pets"
    shutil.copytree(toy_data / "pets", pets)
    for file in [*(pets / "test" / "cat").iterdir(), *(pets / "test" / "dog").iterdir()][3:8]:
        file.unlink()
    small = {"model__network": "biggan_cifar", "model__width": 1, "model__classes": 2}
    config = changed(**small, data__dataset="class_folders", data__root=str(pets), data__num_samples=None)
    with pytest.raises(UserError, match=r"class_folders has 5 reference images: precision and recall .* at least 6"):
        run(config, 0, tmp_path / "run")
