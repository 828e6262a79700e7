"""Prediction files for the public evaluation servers, and a scorer that reads them and needs no model (section 9).

`evalai` (TextVQA): [{"question_id": 1, "image_id": "...", "answer": "...", "pred_source": ["OCR", "VOCAB"]}, ...]
`rrc` (ST-VQA):     [{"question_id": 1, "answer": "..."}, ...]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from shared.errors import UserError

from spatial_textvqa.answers import answerable_from_ocr
from spatial_textvqa.custom import lines, ten
from spatial_textvqa.metrics import anls, is_spatial, stvqa_accuracy, textvqa_accuracy
from spatial_textvqa.picture import parsed_json, read_json

if TYPE_CHECKING:
    from spatial_textvqa.ask import Asker
    from spatial_textvqa.data.textvqa import QuestionsOnDisk

AT_ONCE = 32  # questions of a batch
Form = Literal["evalai", "rrc"]
METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "TextVQA accuracy": textvqa_accuracy,
    "ST-VQA accuracy": stvqa_accuracy,
    "ANLS": anls,
}


@dataclass(frozen=True)
class Prediction:
    """An answer; `sources` tells of each of its words whether it was read in the image ("OCR") or is a fixed one."""

    question_id: str
    answer: str
    image_id: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gold:
    """What people answered; `tokens` are None where the file does not say what is written in the image."""

    question_id: str
    question: str
    answers: tuple[str, ...]
    tokens: tuple[str, ...] | None = None


def predictions_on_disk(asker: Asker, data: QuestionsOnDisk, on_bad_box: str = "error") -> list[Prediction]:
    """An answer to every question of a part of TextVQA or ST-VQA, read and cut as in training.

    Raises:
        UserError: a sample that cannot be read; the line names it.
    """
    from spatial_textvqa.data.encode import report_lost  # slow to import, and the scorer has no use for it

    encoder, found = asker.encoder, []
    if on_bad_box == "clip":
        encoder.encoding = replace(encoder.encoding, on_bad_box="clip")
    for start in range(0, len(data), AT_ONCE):
        samples = [data[number] for number in range(start, min(start + AT_ONCE, len(data)))]
        indices = asker.model.decode(encoder.collate(samples)).indices
        for sample, said in zip(samples, indices.tolist()):
            text, parts = asker.vocabulary.text(said, sample.ocr_tokens)
            image = sample.image_id.removeprefix(f"{data.name}/")
            found.append(Prediction(sample.sample_id, text, image, tuple(source for _, source, _ in parts)))
    report_lost(encoder.taken_lost())
    return found


def write_predictions(predictions: Sequence[Prediction], path: Path, form: Form = "evalai") -> None:
    """A file as the server takes it: whole numbers as identifiers where they are some, one answer a question."""
    rows: list[dict[str, Any]] = []
    for said in predictions:
        row: dict[str, Any] = {"question_id": _number(said.question_id)}
        if form == "evalai":
            row["image_id"] = said.image_id
        row["answer"] = said.answer
        if form == "evalai":
            row["pred_source"] = list(said.sources)
        rows.append(row)
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read_predictions(path: Path) -> dict[str, Prediction]:
    """Answers of a file of either form, by question.

    Raises:
        UserError: another shape, or two answers to one question.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of {{question_id, answer}}")
    found: dict[str, Prediction] = {}
    for i, row in enumerate(rows):
        where = f"{path}, prediction {i}"
        if not isinstance(row, dict) or not isinstance(row.get("answer"), str) or not _is_id(row.get("question_id")):
            raise UserError(f"{where}: expected an object with question_id and a text as answer")
        identifier = str(row["question_id"])
        if identifier in found:
            raise UserError(f"{where}: a second answer to question {identifier}")
        sources = row.get("pred_source", [])
        if not isinstance(sources, list) or not set(map(str, sources)) <= {"OCR", "VOCAB"}:
            raise UserError(f"{where}: pred_source has to be a list of OCR and VOCAB")
        found[identifier] = Prediction(identifier, row["answer"], str(row.get("image_id", "")), tuple(sources))
    return found


