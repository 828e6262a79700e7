"""Which runs a tier needs: `<paper>/configs/tiers/<tier>.yaml`, expanded into experiments.

experiments:
  - name: "sweep_{gamma}_{theta}"      one experiment per combination of the grid's labels
    title: "{gamma}, theta = {theta}"
    config: [mnist.yaml]               merged in order, relative to <paper>/configs
    set: {trainer.max_epochs: 10}      then these (dotted keys)
    grid: {gamma: {none: {model.gamma: none}}, theta: {"0.1": {model.theta: 0.1}}}   then the grid's
    seeds: [0, 1, 2]
    together: true                 one job for all seeds: they train as one tensor program (default: a job a seed)
selections:                            another name for the best of some experiments, chosen on validation
  - {name: best, title: "...", from: [sweep_none_0.1], by: val/error, better: lower}
"""

from __future__ import annotations

import copy
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import UserError


class _Loader(yaml.SafeLoader):
    """SafeLoader, but `1e-3` is a number (PyYAML takes it for text) and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping.

    Raises:
        UserError: no such file, not YAML, a key twice, or not a mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}, line {line}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected `key: value` pairs")
    return content


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _ExperimentEntry(_Strict):
    name: str
    title: str
    config: list[str] = Field(min_length=1)
    set: dict[str, Any] = {}
    grid: dict[str, dict[str, dict[str, Any]]] = {}
    seeds: list[int] = Field(min_length=1)
    together: bool = False


class Selection(_Strict):
    """The best of some experiments by the mean over seeds of a validation metric."""

    name: str
    title: str
    among: list[str] = Field(alias="from", min_length=1)
    by: str
    better: Literal["lower", "higher"]


class _TierFile(_Strict):
    paper: str
    tier: str
    experiments: list[_ExperimentEntry] = Field(min_length=1)
    selections: list[Selection] = []


@dataclass(frozen=True)
class Experiment:
    """One configuration, run once per seed: a job each, or all `together` in one."""

    name: str
    title: str
    config: dict[str, Any]
    seeds: list[int]
    together: bool = False


@dataclass(frozen=True)
class Plan:
    """What a tier of a paper runs, and what is chosen from it."""

    paper: str
    tier: str
    experiments: list[Experiment]
    selections: list[Selection]


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with `over` on top: mappings are merged, everything else is replaced."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def override(config: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    """Set `a.b.c` in `config`, in place."""
    *parents, last = dotted.split(".")
    node: Any = config
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UserError(f"{where}: {dotted} leads through {part}, which is not a group of settings")
    node[last] = copy.deepcopy(value)


def _fill(template: str, labels: dict[str, str], where: str) -> str:
    try:
        return template.format(**labels)
    except (KeyError, IndexError, ValueError):
        axes = ", ".join(f"{{{axis}}}" for axis in labels) or "none, as there is no grid"
        raise UserError(f"{where}: `{template}` can only hold these placeholders: {axes}") from None


def _expand(entry: _ExperimentEntry, configs: Path, where: str) -> list[Experiment]:
    base: dict[str, Any] = {}
    for file in entry.config:
        base = merge(base, read_yaml(configs / file))
    for dotted, value in entry.set.items():
        override(base, dotted, value, where)
    out = []
    for labels in itertools.product(*entry.grid.values()):
        config = copy.deepcopy(base)
        chosen = dict(zip(entry.grid, labels))
        for axis, label in chosen.items():
            for dotted, value in entry.grid[axis][label].items():
                override(config, dotted, value, where)
        name, title = _fill(entry.name, chosen, where), _fill(entry.title, chosen, where)
        out.append(Experiment(name, title, config, entry.seeds, entry.together))
    return out


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{place}: no such setting"
    hint = " (put it in quotes)" if place.endswith("[key]") else ""
    return f"{place}: {first['msg']}{hint}"


def _check(plan: Plan, where: Path) -> None:
    names = [e.name for e in plan.experiments] + [s.name for s in plan.selections]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: the name {name} stands for more than one experiment or selection")
    for experiment in plan.experiments:
        if len(set(experiment.seeds)) < len(experiment.seeds):
            raise UserError(f"{where}: {experiment.name} lists a seed twice")
    known = {experiment.name for experiment in plan.experiments}
    for selection in plan.selections:
        if selection.by.startswith("test/"):
            raise UserError(
                f"{where}: {selection.name} chooses by {selection.by}: choose on validation (val/...), never on test"
            )
        for name in selection.among:
            if name not in known:
                raise UserError(f"{where}: {selection.name} chooses from {name}, which is no experiment of this tier")


def load_plan(root: Path, tier: str) -> Plan:
    """The plan of a tier; `root` is the paper's folder.

    Raises:
        UserError: the tier, a setting or an experiment that is named does not exist, a name is given twice, or a
            selection is made on the test set.
    """
    path = root / "configs" / "tiers" / f"{tier}.yaml"
    if not path.is_file():
        tiers = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise UserError(f"{root.name} has no tier {tier}; it has: {tiers}")
    try:
        file = _TierFile.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {_one_line(error)}") from None
    if file.tier != tier:
        raise UserError(f"{path}: says `tier: {file.tier}`")
    experiments = [
        experiment
        for entry in file.experiments
        for experiment in _expand(entry, root / "configs", f"{path}, {entry.name}")
    ]
    plan = Plan(file.paper, file.tier, experiments, file.selections)
    _check(plan, path)
    return plan
