"""Every configuration takes a step, every tier expands, and every claim finds its experiments and its metric."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from logsobolev_bounds.data import Examples
from logsobolev_bounds.experiment import PRIOR, SIMULATE, data_fingerprint, run
from logsobolev_bounds.module import BayesClassifier
from shared.claims.ledger import load_ledger
from shared.runs.plan import Experiment, load_plan, merge, read_yaml

HERE = Path(__file__).resolve().parent.parent
TIERS = ("quick", "cpu", "gpu", "paper")
FILES = sorted((HERE / "configs").glob("*.yaml"))
LEDGER = load_ledger(HERE / "claims.yaml")
SLOW = ("simulate", "cifar10_resnet20", "mnist_lenet", "fashion_lenet")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def dry(config: dict[str, Any], toy_data: Path) -> dict[str, Any]:
    """One batch, few draws, on small files."""
    config = merge(config, {"trainer": {"fast_dev_run": True, "accelerator": "cpu"}})
    if "device" in config.get("prior", {}):
        config = merge(config, {"prior": {"device": "cpu"}})
    if "data" in config:
        config = merge(config, {"data": {"root": str(toy_data)}})
        if config["data"].get("dataset") == "cifar10":
            config = merge(config, {"data": {"batch_size": 4}})
    return config


DONE: dict[str, dict[str, Any]] = {}


def stepped(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a run measures; an experiment that is a configuration as it stands is run once for both."""
    key = json.dumps(config, sort_keys=True)
    if key not in DONE:
        DONE[key] = run(config, 3, folder / "run", "run", "t")
    return DONE[key]


def kind(config: dict[str, Any]) -> tuple:
    """What the names of an experiment's metrics can depend on; the rest are numbers."""
    section = config.get("prior") or config.get("model") or {}
    marks = (section.get("network"), "depths" in section, section.get("objective"), section.get("prior_mode"))
    settings = config.get("data", {})
    return (*sorted(config), *marks, str(section.get("modes")), settings.get("dataset"), settings.get("scale"))


def plan(tier: str) -> dict[str, Experiment]:
    return {experiment.name: experiment for experiment in load_plan(HERE, tier).experiments}


def each_kind() -> list[Any]:
    """One experiment of each kind; the quick tier's train and measure on digits, the others are slower."""
    seen, out = set(), []
    for tier in TIERS:
        for experiment in plan(tier).values():
            if (found := kind(experiment.config)) not in seen:
                seen.add(found)
                slow = tier != "quick" or "simulate" in experiment.config
                marks = [pytest.mark.slow] * slow
                out.append(pytest.param(experiment, id=f"{tier}-{experiment.name}", marks=marks))
    return out


def wanted(config: dict[str, Any]) -> dict[str, str]:
    """The metrics that claims ask of experiments of a configuration's kind, and the first claim that does."""
    out: dict[str, str] = {}
    for claim in LEDGER.claims:
        for tier, test in claim.tiers.items():
            for name in test.experiments.values():
                if name in known(tier) and known(tier)[name] == kind(config):
                    out.setdefault(claim.measured_by(tier), claim.id)
    return out


@cache
def known(tier: str) -> dict[str, tuple]:
    return {name: kind(experiment.config) for name, experiment in plan(tier).items()}


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_expands_to_experiments_of_known_settings(tier: str) -> None:
    experiments = load_plan(HERE, tier).experiments
    assert len({experiment.name for experiment in experiments}) == len(experiments) > 2
    for experiment in experiments:
        config = experiment.config
        assert experiment.seeds
        assert sum(section in config for section in ("prior", "model", "simulate", "theory")) == 1, experiment.name
        assert set(config.get("prior", {})) <= PRIOR
        assert set(config.get("simulate", {})) <= SIMULATE
        if "model" in config:
            BayesClassifier(**config["model"])
        if "data" in config:
            Examples(**config["data"])


def test_priors_are_compared_at_one_lambda() -> None:
    """C5 is at lambda = m: the least over a grid would move lambda with sigma_p."""
    runs = [each for name, each in plan("cpu").items() if name.startswith("c5_")]
    assert len(runs) == 4
    assert all(each.config["model"]["lambdas"] == [1.0] for each in runs)


@pytest.mark.parametrize("claim", LEDGER.claims, ids=lambda claim: claim.id)
def test_a_claim_finds_its_experiments_and_enough_seeds(claim: Any) -> None:
    assert {value.value for value in claim.paper.values() if hasattr(value, "value")} <= {None}
    for tier, test in claim.tiers.items():
        found = plan(tier)
        for role, name in test.experiments.items():
            assert name in found, (tier, role)
            assert test.not_run or len(found[name].seeds) >= claim.rule.min_seeds, (tier, name)


def test_a_share_or_a_residual_has_a_margin_unless_its_threshold_is_exact() -> None:
    for claim in LEDGER.claims:
        rule = claim.rule
        if rule.kind == "shape" and rule.statistic.startswith(("rms/", "violated/")) and rule.at_most != 0:
            assert rule.margin_se == 2, claim.id


@pytest.mark.parametrize("experiment", each_kind())
def test_an_experiment_of_every_kind_reports_what_claims_ask_for(
    experiment: Experiment, tmp_path: Path, toy_data: Path
) -> None:
    found = stepped(dry(experiment.config, toy_data), tmp_path)
    for metric, claim in wanted(experiment.config).items():
        assert metric in found, f"{claim} asks for {metric}"
        assert math.isfinite(found[metric])


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in SLOW)) for p in FILES if p.stem != "bound"],
)
def test_every_configuration_takes_a_step(path: Path, tmp_path: Path, toy_data: Path) -> None:
    config = dry(read_yaml(path), toy_data)
    assert data_fingerprint(config)[1] in ("real", "embedded", "recipe")
    found = stepped(config, tmp_path)
    assert len(found) > 10
    if "model" in config:
        training = {"digits": 1200, "synthetic_logistic": 500, "cifar10": 100}.get(config["data"]["dataset"], 300)
        assert found["m"] == training  # 300 images in the small files of MNIST's format
        assert found["certificate/lsi"] == 0
        certified = config["data"]["center"] in ("heldout", "none")
        assert found["certificate/certificate01"] == certified
    for value in found.values():
        for number in value if isinstance(value, list) else [value]:
            assert math.isfinite(number)
