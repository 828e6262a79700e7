"""`results/<tier>/results.json`: what was measured, seed by seed, and under which circumstances."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError, model_validator

from shared.claims.schema import Date, Number, Strict, Text, Tier, one_line
from shared.errors import UserError
from shared.runs.store import write_atomic

Verdict = Literal["reproduced", "trend reproduced", "not reproduced", "not run"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
# What the numbers were measured on: files of the data set; a small stand-in that ships with a library; a stand-in made
# up by us; data drawn by the paper's own recipe; nothing at all, as everything is enumerated or computed.
Kind = Literal["real", "embedded", "synthetic", "recipe", "exact"]
THE_PAPERS: tuple[Kind, ...] = ("real", "recipe", "exact")  # can be what the paper measured on
Seconds = Annotated[Number, Field(ge=0)]


class Measured(Strict):
    """One number of a claim over seeds: mean, sample standard deviation (0 for one seed) and every value."""

    mean: Number
    sd: Seconds
    n: int = Field(ge=1)
    values: list[Number] = Field(min_length=1)


class ClaimOutcome(Strict):
    """The verdict on a claim, why, and our number for each of its roles (None where it was not measured)."""

    verdict: Verdict
    why: Text
    ours: dict[str, Measured | None]


class DataUsed(Strict):
    name: Text
    kind: Kind
    fingerprint: Text
    detail: str


class RunResult(Strict):
    """One run: one configuration, one seed."""

    seed: int
    key: Text
    metrics: dict[str, Number]
    curves: dict[str, list[Number]] = Field(default_factory=dict)
    wall_seconds: Seconds
    device: Text
    date: Date
    commit: str
    versions: dict[str, str]


class ExperimentResult(Strict):
    """The runs of one experiment, or of the one that a selection chose (`chosen`, by `selected_by`)."""

    title: Text
    config: dict[str, Any]
    data: DataUsed
    runs: list[RunResult]
    selected_from: list[str] | None = None
    selected_by: str | None = None
    chosen: str | None = None
    failed: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _coherent(self) -> ExperimentResult:
        for what in ("seed", "key"):
            values = [getattr(run, what) for run in self.runs]
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"{what} {value} is counted {values.count(value)} times")
        selection = (self.selected_from, self.selected_by, self.chosen)
        if any(part is not None for part in selection):
            if self.selected_from is None or self.selected_by is None or self.chosen is None:
                raise ValueError("a selection needs selected_from, selected_by and chosen")
            if self.chosen not in self.selected_from:
                raise ValueError(f"{self.chosen} was chosen, but is not in selected_from")
            if self.selected_by.startswith("test/"):
                raise ValueError(f"selected by {self.selected_by}: a selection on the test set is no result")
        return self


def _bare_svg(name: str) -> str:
    if PurePath(name).name != name or not name.endswith(".svg"):
        raise ValueError(f"expected the name of an SVG file beside results.json, found {name!r}")
    return name


class FigureRef(Strict):
    """An SVG beside `results.json`, what to see in it, and the words for who cannot see it."""

    file: Annotated[str, AfterValidator(_bare_svg)]
    caption: Text
    alt: Text


class Table(Strict):
    """What a claim cannot say: many settings side by side. Cells are text, the first column names the row."""

    title: Text
    columns: list[Text] = Field(min_length=2)
    rows: list[list[str]] = Field(min_length=1)
    note: str = ""

    @model_validator(mode="after")
    def _rectangular(self) -> Table:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: a row of {len(row)} cells under {len(self.columns)} columns")
        return self


class Results(Strict):
    """All that a tier of a paper measured."""

    schema_version: Literal[1] = 1
    paper: Text
    tier: Tier
    created: Date
    commit: str
    dirty: bool
    machine: str
    versions: dict[str, str]
    wall_seconds: Seconds
    experiments: dict[str, ExperimentResult]
    figures: list[FigureRef] = Field(default_factory=list)
    tables: list[Table] = Field(default_factory=list)
    claims: dict[str, ClaimOutcome] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _coherent(self) -> Results:
        for name, experiment in self.experiments.items():
            if experiment.chosen is not None and experiment.chosen not in self.experiments:
                raise ValueError(f"experiments.{name}: {experiment.chosen}, which it chose, is not in this file")
        files = [figure.file for figure in self.figures]
        for file in files:
            if files.count(file) > 1:
                raise ValueError(f"figures: {file} is listed {files.count(file)} times")
        return self


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise UserError(f"{key} is given twice")
        out[key] = value
    return out


def load_results(path: Path | str) -> Results:
    """Read a result file.

    Raises:
        UserError: anything that is wrong with it, on one line that names the file and the key.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_no_key_twice)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}); run its tier again") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; run its tier again") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object; run its tier again")
    if content.get("schema_version", 1) != 1:
        version = content["schema_version"]
        raise UserError(f"{path}: schema_version {version} is not known here (1 is); run its tier again")
    try:
        return Results.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {one_line(error)}") from None


def save(results: Results, path: Path | str) -> None:
    """Write a result file: a reader, or a kill at any moment, meets the old file or the whole new one.

    Raises:
        UserError: a number is NaN or infinite; the disk is full. What stood at `path` before is still there.
    """
    try:
        content = json.dumps(results.model_dump(mode="python"), indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise UserError(f"{path}: a number is NaN or infinite; a run that diverged has no result") from None
    write_atomic(path, content + "\n")
