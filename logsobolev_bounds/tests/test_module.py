"""Training: a resumed run, one process, objectives, the learnt prior, what is logged, and what a user gets wrong."""

from __future__ import annotations

import copy
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as L
import torch
from logsobolev_bounds.bounds.kl import gaussian_divergence
from logsobolev_bounds.certify import certificates
from logsobolev_bounds.data import Examples
from logsobolev_bounds.experiment import run
from logsobolev_bounds.module import BayesClassifier, BoundLogger
from pytorch_lightning.loggers.logger import DummyLogger
from shared.errors import UserError
from shared.resume import ResumeCheckpoint
from shared.runs.plan import merge, read_yaml

HERE = Path(__file__).resolve().parent.parent
FEW: dict[str, Any] = {
    "prior_draws": 5, "bound_examples": 60, "points": 17, "posterior_draws": 4, "certificate_draws": 10,
}  # fmt: skip
DIGITS: dict[str, Any] = {"dataset": "digits", "m": 60, "batch_size": 25}
LEARNT = ({"prior_mode": "learnt_split", "prior_epochs": 3}, {"m": 120, "prior_fraction": 0.5})


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


class Kept(DummyLogger):
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append({**metrics, "step": step})

    def values(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row]


def fit(
    model: dict[str, Any], data: dict[str, Any], folder: Path, epochs: int = 3, resume: Path | None = None,
    logger: Any = False, **trainer: Any,
) -> BayesClassifier:  # fmt: skip
    L.seed_everything(0, verbose=False)
    module, examples = BayesClassifier(**{**FEW, **model}), Examples(**{**DIGITS, **data})
    L.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=logger, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, num_sanity_val_steps=0,
        log_every_n_steps=1, **trainer,
    ).fit(module, examples, ckpt_path=resume, weights_only=True)  # fmt: skip
    return module


