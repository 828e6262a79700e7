"""Every tier expands, and every kind of experiment in it takes a step on files in the data sets' own formats."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from diggan.cost import times_of
from diggan.experiment import data_fingerprint, run, run_together
from diggan.features import LocalFeatures
from diggan.figures import SHOWN
from diggan.module import DigGAN
from shared.claims.ledger import load_ledger
from shared.errors import UserError
from shared.runs.job import device
from shared.runs.plan import load_plan, merge, read_yaml

HERE = Path(__file__).resolve().parent.parent
TIERS = ("quick", "cpu", "gpu", "paper")
BEHIND_ANOTHER = ("dig", "inception")
FILES = sorted((HERE / "configs").glob("*.yaml"))
# One step of the networks as wide as they are takes minutes on a CPU, so they are made narrower here; as wide as they
# are they are built without memory, below.
NARROW = {"biggan_cifar": 1, "biggan64": 8, "biggan128": 8}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    original = LocalFeatures.__init__

    def init(self: LocalFeatures, source: Any) -> None:
        original(self, source)
        self.steps = 2

    monkeypatch.setattr(LocalFeatures, "__init__", init)


def dry(config: dict[str, Any], toy_data: Path) -> dict[str, Any]:
    """One batch, on small files, by narrow networks."""
    config = merge(config, {"trainer": {"fast_dev_run": True, "accelerator": "cpu"}})
    if "data" not in config:
        return config
    if (name := config["data"]["dataset"]) != "digits":
        root = toy_data / "pets" if name == "class_folders" else toy_data
        if name == "class_folders":
            config["model"]["classes"] = 2  # as the folder has
        config = merge(config, {"data": {"root": str(root), "batch_size": min(config["data"]["batch_size"], 4)}})
    if config["model"]["network"] in NARROW:
        config["model"]["width"] = NARROW[config["model"]["network"]]
    return config


def each(paths: Iterable[Path]) -> list[Any]:
    """128 pixels are slow, however narrow the network."""
    return [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem == "cub200")) for p in paths]


def steps_of(config: dict[str, Any], together: bool, seeds: list[int], folder: Path) -> dict[str, Any]:
    if together:
        found = run_together(config, seeds, folder, "x", "t")
        assert list(found) == seeds
        return found[seeds[0]]
    return run(config, seeds[0], folder, "x", "t")


def kinds() -> list[Any]:
    """One experiment for each combination of network, penalty and augmentation; what else differs are numbers."""
    out, seen = [], set[tuple]()
    for tier in TIERS:
        for experiment in load_plan(HERE, tier).experiments:
            config = experiment.config
            model = config.get("model", {})
            marks = (
                model.get("regulariser"),
                model.get("variant"),
                model.get("policy"),
                config.get("toy", {}).get("game"),
            )
            if (kind := (model.get("network"), *marks)) not in seen and model.get("network") != "biggan128":
                seen.add(kind)
                out.append(pytest.param(experiment, id=f"{tier}-{experiment.name}"))
    return out


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_expands_to_experiments_that_the_data_module_and_the_networks_know(tier: str) -> None:
    experiments = load_plan(HERE, tier).experiments
    assert len({experiment.name for experiment in experiments}) == len(experiments) > 5
    for experiment in experiments:
        assert experiment.seeds
        assert ("model" in experiment.config) == ("data" in experiment.config)
        assert experiment.together or "toy" not in experiment.config, experiment.name


def test_samples_are_kept_where_they_are_shown() -> None:
    shown = {name for names in SHOWN for name in names}
    for tier in ("quick", "cpu", "gpu"):
        for e in load_plan(HERE, tier).experiments:
            assert (e.name in shown) == bool(e.config.get("model", {}).get("pictures")), f"{tier}: {e.name}"


def test_the_paper_s_numbers_are_never_compared_with_fid_local(tmp_path: Path, toy_data: Path) -> None:
    """What a published FID is compared with needs Inception weights, and does not begin without them."""
    experiments = load_plan(HERE, "paper").experiments
    assert all(e.config["model"].get("inception") for e in experiments)
    config = dry(experiments[0].config, toy_data)
    assert run(config, 0, tmp_path / "dry")["fid"] > 0  # a dry run says what is missing, and goes on
    config["trainer"]["fast_dev_run"] = False
    with pytest.raises(UserError, match=r"pt_inception-.*\.pth is missing: give Inception weights"):
        run(config, 0, tmp_path / "run")


def test_the_paper_tier_has_the_ablations_and_a_claim_for_each_of_their_arms() -> None:
    """A1, weights of the penalty, and A2, its variants and R1, on 10 % of CIFAR-10; none is run, each says why."""
    plan = {e.name: e.config["model"] for e in load_plan(HERE, "paper").experiments if e.name.startswith("c10_10_")}
    tests = [claim.tiers["paper"] for claim in load_ledger(HERE / "claims.yaml").claims if "paper" in claim.tiers]
    claimed = {name for test in tests if test.not_run for name in test.experiments.values()}
    dig = [model for name, model in plan.items() if model.get("regulariser") == "dig" and not model.get("policy")]
    weights = {model["weight"] for model in dig if "variant" not in model}
    assert weights == {1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0}
    assert {model["variant"]: model["weight"] for model in dig if "variant" in model} == dict.fromkeys(
        ("pair", "mean", "allpairs", "port"), 10_000.0
    )
    assert {m["weight"] for m in plan.values() if m.get("regulariser") == "r1"} == {10.0, 100.0, 1000.0}
    assert plan.keys() <= claimed


@pytest.mark.parametrize("path", each(p for p in FILES if p.stem not in BEHIND_ANOTHER))
def test_every_configuration_takes_a_step(path: Path, tmp_path: Path, toy_data: Path) -> None:
    config = dry(read_yaml(path), toy_data)
    assert data_fingerprint(config)[1] in ("real", "embedded", "recipe")
    found = steps_of(config, "toy" in config, [3], tmp_path / "run")
    if "model" in config:
        assert found["plan/parameters of G"] > 1000
        assert found["plan/parameters of D"] > 1000
        assert found["plan/hours here"] > 0
        assert "plan/seconds an iteration" not in found
        assert not (tmp_path / "run" / "subset.json").exists()


def test_the_penalty_goes_behind_another_configuration(tmp_path: Path, toy_data: Path) -> None:
    config = merge(read_yaml(HERE / "configs/digits.yaml"), read_yaml(HERE / "configs/dig.yaml"))
    assert (config["model"]["regulariser"], config["model"]["network"]) == ("dig", "mlp64")
    found = steps_of(dry(config, toy_data), True, [3, 4], tmp_path / "run")
    assert found["plan/hours here"] > 0
    assert (
        found["plan/parameters of G"]
        == steps_of(dry(config, toy_data), False, [3], tmp_path / "alone")["plan/parameters of G"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("experiment", kinds())
def test_one_step_of_every_kind_of_experiment(experiment: Any, tmp_path: Path, toy_data: Path) -> None:
    config = dry(experiment.config, toy_data)
    assert steps_of(config, experiment.together, experiment.seeds[:1], tmp_path / "run")


@pytest.mark.parametrize(
    "path", [p for p in FILES if "model" in read_yaml(p) and p.stem not in BEHIND_ANOTHER], ids=lambda p: p.stem
)
def test_networks_as_wide_as_they_are(path: Path) -> None:
    """Without memory: what a configuration says goes together, and how many numbers its networks have."""
    with torch.device("meta"):
        sizes = DigGAN(**read_yaml(path)["model"]).sizes()
    if path.stem in ("cifar10", "cifar100"):
        more = 90 if path.stem == "cifar100" else 0  # classes, in six normalisations of 256 channels, twice; in D once
        assert sizes["plan/parameters of G"] == 4_304_387 + more * 6 * 256 * 2
        assert sizes["plan/parameters of D"] == 4_207_361 + more * 256
    assert 4000 < sizes["plan/parameters of D"] < 2e8


class _CostMeasured(Exception):
    """Carries the device that times would have been taken on."""


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("tier", ["quick", "cpu", "gpu"])
def test_costs_are_measured_on_the_device_that_the_result_names(
    tier: str, gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher writes down `shared.runs.job.device`; without a GPU the gpu tier's cost does not begin."""

    def measure(*args: Any, device: str, **settings: Any) -> None:
        raise _CostMeasured(device)

    monkeypatch.setattr("diggan.cost.measure", measure)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    costs = [e for e in load_plan(HERE, tier).experiments if "cost" in e.config]
    assert len(costs) == 1
    config = costs[0].config
    if tier == "gpu" and not gpu:
        with pytest.raises(UserError, match="finds no CUDA device"):
            run(config, 0, tmp_path)
        config = merge(config, {"trainer": {"fast_dev_run": True}})  # a dry run goes on
    with pytest.raises(_CostMeasured) as caught:
        run(config, 0, tmp_path)
    assert str(caught.value) == ("cuda" if tier == "gpu" and gpu else "cpu")
    assert device(config) == ("a GPU" if str(caught.value) == "cuda" else "cpu")


def test_the_cost_s_clock_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches return at once: before either look at the clock there is a synchronise."""
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: order.append("wait"))
    monkeypatch.setattr("diggan.cost.time.perf_counter", lambda: order.append("clock") or float(len(order)))
    times_of({"": lambda: order.append("step")}, 2, "cuda")
    assert order[-5:] == ["wait", "clock", "step", "wait", "clock"]
