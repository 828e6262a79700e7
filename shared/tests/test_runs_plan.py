"""A tier's file becomes experiments; every mistake in it is one line that names its place."""

from pathlib import Path

import pytest
from shared.errors import UserError
from shared.runs.plan import load_plan

BASE = "model: {width: 8, theta: 1.0}\ntrainer: {max_epochs: 5}\n"
OTHER = "model: {width: 16}\nlayers: [1, 2]\n"
TIER = """
paper: toy
tier: quick
experiments:
  - name: "sweep_{gamma}_{theta}"
    title: "{gamma}, theta = {theta}"
    config: [base.yaml, other.yaml]
    set: {trainer.max_epochs: 10, data.root: here}
    grid:
      gamma: {none: {model.gamma: none}, all: {model.gamma: all, trainer.max_epochs: 30}}
      theta: {"0.1": {model.theta: 1e-1}, "1": {model.theta: 1.0}}
    seeds: [0, 1, 2]
  - {name: alone, title: Alone, config: [base.yaml], seeds: [7]}
selections:
  - {name: best, title: Best, from: [sweep_all_0.1, sweep_all_1], by: val/error, better: lower}
"""


def plan_of(folder: Path, text: str = TIER):
    tiers = folder / "configs" / "tiers"
    tiers.mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "base.yaml").write_text(BASE)
    (folder / "configs" / "other.yaml").write_text(OTHER)
    (tiers / "quick.yaml").write_text(text)
    return load_plan(folder, "quick")


def test_a_grid_is_the_product_of_its_axes(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    names = ["sweep_none_0.1", "sweep_none_1", "sweep_all_0.1", "sweep_all_1", "alone"]
    assert [e.name for e in plan.experiments] == names
    assert [e.title for e in plan.experiments][2] == "all, theta = 0.1"
    assert plan.experiments[0].seeds == [0, 1, 2]
    assert (plan.selections[0].among, plan.selections[0].by) == (["sweep_all_0.1", "sweep_all_1"], "val/error")


def test_files_then_set_then_grid(tmp_path: Path) -> None:
    by_name = {e.name: e.config for e in plan_of(tmp_path).experiments}
    assert by_name["sweep_all_0.1"] == {
        "model": {"width": 16, "theta": 0.1, "gamma": "all"},
        "trainer": {"max_epochs": 30},
        "layers": [1, 2],
        "data": {"root": "here"},
    }
    assert by_name["sweep_none_1"]["trainer"] == {"max_epochs": 10}
    assert by_name["alone"] == {"model": {"width": 8, "theta": 1.0}, "trainer": {"max_epochs": 5}}


def test_experiments_share_no_settings(tmp_path: Path) -> None:
    first, second, *_ = plan_of(tmp_path).experiments
    first.config["layers"].append(3)
    first.config["trainer"]["max_epochs"] = 0
    assert second.config["layers"] == [1, 2]
    assert second.config["trainer"]["max_epochs"] == 10


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    seeds: [0, 1, 2]", "    seed: [0]\n    seeds: [0]", r"experiments\.0\.seed: no such setting"),
        ("seeds: [0, 1, 2]", "seeds: []", r"experiments\.0\.seeds: .*at least 1"),
        ("seeds: [0, 1, 2]", "seeds: [1, 1]", "sweep_none_0.1 lists a seed twice"),
        ("tier: quick", "tier: cpu", "says `tier: cpu`"),
        ("tier: quick", "tier: quick\ntier: quick", "line 4: tier is given twice"),
        ("name: alone", "name: best", "the name best stands for more than one"),
        ("_{theta}", "", "the name sweep_none stands for more than one"),
        ("[base.yaml, other.yaml]", "[absent.yaml]", r"absent\.yaml: no such file"),
        ("{gamma}, theta", "{tau}, theta", r"can only hold these placeholders: \{gamma\}, \{theta\}"),
        ("title: Alone", "title: 'a {gamma}'", "none, as there is no grid"),
        ("by: val/error", "by: test/error", "choose on validation"),
        ("better: lower", "better: smaller", r"selections\.0\.better: "),
        ("[sweep_all_0.1, ", "[sweep_al, ", "best chooses from sweep_al, which is no experiment"),
        ("model.theta: 1.0", "model.theta.deep: 1.0", "leads through theta, which is not a group"),
        ('theta: {"0.1"', "theta: {0.1", "put it in quotes"),
        ("experiments:", "experiments: [", "line 5: "),
        ("  - {name: alone, title: Alone, config: [base.yaml], seeds: [7]}", "  - 3", r"experiments\.1: "),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TIER
    with pytest.raises(UserError, match=message) as caught:
        plan_of(tmp_path, TIER.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def test_a_tier_that_is_not_there(tmp_path: Path) -> None:
    plan_of(tmp_path)
    with pytest.raises(UserError, match="has no tier huge; it has: quick"):
        load_plan(tmp_path, "huge")