def everything(module: BayesClassifier) -> dict[str, torch.Tensor]:
    """Posterior, prior, Adam, the learning rate, the place in the data, curves, the generator."""
    out = {name: value.clone() for name, value in module.state_dict().items()}
    for place, state in module.trainer.optimizers[0].state_dict()["state"].items():
        out |= {f"{place} {key}": torch.as_tensor(value) for key, value in state.items()}
    out |= {f"curve {name}": torch.tensor(values) for name, values in module.curves.items()}
    out["places"] = torch.tensor([module.data.epoch, module.trainer.global_step, module.trainer.current_epoch])
    out["rate"] = torch.tensor(module.trainer.optimizers[0].param_groups[0]["lr"])
    return out | {"generator": torch.get_rng_state()}


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({}, {}),
    "mlp, lambda": ({"network": "mlp", "width": 8, "objective": "lambda", "bias": True}, {"label_noise": 0.3}),
    "learnt prior": LEARNT,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_bits(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = KINDS[kind]
    learnt = []
    original = BayesClassifier.learn_prior
    monkeypatch.setattr(BayesClassifier, "learn_prior", lambda self: (learnt.append(1), original(self)))
    whole = everything(fit(model, data, tmp_path))
    last = tmp_path / "last.ckpt"

    class Killed(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *rest: Any) -> None:
            if trainer.global_step == 8:  # of nine; the third epoch began after the sixth
                raise KeyError("killed")

    with pytest.raises(KeyError, match="killed"):
        fit(model, data, tmp_path, callbacks=[ResumeCheckpoint(last, 0.0), Killed()])
    begun = torch.load(last, weights_only=True)
    assert (begun["Examples"]["epoch"], begun["global_step"]) == (2, 6)
    assert len(begun["curves"]["val/nll"]) == 2
    times = len(learnt)
    resumed = fit(model, data, tmp_path, resume=last, callbacks=[ResumeCheckpoint(tmp_path / "x.ckpt", 1e9)])
    assert len(learnt) == times == 2 * (kind == "learnt prior")
    found = everything(resumed)
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(found[name], value), name
    assert found["places"].tolist() == [3, 9, 3]
    assert len(resumed.curves["val/nll"]) == 3


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    fit({}, {}, tmp_path, epochs=1, callbacks=[ResumeCheckpoint(last, 0.0)])
    for model, data, says in (
        ({"sigma_p": 0.2}, {}, "made with sigma_p = 0.3, the configuration has 0.2"),
        ({"delta": 0.1}, {}, "made with delta = 0.05, the configuration has 0.1"),
        ({}, {"m": 50}, "made with n = 60, the configuration has 50"),
        ({}, {"center": "heldout"}, "made with center = train, the configuration has heldout"),
        ({"prior_mode": "learnt_split"}, {"m": 120, "prior_fraction": 0.5}, "made with prior_mode = fixed, the conf"),
    ):
        with pytest.raises(UserError, match=says):
            fit(model, data, tmp_path, resume=last)


def test_a_learnt_prior_is_not_validated_as_a_fixed_one(tmp_path: Path) -> None:
    """On the prior's own examples its certificate would be false; that of the others stays."""
    last = tmp_path / "last.ckpt"
    model, data = LEARNT
    fit(model, data, tmp_path, epochs=1, callbacks=[ResumeCheckpoint(last, 0.0)])

    def validated(model: dict[str, Any], data: dict[str, Any]) -> dict[str, float]:
        trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        module, examples = BayesClassifier(**{**FEW, **model}), Examples(**{**DIGITS, **data})
        return trainer.validate(module, examples, str(last), verbose=False, weights_only=True)[0]

    assert "bound/certificate01" in validated(model, data)
    with pytest.raises(UserError, match="made with prior_mode = learnt_split, the configuration has fixed"):
        validated({}, {})
    saved = torch.load(last, weights_only=True)
    saved["made_with"] = fit({}, {}, tmp_path, epochs=1).made_with
    torch.save(saved, last)
    with pytest.raises(UserError, match="a prior with a mean that was learnt, and the configuration says prior_mode"):
        validated({}, {})


def test_seeds_give_the_same_bits_again_and_others_do_not(tmp_path: Path) -> None:
    config = {"model": FEW, "data": DIGITS, "trainer": {"max_epochs": 2, "accelerator": "cpu"}}
    first, again, other = (run(config, seed, tmp_path / str(i)) for i, seed in enumerate((3, 3, 4)))
    assert first == again
    assert first["bound/lsi"] != other["bound/lsi"]
    for name in ("grad/input_sq", "grad/input_sq_sigma", "bound/lsi", "bound/lsi_euclid", "bound/lsi_corrected",
                 "bound/seeger01", "bound/maurer01", "bound/hoeffding_clip", "bound/certificate01", "bound/C",
                 "bound/ess", "subgamma/v", "subgamma/c", "subgamma/rms", "err_gibbs", "err_ensemble", "margin/lsi",
                 "term/risk", "term/KL_over_lambda", "term/confidence_over_lambda", "term/C_over_lambda",
                 "C_over_lambda/lsi", "kl", "test/nll"):  # fmt: skip
        assert math.isfinite(first[name]), name
    assert first["certificate/certificate01"] == 0.0  # centred by the training set
    assert "bound/kind" not in first  # `certificate/<bound>` says it of each
    lam = first["kl"] / first["term/KL_over_lambda"]
    assert min(abs(lam / 60 - each) for each in (0.25, 0.5, 1.0, 2.0)) < 1e-9
    assert first["bound/C"] == first["C/lsi"] == pytest.approx(lam * first["C_over_lambda/lsi"], rel=1e-12)
    assert first["term/C_over_lambda"] == first["C_over_lambda/lsi"]
    for name in ("val/nll", "val/err_gibbs", "val/err_ensemble", "val/ece", "train/kl"):
        assert len(first[f"curve/{name}"]) == 2, name
    terms = [value for name, value in first.items() if name.startswith("term/")]
    assert sum(terms) == pytest.approx(first["bound/lsi"], rel=1e-9)


@pytest.mark.parametrize("objective", ["elbo", "quadratic", "lambda", "maurer"])
def test_every_objective_falls(objective: str, tmp_path: Path) -> None:
    losses: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, *rest: Any) -> None:
            losses.append(float(outputs["loss"]))

    module = fit({"objective": objective, "lr": 0.02}, {"m": 200, "batch_size": 50}, tmp_path, 12, callbacks=[Watch()])
    assert sum(losses[-4:]) < 0.97 * sum(losses[:4])
    nll, kl = torch.tensor([0.5, 2.0, 20.0]), torch.tensor(30.0)
    risk = torch.tensor([0.5, 2.0, math.log(1e4)]).sum() / 3 / math.log(1e4)
    c = (30 + math.log(2 * math.sqrt(200) / 0.05)) / 200
    t = 2 * torch.sigmoid(module.t.detach()) if objective == "lambda" else torch.tensor(1.0)
    assert (objective == "lambda") == (float(t) != 1.0)
    expected = {
        "elbo": 22.5 / 3 + 30 / 200, "maurer": risk + math.sqrt(c / 2),
        "lambda": risk / (1 - t / 2) + c / t / (1 - t / 2),
        "quadratic": (torch.sqrt(risk + c / 2) + math.sqrt(c / 2)) ** 2,
    }[objective]  # fmt: skip
    assert module.objective_value(nll, kl, 200).item() == pytest.approx(float(expected), rel=1e-5)