def read_gold(path: Path) -> list[Gold]:
    """Answered questions: a data file (json-lines, see `custom`), TextVQA's published {"data": [...]}, or an imdb.

    An imdb's `.npy` is read as `data.textvqa` reads it.

    Raises:
        UserError: another shape, a question without answers, an id that comes twice.
    """
    if path.suffix == ".npy":
        from spatial_textvqa.data.textvqa import read_imdb

        rows: list[tuple[str, Any]] = [
            (f"{path}, record {number}", row | {"ocr_tokens": row["tokens"]})
            for number, row in enumerate(read_imdb(path), 1)
        ]
    elif path.suffix == ".jsonl":
        rows = [(f"{path}, line {number}", parsed_json(line, f"{path}, line {number}")) for number, line in lines(path)]
    else:
        content = read_json(path)
        data = content.get("data") if isinstance(content, dict) else None
        if not isinstance(data, list):
            raise UserError(f'{path}: expected json-lines (name it .jsonl), or {{"data": [questions]}}')
        rows = [(f"{path}, question {i}", row) for i, row in enumerate(data)]
    gold = [_gold(row, where) for where, row in rows]
    seen: set[str] = set()
    for (where, _), one in zip(rows, gold):
        if one.question_id in seen:
            raise UserError(f"{where}: question_id {one.question_id} comes twice")
        seen.add(one.question_id)
    return gold


def _gold(row: Any, where: str) -> Gold:
    if not isinstance(row, dict) or not _is_id(row.get("question_id")) or not isinstance(row.get("question"), str):
        raise UserError(f"{where}: expected an object with question_id, question and answers")
    answers = row.get("answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f"{where} (question {row['question_id']}): no answers to score against")
    tokens = row.get("ocr_tokens")
    if isinstance(row.get("ocr"), list):
        tokens = [word.get("text") if isinstance(word, dict) else None for word in row["ocr"]]
    if tokens is not None and not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
        raise UserError(f"{where} (question {row['question_id']}): expected texts as OCR tokens")
    return Gold(str(row["question_id"]), row["question"], tuple(answers), None if tokens is None else tuple(tokens))


@dataclass(frozen=True)
class Scores:
    """Fractions by subset and metric; `missing` questions counted as wrong, `unasked` answers were not looked at."""

    by_subset: dict[str, dict[str, float]]
    counts: dict[str, int]
    missing: int
    unasked: int


def score(predictions: dict[str, Prediction], gold: Sequence[Gold]) -> Scores:
    """Every metric of section 9 on all questions, the spatial ones, those answerable from OCR tokens, and both.

    Raises:
        UserError: not one prediction is about a question.
    """
    asked = {one.question_id for one in gold}
    if not asked & predictions.keys():
        raise UserError("no prediction is about one of these questions: compare the question_ids of the two files")
    subsets: dict[str, list[Gold]] = {"all": list(gold), "spatial": [g for g in gold if is_spatial(g.question)]}
    if all(g.tokens is not None for g in gold):
        readable = [g for g in gold if answerable_from_ocr(ten(g.answers), g.tokens or ())]
        subsets["OCR-answerable"] = readable
        subsets["spatial and OCR-answerable"] = [g for g in readable if is_spatial(g.question)]
    by_subset = {
        name: {metric: _mean(rule, chosen, predictions) for metric, rule in METRICS.items()}
        for name, chosen in subsets.items()
    }
    return Scores(
        by_subset,
        {name: len(chosen) for name, chosen in subsets.items()},
        len(asked - predictions.keys()),
        len(predictions.keys() - asked),
    )


def _mean(
    rule: Callable[[str, Sequence[str]], float], chosen: Sequence[Gold], predictions: dict[str, Prediction]
) -> float:
    """Mean over questions, nan of none. A question without prediction is wrong, even where "" would be right."""
    values = (rule(predictions[g.question_id].answer, ten(g.answers)) if g.question_id in predictions else 0.0
              for g in chosen)  # fmt: skip
    return fmean(values) if chosen else float("nan")


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def _number(identifier: str) -> int | str:
    """A whole number where the text is the usual way to write one."""
    return int(identifier) if identifier.isdecimal() and str(int(identifier)) == identifier else identifier
