"""Many settings side by side: by type of question, and by what the graph is replaced with."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from shared.claims.results import ExperimentResult, Results, Table

from spatial_textvqa.example import FEATURE_WIDTH, OBJECTS, SEED, example_scene, retold

KINDS = ("on", "left", "right", "above", "below")
MORE_KINDS = (*KINDS, "top", "bottom", "leftmost", "rightmost", "yesno", "count", "colour")
APPEARANCE = {"none": "tokens without appearance", "object": "tokens that look like their objects"}


def percent(experiment: ExperimentResult, metric: str) -> str:
    """Mean over seeds in percent, with the standard deviation where there are several."""
    values = [100 * run.metrics[metric] for run in experiment.runs if metric in run.metrics]
    if not values:
        return "–"
    return f"{fmean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def number(experiment: ExperimentResult, metric: str, digits: int = 2) -> str:
    values = [run.metrics[metric] for run in experiment.runs if metric in run.metrics]
    return f"{fmean(values):.{digits}f}" if values else "–"


def appearance(experiment: ExperimentResult) -> str:
    return str(experiment.config["data"].get("ocr_appearance", "none"))


def named(experiment: ExperimentResult) -> str:
    """Title with the setting of the tokens' appearance."""
    return f"{experiment.title}; {APPEARANCE[appearance(experiment)]}"


def in_order(results: Results) -> list[ExperimentResult]:
    """Scenes of the quick setting, both appearances of a model one after the other."""
    found = [
        e
        for e in results.experiments.values()
        if e.runs and e.config["data"].get("dataset") == "scenes" and e.config["data"].get("question") == "content"
    ]
    titles = list(dict.fromkeys(e.title for e in found))
    return sorted(found, key=lambda e: (titles.index(e.title), appearance(e) != "none"))


def tables(results: Results) -> list[Table]:
    """What `reproduce.py` prints and the report shows below the claims."""
    scenes = in_order(results)
    out = []
    if scenes:
        columns = ["model; OCR tokens", "all", "spatial", *KINDS]
        metrics = ["test/accuracy", "test/spatial", *(f"test/kind/{kind}" for kind in KINDS)]
        out.append(
            Table(
                title="Whole answers right (%), by type of question",
                columns=columns,
                rows=_rows(scenes, metrics),
                note="Chance is 16.7 %. The gap is large only where geometry alone ties a token to its object.",
            )
        )
        probes = {
            "flipped question": "flipped/accuracy", "answer changes": "flipped/changed", "both right": "flipped/both",
            "R transposed": "transposed/spatial", "another scene's R": "other_scene/spatial",
            "nine objects": "more_objects/spatial", "grounding": "test/grounding",
        }  # fmt: skip
        rows = [
            [*row, number(e, "test/reference_attention"), number(e, "train/cpu_seconds", 0)]
            for row, e in zip(_rows(scenes, list(probes.values())), scenes)
        ]
        out.append(
            Table(
                title="What the answers hang on (%)",
                columns=["model; OCR tokens", *probes, "attention to reference (x uniform)", "CPU seconds"],
                rows=rows,
                note="With R changed or nine objects: spatial questions, of a network trained as usual.",
            )
        )
        out += [word_for_word(e) for e in scenes if "ask/words" in e.runs[0].curves]
    others = [e for n, e in results.experiments.items() if n.endswith("_sentences") and e.runs]
    if others:
        metrics = ["test/accuracy", "test/spatial", *(f"test/kind/{kind}" for kind in MORE_KINDS)]
        title = "Whole sentences, every kind of question, texts of up to two tokens (%)"
        out.append(
            Table(
                title=title, columns=["model; OCR tokens", "all", "spatial", *MORE_KINDS], rows=_rows(others, metrics)
            )
        )
    receipts = [e for n, e in results.experiments.items() if n.endswith("_receipts") and e.runs]
    if receipts:
        kinds = ("company", "date", "address", "total", "right", "left", "below", "above")
        of_all = ["test/anls", "test/textvqa", "test/accuracy", "test/answerable"]
        metrics = [*of_all, *(f"test/kind/{kind}" for kind in kinds)]
        rows = [[e.title, *row[1:]] for row, e in zip(_rows(receipts, metrics), receipts)]
        out.append(
            Table(
                title="Receipts (real text boxes; %)",
                columns=["model", "ANLS", "accuracy", "whole answer", "at most", *kinds],
                rows=rows,
                note="Trained from nothing on a few thousand questions, without pictures. One seed. At most: questions "
                "whose answer is among the words that were kept.",
            )
        )
    return out


def word_for_word(experiment: ExperimentResult) -> Table:
    """What `ask` says of the scene of `example`, of the first seed's network."""
    data = experiment.config["data"]
    width, objects = data.get("feature_width", FEATURE_WIDTH), data.get("objects", OBJECTS)
    sample = example_scene(SEED, width, appearance(experiment), objects)
    picture, answer = retold(experiment.runs[0].curves, sample)
    rows = [line.strip().split(": ", 1) for line in answer.lines(picture)]
    return Table(
        title=f'Asked "{sample.question}": {named(experiment)}',
        columns=["ask", "says"],
        rows=rows,
        note=f'Right is "{sample.answers[0]}". The scene is that of `python -m spatial_textvqa example`.',
    )


def _rows(experiments: Sequence[ExperimentResult], metrics: Sequence[str]) -> list[list[str]]:
    return [[named(e), *(percent(e, metric) for metric in metrics)] for e in experiments]