def test_the_prior_is_learnt_on_its_own_examples_only(tmp_path: Path) -> None:
    model, data = LEARNT
    module = fit(model, data, tmp_path, epochs=1)
    layer, inside = module.net.layers[0], module.data
    assert (inside.m, len(inside.y_prior), module.made_with["n"]) == (60, 60, 60)
    learnt = layer.prior_mu.clone()
    assert learnt.any()
    own = gaussian_divergence(layer.mu, layer.sigma, learnt, 0.3)
    assert module.net.kl().item() == pytest.approx(own.item(), rel=1e-6)
    assert own.item() < 0.9 * (gaussian_divergence(layer.mu, layer.sigma, torch.zeros_like(learnt), 0.3)).item()
    draws = module.net.draws(400, torch.Generator().manual_seed(0), prior=True)[0].weight
    assert (draws.mean(0) - learnt).abs().max() < 6 * 0.3 / 20

    def prior_with(change: str) -> torch.Tensor:
        original = Examples.setup

        def setup(self: Examples, stage: str = "fit") -> None:
            fresh = not hasattr(self, "x")
            original(self, stage)
            if fresh:
                setattr(self, change, getattr(self, change) * 0 if change[0] == "x" else 9 - getattr(self, change))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Examples, "setup", setup)
            return fit(model, data, tmp_path, epochs=1).net.layers[0].prior_mu

    for name in ("x", "y", "x_test", "y_test"):
        assert torch.equal(prior_with(name), learnt), name
    for name in ("x_prior", "y_prior"):
        assert not torch.equal(prior_with(name), learnt), name


def test_a_bound_is_logged_beside_the_loss_and_changes_nothing(tmp_path: Path) -> None:
    logger = Kept()
    alone = everything(fit({}, {}, tmp_path, 4))
    watched = everything(fit({}, {}, tmp_path, 4, logger=logger, callbacks=[BoundLogger(2, 5, 60)]))
    assert all(torch.equal(value, watched[name]) for name, value in alone.items())
    assert [row["step"] for row in logger.rows if "bound/lsi" in row] == [6, 12]
    for name in ("bound/lsi", "bound/C", "bound/ess", "certificate/lsi", "certificate/certificate01", "bound/seeger01",
                 "bound/maurer01", "bound/hoeffding_clip", "subgamma/v", "subgamma/c", "subgamma/rms"):  # fmt: skip
        values = logger.values(name)
        assert len(values) == 2, name
        assert all(math.isfinite(value) for value in values), name
    assert logger.values("bound/lsi")[0] > logger.values("val/nll")[1]
    for name, count in (("train/nll", 12), ("val/nll", 4), ("val/err_gibbs", 4), ("val/err_ensemble", 4),
                        ("val/ece", 4)):  # fmt: skip
        assert len(logger.values(name)) == count, name
    assert len(logger.values("train/kl")) >= 12


