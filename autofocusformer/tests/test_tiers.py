"""Every tier expands, and every kind of experiment in it takes a step on small files in the data sets' own layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_layouts as folders
import pytest
import torch
from autofocusformer.experiment import data_fingerprint, run
from autofocusformer.mask_module import MaskSegmenter
from autofocusformer.module import Classifier, Segmenter, Trained
from shared.claims.ledger import load_ledger
from shared.claims.results import Measured
from shared.claims.verdicts import _apply
from shared.runs.plan import load_plan, merge, read_yaml
from shared.runs.reproduce import read_ledger

HERE = Path(__file__).resolve().parent.parent
TIERS = ("quick", "cpu", "gpu", "paper")
FILES = sorted((HERE / "configs").glob("*.yaml"))
MODULES: dict[str, type[Trained]] = {kind.__name__: kind for kind in (Segmenter, Classifier, MaskSegmenter)}
LAYOUTS = {
    "camvid": folders.camvid, "ade20k": folders.ade20k, "cityscapes": folders.cityscapes, "coco": folders.coco,
    "imagenet": folders.imagenet,
}  # fmt: skip


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def dry(config: dict[str, Any], root: Path) -> dict[str, Any]:
    """Two steps of small images by a narrow network: a step of the whole one takes minutes and gigabytes here."""
    config = merge(config, {"trainer": {"fast_dev_run": 2, "accelerator": "cpu", "precision": "32-true"}})
    if "data" not in config:
        return config
    if layout := LAYOUTS.get(config["data"]["dataset"]):
        config["data"] |= {"root": str(layout(root)), "batch_size": 2, "iterations": 2}
    if config["data"].get("crop"):
        config["data"] |= {"crop": [64, 64]}
    for side in ("short_side", "long_side"):
        if config["data"].get(side):
            config["data"] |= {side: 64}
    if config["data"]["dataset"] == "imagenet":
        config["data"] |= {"size": 64, "test_resize": config["data"]["test_resize"] and 64}
    if "model" in config:
        config["model"]["init_args"]["variant"] = "nano"
        config["model"]["init_args"].pop("points", None)
        if config["model"]["class_path"].endswith("MaskSegmenter"):
            config["model"]["init_args"] |= {"queries": 5, "points": 64}
            config["model"]["init_args"]["backbone"].pop("nbhd")
    if "sampling_limited" in config:
        config["sampling_limited"]["images"] = 1
    return config


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_expands_and_the_ledger_knows_its_experiments(tier: str) -> None:
    plan = load_plan(HERE, tier)
    assert len(plan.experiments) >= 3
    assert read_ledger(HERE, plan) is not None


def test_every_published_number_is_in_the_ledger() -> None:
    """As many cells as section 7 has: of ImageNet 7 x 4 + 6, ADE20K 6 x 2, Cityscapes 4 x 2 + 8, COCO 6 x 2."""
    claims = load_ledger(HERE / "claims.yaml").claims
    within = [claim for claim in claims if claim.rule.kind == "within"]
    assert len(within) == 7 * 4 + 6 + 6 * 2 + 4 * 2 + 8 + 6 * 2
    for claim in claims:
        if claim.id.split(".")[0] in ("ade20k", "cityscapes", "coco", "ablation"):
            assert all(test.not_run for test in claim.tiers.values()), claim.id


@pytest.mark.parametrize(("drop", "verdict"), [(0.7, "reproduced"), (-0.2, "reproduced"), (5.0, "not reproduced")])
def test_a_rate_of_a_fifth_may_lose_0_8_and_no_more(drop: float, verdict: str) -> None:
    """Whatever the spread of the seeds, as many of them as the tier runs."""
    claims = [claim for claim in load_ledger(HERE / "claims.yaml").claims if claim.id.startswith("rate.top1.")]
    assert len(claims) == 3
    seeds = {experiment.name: experiment.seeds for experiment in load_plan(HERE, "paper").experiments}
    for claim in claims:
        assert all(len(seeds[name]) >= claim.rule.min_seeds for name in claim.tiers["paper"].experiments.values())
        quarter = claim.paper["quarter"]
        assert quarter is not None
        ours = {role: Measured(mean=mean, sd=0.1, n=3, values=[mean - 0.1, mean, mean + 0.1])
                for role, mean in (("quarter", quarter.value), ("fifth", quarter.value - drop))}  # fmt: skip
        assert _apply(claim, ours, at_paper_setting=True)[0] == verdict


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_configuration_takes_a_step(path: Path, tmp_path: Path) -> None:
    config = dry(read_yaml(path), tmp_path / "data")
    assert data_fingerprint(config)[1] in ("real", "embedded", "synthetic", "exact")
    assert run(config, 3, tmp_path / "run", "x", "t")


@pytest.mark.parametrize("tier", TIERS)
def test_networks_as_large_as_they_are(tier: str) -> None:
    """Without memory: the settings of every experiment go together, and how many numbers its network has."""
    seen = set()
    for experiment in load_plan(HERE, tier).experiments:
        model = experiment.config.get("model")
        kind = model and (model["class_path"], model["init_args"]["variant"], model["init_args"].get("queries"))
        if kind is None or kind in seen:
            continue
        seen.add(kind)
        with torch.device("meta"):
            module = MODULES[model["class_path"].split(".")[-1]](**model["init_args"])
            module.build(19)  # type: ignore[operator]
        found = sum(p.numel() for p in module.parameters())
        if experiment.name == "ade20k_tiny_4":
            # backbone without classifier, with the norms of the levels, and the heads of section 3.2 at 19 classes
            assert sum(p.numel() for p in module.head.pixel_decoder.parameters()) == 4_973_542  # type: ignore[union-attr]
            assert sum(p.numel() for p in module.head.predictor.parameters()) == 14_463_764  # type: ignore[union-attr]
        assert found > 50_000


def test_all_modes_of_the_trained_claim_have_one_size_and_one_budget() -> None:
    experiments = [e for e in load_plan(HERE, "cpu").experiments if e.name.startswith("shapes_")]
    assert [e.config["model"]["init_args"]["backbone"]["sampling"] for e in experiments] == [
        "adaptive", "grid", "random", "oracle",
    ]  # fmt: skip
    for e in experiments:
        assert len(e.seeds) >= 3
        scene = e.config["data"]["scene"]
        assert scene["height"] % 32 == scene["width"] % 32 == 0  # canvases divisible by 8: equal budgets
        rest = merge(e.config, {"model": {"init_args": {"backbone": {"sampling": "any"}}}})
        assert rest == merge(experiments[0].config, {"model": {"init_args": {"backbone": {"sampling": "any"}}}})


def test_the_bound_is_of_the_scenes_that_the_trainings_are_tested_on() -> None:
    """The same source and rows; what is measured of them, sampling alone, needs no training part."""
    limit, trained = read_yaml(HERE / "configs" / "limit_shapes.yaml"), read_yaml(HERE / "configs" / "shapes.yaml")
    assert limit["data"]["scene"] == trained["data"]["scene"]
    assert data_fingerprint(limit) == data_fingerprint({"data": trained["data"]})
    assert limit["sampling_limited"]["alpha"] == trained["model"]["init_args"]["backbone"]["alpha"]
    assert limit["sampling_limited"]["images"] == "all"
    few = merge(limit, {"data": {"test_images": 3}})
    first, second = (run(merge(few, {"sampling_limited": {"mode": "grid"}}), s, Path()) for s in (0, 1))
    assert first == second  # the scenes do not depend on the seed
