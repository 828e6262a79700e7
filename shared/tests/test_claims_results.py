"""Every way in which a result file can be wrong has its own message; a good one comes back as it went in."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shared.claims.results import ClaimOutcome, Measured, load_results, save
from shared.errors import UserError

DATE = "2026-01-02T03:04:05+00:00"


def run(seed: int) -> dict[str, Any]:
    return {
        "seed": seed, "key": f"k{seed}", "metrics": {"test/error": 2.5}, "curves": {"loss": [1.0, 0.5]},
        "wall_seconds": 3.5, "device": "CPU", "date": DATE, "commit": "c0ffee", "versions": {"torch": "2"},
    }  # fmt: skip


def experiment() -> dict[str, Any]:
    data = {"name": "mnist", "kind": "real", "fingerprint": "ab", "detail": "60k"}
    return {"title": "t", "config": {"a": [1]}, "data": data, "runs": [run(0), run(1), run(2)], "failed": []}


GOOD: dict[str, Any] = {
    "schema_version": 1, "paper": "p", "tier": "cpu", "created": DATE, "commit": "c0ffee", "dirty": False,
    "machine": "m", "versions": {"torch": "2"}, "wall_seconds": 9,
    "experiments": {
        "a": experiment(),
        "best": {**experiment(), "selected_from": ["a"], "selected_by": "val/error", "chosen": "a"},
    },
    "figures": [{"file": "curve.svg", "caption": "It falls.", "alt": "a curve"}],
    "claims": {"c": {"verdict": "not run", "why": "few seeds", "ours": {"ours": None}}},
}  # fmt: skip


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(GOOD))
    first = load_results(path)
    measured = Measured(mean=2.5, sd=0.0, n=3, values=[2.5, 2.5, 2.5])
    outcome = ClaimOutcome(verdict="reproduced", why="within ± 0.1", ours={"ours": measured})
    first = first.model_copy(update={"claims": {"c": outcome}})
    save(first, tmp_path / "deep" / "results.json")
    assert load_results(tmp_path / "deep" / "results.json") == first
    assert "within ± 0.1" in (tmp_path / "deep" / "results.json").read_text(encoding="utf-8")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["results.json"]


def test_a_number_that_is_none_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(GOOD))
    found = load_results(path)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"results\.json: a number is NaN or infinite"):
            save(found.model_copy(update={"wall_seconds": wrong}), path)
    assert load_results(path) == found  # what stood there is still there


def at(*place: str | int) -> Callable[[dict[str, Any], Any], None]:
    def put(content: Any, value: Any) -> None:
        for part in place[:-1]:
            content = content[part]
        if value is None:
            del content[place[-1]]
        else:
            content[place[-1]] = value

    return put


FIRST = ("experiments", "a", "runs", 0)
WRONG: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("paper",), None, "paper: is missing"),
    (("author",), "me", "author: no such key"),
    (("schema_version",), 2, "schema_version 2 is not known here (1 is); run its tier again"),
    (("tier",), "huge", "tier: Input should be 'quick', 'cpu', 'gpu' or 'paper'"),
    (("created",), "yesterday",
     "created: expected a date such as 2026-01-31T12:00:00+00:00, found 'yesterday'"),
    (("wall_seconds",), -1, "wall_seconds: Input should be greater than or equal to 0"),
    ((*FIRST, "metrics", "test/error"), float("nan"), "experiments.a.runs.0.metrics.test/error: is NaN or infinite"),
    ((*FIRST, "metrics", "test/error"), float("inf"), "experiments.a.runs.0.metrics.test/error: is NaN or infinite"),
    ((*FIRST, "metrics", "test/error"), "2.5",
     "experiments.a.runs.0.metrics.test/error: expected a number, found '2.5'"),
    ((*FIRST, "curves", "loss"), [1.0, float("nan")], "experiments.a.runs.0.curves.loss.1: is NaN or infinite"),
    ((*FIRST, "date"), "2026-13-01", "experiments.a.runs.0.date: expected a date such as "
     "2026-01-31T12:00:00+00:00, found '2026-13-01'"),
    ((*FIRST, "seed"), 1, "experiments.a: seed 1 is counted 2 times"),
    ((*FIRST, "key"), "k1", "experiments.a: key k1 is counted 2 times"),
    ((*FIRST, "key"), 7, "experiments.a.runs.0.key: expected text, found 7 (put it in quotes)"),
    (("experiments", "a", "data", "kind"), "fake",
     "experiments.a.data.kind: Input should be 'real', 'embedded', 'synthetic', 'recipe' or 'exact'"),
    (("experiments", "best", "chosen"), None,
     "experiments.best: a selection needs selected_from, selected_by and chosen"),
    (("experiments", "best", "chosen"), "b", "experiments.best: b was chosen, but is not in selected_from"),
    (("experiments", "best", "selected_by"), "test/error",
     "experiments.best: selected by test/error: a selection on the test set is no result"),
    (("experiments", "a"), None, "experiments.best: a, which it chose, is not in this file"),
    (("figures", 0, "file"), "../../etc/x.svg", "figures.0.file: expected the name of an SVG file beside results.json, "
     "found '../../etc/x.svg'"),
    (("figures", 0, "file"), "curve.png",
     "figures.0.file: expected the name of an SVG file beside results.json, found 'curve.png'"),
    (("figures", 0, "caption"), " ", "figures.0.caption: is empty"),
    (("figures",), [GOOD["figures"][0]] * 2, "figures: curve.svg is listed 2 times"),
    (("claims", "c", "verdict"), "confirmed", "claims.c.verdict: Input should be 'reproduced', 'trend reproduced', "
     "'not reproduced' or 'not run'"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "message"), WRONG, ids=[m[:40] for *_, m in WRONG])
def test_a_wrong_result_file_says_where_and_what(
    place: tuple[str | int, ...], value: Any, message: str, tmp_path: Path
) -> None:
    content = copy.deepcopy(GOOD)
    at(*place)(content, value)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        load_results(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"paper": "p",\n',
            ", line 2: not JSON (Expecting property name enclosed in double quotes); run its tier again",
        ),
        (b"[]", ": expected an object; run its tier again"),
        (b"\xff\xfe\x00", ": not a text file; run its tier again"),
        (b'{"paper": "p", "paper": "q"}', ": paper is given twice"),
    ],
)
def test_a_file_that_is_no_result(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_results(path)
    assert str(caught.value) == f"{path}{message}"
    with pytest.raises(UserError, match="no such file"):
        load_results(tmp_path / "none.json")