def test_a_bound_is_logged_for_lambdas_of_ones_own_grid(tmp_path: Path) -> None:
    """A third of m is a point of 31, and of none of the default's 65."""
    logger = Kept()
    model = {"lambdas": [1 / 3, 1.0], "points": 31}
    fit(model, {}, tmp_path, 1, logger=logger, callbacks=[BoundLogger(1, 5, 60)])
    assert math.isfinite(logger.values("bound/lsi")[0])


@pytest.mark.parametrize(
    ("epochs", "between", "every", "steps"),
    [(6, 2, 1, [6, 12, 18]), (6, 2, 2, [12, 18]), (4, 10, 1, [12]), (3, 1, 10, [9]), (5, 2, 1, [6, 12, 15])],
)
def test_a_bound_is_logged_at_every_nth_validation_and_at_the_end(
    epochs: int, between: int, every: int, steps: list[int], tmp_path: Path
) -> None:
    """Of three steps an epoch; once where the last validation is the end."""
    logger = Kept()
    watch = BoundLogger(every, 3, 60)
    fit({}, {}, tmp_path, epochs, logger=logger, callbacks=[watch], check_val_every_n_epoch=between)
    assert [row["step"] for row in logger.rows if "bound/lsi" in row] == steps


def test_bound_yaml_goes_behind_a_configuration_that_trains(tmp_path: Path) -> None:
    config = merge(read_yaml(HERE / "configs/digits_linear.yaml"), read_yaml(HERE / "configs/bound.yaml"))
    assert config["trainer"]["check_val_every_n_epoch"] == 20  # the configuration's own
    config = merge(config, {"model": FEW, "data": DIGITS, "trainer": {"max_epochs": 6}})
    config["trainer"]["callbacks"][0]["init_args"] |= {"prior_draws": 3, "examples": 60}
    found = run(config, 0, tmp_path / "run")
    assert "curve/val/nll" not in found  # six epochs have no validation, but an end
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    content = log.read_bytes()
    assert all(name in content for name in (b"bound/lsi", b"bound/ess", b"train/nll"))


CONFIG: dict[str, Any] = {"model": FEW, "data": DIGITS, "trainer": {"max_epochs": 1, "accelerator": "cpu"}}


