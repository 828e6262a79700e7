"""Figures and tables of made-up results: each is drawn where its runs are there, and holds what its caption says."""

from pathlib import Path
from typing import Any

import numpy as np
from shared.claims.results import DataUsed, ExperimentResult, Results, RunResult
from spatial_textvqa.data.scenes import VOCABULARY
from spatial_textvqa.example import example_scene
from spatial_textvqa.tables import KINDS, tables

from spatial_textvqa import figures

SCENE = {
    "picture/boxes": [0.1, 0.1, 0.3, 0.3, 0.6, 0.6, 0.8, 0.8],
    "picture/token_boxes": [0.15, 0.15, 0.2, 0.2, 0.65, 0.65, 0.7, 0.7],
    "picture/look": [0.0, 0.0, 2.0, 1.0],
    "picture/word": [0.0, 1.0],
    "picture/question": [1.0, 1.0, 0.0],
    "picture/answer": [0.0],
    "picture/edges": [2.0, 0.0, 2.0, 0.9, 1.0, 0.0, 5.0, 0.4],
}


def experiment(title: str, look: str, spatial: float, seeds: int = 3, scene: bool = False) -> ExperimentResult:
    runs = []
    for seed in range(seeds):
        metrics = {f"test/kind/{kind}": spatial for kind in KINDS}
        metrics |= {"test/spatial": spatial + 0.01 * seed, "test/accuracy": spatial, "train/cpu_seconds": 40.0}
        curves: dict[str, Any] = {"curve/val/spatial": list(np.linspace(0.1, spatial, 4))} | (SCENE if scene else {})
        about: dict[str, Any] = {"device": "cpu", "commit": "0", "versions": {}, "date": "2026-01-31T12:00:00+00:00"}
        runs.append(
            RunResult(key=f"{title}{look}{seed}", seed=seed, metrics=metrics, curves=curves, wall_seconds=1.0, **about)
        )
    config = {"data": {"dataset": "scenes", "question": "content", "ocr_appearance": look}}
    used = DataUsed(name="scenes", kind="synthetic", fingerprint="0", detail="made up")
    return ExperimentResult(title=title, config=config, data=used, runs=runs)


def results(**experiments: ExperimentResult) -> Results:
    return Results(
        paper="spatial_textvqa", tier="cpu", created="2026-01-31T12:00:00+00:00", commit="0", dirty=False, machine="m",
        versions={}, wall_seconds=1.0, experiments=experiments,
    )  # fmt: skip


def everything() -> Results:
    return results(
        c3_none=experiment("spatial, c = 3", "none", 0.95, scene=True),
        full_none=experiment("full attention", "none", 0.33),
        c1_none=experiment("spatial, c = 1", "none", 0.9),
        full_object=experiment("full attention", "object", 0.88),
        c3_object=experiment("spatial, c = 3", "object", 0.93),
    )


def test_every_figure_is_drawn_and_says_what_it_shows(tmp_path: Path) -> None:
    drawn = figures.draw(everything(), tmp_path)
    assert [f.file for f in drawn] == ["both_settings.svg", "learning.svg", "controls.svg", "attention_c3_none.svg"]
    both = (tmp_path / "both_settings.svg").read_text()
    for text in ("OCR tokens", "without appearance", "like their objects", ">34<", ">96<", ">chance<"):
        assert text in both
    scene = (tmp_path / "attention_c3_none.svg").read_text()
    assert "what word is left of the blue circle?  alpha" in scene
    assert "red square" in scene


def test_the_gap_is_not_drawn_in_one_setting_alone(tmp_path: Path) -> None:
    one = results(c3_none=experiment("c", "none", 0.9), full_none=experiment("f", "none", 0.3))
    assert figures.draw(one, tmp_path) == []
    assert figures.draw(results(), tmp_path) == []


def test_tables_put_both_appearances_of_a_model_side_by_side() -> None:
    by_kind, hangs = tables(everything())
    assert [row[0] for row in by_kind.rows[:2]] == [
        "spatial, c = 3; tokens without appearance",
        "spatial, c = 3; tokens that look like their objects",
    ]
    assert by_kind.rows[0][2] == "96.0 ± 1.0"
    assert by_kind.columns[3:] == list(KINDS)
    assert hangs.rows[0][1] == "–"  # a run without probes
    assert hangs.rows[0][-1] == "40"
    assert tables(results()) == []


def test_a_table_says_word_for_word_what_ask_said() -> None:
    sample = example_scene()
    first = float(len(VOCABULARY))
    asked = experiment("spatial, c = 3", "none", 0.95, seeds=1)
    asked.runs[0].curves.update(
        {"ask/words": [first + 2, 0.75], "ask/candidates": [0, first + 2, 0.75, 0, 4, 0.125], "ask/edges": []}
    )
    told = tables(results(c3_none=asked, full_none=experiment("full attention", "none", 0.33)))[2]
    assert told.title == f'Asked "{sample.question}": spatial, c = 3; tokens without appearance'
    word = sample.ocr_tokens[2]
    assert told.rows[0] == ["answer", word]
    assert told.rows[1][0] == word
    assert told.rows[1][1].endswith(", score 0.750")
    assert told.rows[2] == ["best of this step", f"{word} (OCR 0.750), {VOCABULARY.words[4]} (vocabulary 0.125)"]
    assert told.note.startswith(f'Right is "{sample.answers[0]}".')
