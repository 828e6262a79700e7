"""Every configuration takes a step, every tier expands, and every claim finds its experiments and its metric."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusion_fields.data import Fields
from diffusion_fields.experiment import ORACLE, context_rates, data_fingerprint, run
from diffusion_fields.module import DiffusionField
from shared.claims.ledger import load_ledger
from shared.claims.results import load_results
from shared.errors import UserError
from shared.runs.plan import Experiment, load_plan, merge, read_yaml

from diffusion_fields import figures, tables

HERE = Path(__file__).resolve().parent.parent
TIERS = ("quick", "cpu", "gpu", "paper")
FILES = sorted((HERE / "configs").glob("*.yaml"))
LARGE = ("cifar10", "celebahq64", "shapenet", "sphere_mnist")  # the paper's sizes: tens of millions of weights
LEDGER = load_ledger(HERE / "claims.yaml")
TINY = {"num_freq": 1, "d_model": 8, "num_latents": 4, "d_latents": 8, "num_blocks": 1, "self_per_block": 1, "heads": 2}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def dry(config: dict[str, Any], toy_data: Path) -> dict[str, Any]:
    """One batch on small files; of the paper's sizes a small network of the same kind."""
    config = merge(config, {"trainer": {"fast_dev_run": True, "accelerator": "cpu", "precision": "32-true"}})
    if "data" not in config:
        return config
    data = config["data"]
    root = toy_data / "faces" if data["dataset"] == "image_folder" else toy_data
    small = {"root": str(root), "batch_size": 4, "validation_fields": 4}
    if "size" in config["model"] and config["model"]["size"]["d_model"] > 100:
        small |= {"num_context": 32, "num_query": 16}
        config = merge(config, {"model": {"size": TINY}})
    return merge(config, {"data": small, "model": {"warmup": 0}})


@cache
def plan(tier: str) -> dict[str, Experiment]:
    return {experiment.name: experiment for experiment in load_plan(HERE, tier).experiments}


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_expands_to_experiments_of_known_settings(tier: str) -> None:
    experiments = load_plan(HERE, tier).experiments
    assert len({experiment.name for experiment in experiments}) == len(experiments) > 2
    for experiment in experiments:
        config = experiment.config
        assert experiment.seeds
        assert ("oracle" in config) != ("model" in config), experiment.name
        assert set(config.get("oracle", {})) <= ORACLE
        if "model" in config:
            DiffusionField(**config["model"])
            Fields(**config["data"])


def test_no_seed_was_one_on_which_a_recipe_was_chosen() -> None:
    for tier in ("quick", "cpu"):
        for experiment in plan(tier).values():
            assert "oracle" in experiment.config or min(experiment.seeds) >= 10, experiment.name


@pytest.mark.parametrize("claim", LEDGER.claims, ids=lambda claim: claim.id)
def test_a_claim_finds_its_experiments_and_enough_seeds(claim: Any) -> None:
    known = [value for value in claim.paper.values() if value is not None]
    assert bool(known) == claim.secondary  # every number of the paper is marked
    assert not known or "unverified (u)" in claim.says
    for tier, test in claim.tiers.items():
        found = plan(tier)
        assert not known or test.not_run  # no verdict rests on one
        for role, name in test.experiments.items():
            assert name in found, (tier, role)
            assert test.not_run or len(found[name].seeds) >= claim.rule.min_seeds, (tier, name)


def asked(tier: str) -> dict[str, list[str]]:
    """The metrics that claims and pictures want of each experiment."""
    out: dict[str, list[str]] = {}
    for claim in LEDGER.claims:
        test = claim.tiers.get(tier)
        if test is not None and not test.not_run:
            for name in test.experiments.values():
                out.setdefault(name, []).append(claim.measured_by(tier))
    return out


@pytest.mark.parametrize("name", asked("cpu"))
def test_an_experiment_reports_what_claims_ask_for(name: str, tmp_path: Path, toy_data: Path) -> None:
    config = dry(plan("cpu")[name].config, toy_data)
    found = run(config, 0, tmp_path / "run", name, "t")
    for metric in asked("cpu")[name]:
        assert math.isfinite(found[metric]), metric


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in FILES])
def test_every_configuration_takes_a_step(path: Path, tmp_path: Path, toy_data: Path) -> None:
    (toy_data / "voxels").mkdir(exist_ok=True)
    solid = np.zeros((5, 32, 32, 32), np.uint8)
    solid[:, 8:24, 8:24, 8:24] = 1
    for place in (toy_data / "voxels.npz", toy_data / "voxels" / "voxels.npz"):
        np.savez(place, occupancy=solid)
    config = dry(read_yaml(path), toy_data)
    assert data_fingerprint(config)[1] in ("real", "embedded", "synthetic", "exact")
    found = run(config, 3, tmp_path / "run")
    assert len(found) > 3
    for value in found.values():
        for number in value if isinstance(value, list) else [value]:
            assert math.isfinite(number)


@pytest.mark.parametrize("name", LARGE)
def test_the_papers_sizes_have_the_reference_count_of_weights(name: str) -> None:
    """Section 3: 59,942,559 for base with c = 2, s = 3; the others by the same formula."""
    from diffusion_fields import models

    config = read_yaml(HERE / "configs" / f"{name}.yaml")
    c, s = {"cifar10": (2, 3), "celebahq64": (2, 3), "shapenet": (3, 1), "sphere_mnist": (3, 1)}[name]
    import torch

    with torch.device("meta"):
        net = models.build("perceiver", coord_dim=c, signal_dim=s, **config["model"]["size"])
    expected = {"cifar10": 59_942_559, "celebahq64": 59_942_559, "shapenet": 60_076_274, "sphere_mnist": 11_626_898}
    assert sum(p.numel() for p in net.parameters()) == expected[name]


def test_the_oracle_experiment_is_the_specifications_table() -> None:
    found = context_rates({"counts": [36], "degree": 5, "tilt": 2.0, "points": 100})
    assert found["floor/c36"] == pytest.approx(0.3891, abs=2e-4)
    assert found["error/c36"] == pytest.approx(0.293, abs=1e-3)
    assert found["grain/c36"] == pytest.approx(0.090, abs=1e-3)
    assert [found[f"r_{l}/c36"] for l in range(1, 6)] == pytest.approx([0.83, 0.76, 0.70, 0.68, 0.66], abs=0.01)
    with pytest.raises(UserError, match="it has: contexts, counts"):
        context_rates({"cnts": [3]})


@pytest.mark.parametrize("tier", ["quick", "cpu"])
def test_committed_results_have_their_tables_and_figures(tier: str, tmp_path: Path) -> None:
    file = HERE / "results" / tier / "results.json"
    results = load_results(file)
    drawn = {figure.file for figure in figures.draw(results, tmp_path)}
    assert {figure.file for figure in results.figures} == drawn
    assert len(tables.tables(results)) >= 2
    for figure in figures.draw(results, tmp_path):
        assert (tmp_path / figure.file).read_text() == (file.parent / figure.file).read_text()