@pytest.mark.parametrize(
    ("dotted", "value", "says"),
    [
        ("model.network", "vgg", r"model\.network.*'linear', 'mlp', 'lenet', 'resnet20'.*'vgg'"),
        ("model.objective", "elbow", r"model\.objective.*'elbo'.*'elbow'"),
        ("model.prior_mode", "learnt", r"model\.prior_mode.*'fixed', 'learnt_split'.*'learnt'"),
        ("model.sigma", 0.1, "unknown key 'model.sigma'"),
        ("model.sigma_p", 0.0, "sigma_p is 0.0: it has to be > 0"),
        ("model.lam", -1.0, "lam is -1.0"),
        ("model.delta", 0.01, "delta is 0.01: it lies in"),
        ("model.delta", 1.0, "delta is 1.0"),
        ("model.p_min", 1.0, "p_min is 1.0"),
        ("model.points", 16, "points is 16: the trapezoid rule needs at least 17"),
        ("model.prior_draws", 0, "have to be at least 1"),
        ("model.lambdas", [], r"lambdas is \[\]: give multiples of m"),
        ("model.lambdas", [0.0, 1.0], "give multiples of m, each > 0"),
        ("model.lambdas", [0.3, 1.0], "lambdas: 0.3 is no multiple of 1.0 / 16: change points"),
        ("model.prior_epochs", 0, "prior_epochs is 0"),
        ("model.covariances", ["pooled"], r"model\.covariances.*'identity', 'total', 'within'.*'pooled'"),
        ("model.covariances", [], "covariances: give at least one of identity, total, within, class_corrected"),
        ("model.prior_mode", "learnt_split", "a learnt prior needs a share of the examples, and a fixed one none"),
        ("data.prior_fraction", 0.5, "prior_mode is fixed and data.prior_fraction 0.5"),
        ("data.prior_fraction", 0.999, "prior_fraction is 0.999: of 60 examples it leaves one part empty"),
        ("data.prior_fraction", 0.001, "leaves one part empty"),
        ("data.m", 5000, "m is 5000: digits has 1200"),
        ("data.dataset", "digit", "data.dataset"),
    ],
)
def test_bad_settings_are_one_line(dotted: str, value: Any, says: str, tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIG)
    section, key = dotted.split(".")
    config[section][key] = value
    with pytest.raises(UserError, match=says) as caught:
        run(config, 0, tmp_path / "run")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="every is 0: it is a number of validations"):
        BoundLogger(every=0)


@pytest.mark.slow
def test_two_processes_are_refused_with_one_line(tmp_path: Path) -> None:
    """Both would take the same steps on the same batches."""
    done = subprocess.run(
        [sys.executable, "train.py", "fit", "--config", "configs/digits_linear.yaml", "--trainer.strategy", "ddp",
         "--trainer.devices", "2", "--trainer.max_epochs", "1", "--run_dir", str(tmp_path / "run")],
        cwd=HERE, capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if re.match("error: ", line)]
    assert errors == ["error: trainer.devices makes 2 processes: it trains in one, set it to 1"], done.stderr
    assert "Traceback" not in done.stderr


def test_the_covariances_that_were_asked_for_are_those_of_the_bounds() -> None:
    torch.manual_seed(0)
    module = BayesClassifier(prior_draws=5, posterior_draws=3, certificate_draws=4, covariances=["within"])
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    (found,) = trainer.validate(module, datamodule=Examples(m=200), verbose=False)
    assert {"bound/lsi_within", "C/lsi_within", "ess/lsi_within"} <= found.keys()
    assert not {"bound/lsi", "bound/lsi_euclid", "bound/C"} & found.keys()


def test_validate_moves_the_examples_before_it_looks_at_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint's network is on the device by then; the first bound would meet examples that are not."""
    events: list[str] = []
    moved, bounded = Examples.to_device, certificates
    monkeypatch.setattr(Examples, "to_device", lambda self, device: (events.append("moved"), moved(self, device)))
    monkeypatch.setattr(
        "logsobolev_bounds.module.certificates", lambda *a, **k: (events.append("bounds"), bounded(*a, **k))[1]
    )
    module = BayesClassifier(prior_draws=5, posterior_draws=3, certificate_draws=4, covariances=["total"])
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.validate(module, datamodule=Examples(m=200), verbose=False)
    assert events == ["moved", "bounds"]


def test_validate_asks_for_every_bound_of_a_checkpoint() -> None:
    """As `train.py validate` does; during training a look has the risks alone."""
    torch.manual_seed(0)
    module = BayesClassifier(prior_draws=5, posterior_draws=3, certificate_draws=4)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    (found,) = trainer.validate(module, datamodule=Examples(m=200), verbose=False)
    assert {"val/nll", "bound/lsi", "ess/lsi", "bound/certificate01", "certificate/certificate01"} <= found.keys()
    assert found["certificate/lsi"] == 0
