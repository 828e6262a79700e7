"""One's own data: a json-lines file with one question a line, its reader, validator, converter and statistics.

    {"question_id": "q1", "image_id": "street1", "question": "what is left of the door?", "answers": ["exit"],
     "width": 640, "height": 480, "ocr": [{"text": "EXIT", "box": [10, 20, 60, 35]}],
     "objects": [{"box": [100, 0, 300, 400], "label": "door"}], "features": "street1.npz"}

Boxes are pixels, x to the right, y down. `answers` (up to ten, from different people), `objects` and `features` may be
missing. `features` is a file in the data file's folder, or below it, with `object_features` (objects, F) and
`ocr_features` (words, F), rows as in the lists. Questions about one image repeat its words and objects.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor

from spatial_textvqa.answers import answerable_from_ocr
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.metrics import is_spatial
from spatial_textvqa.ocr_files import checked_picture, read_picture, with_features
from spatial_textvqa.picture import OnBadBox, Picture, Thing, Word, is_unicode, opened_image, parsed_json, read_text
from spatial_textvqa.spatial_graph import mean_degree, pairs_that_differ, relations

log = logging.getLogger(__name__)

KEYS = {"question_id", "image_id", "question", "answers", "width", "height", "ocr", "objects", "features"}
MOST_CHARACTERS = 1000  # of a question
MOST_WORDS = 20  # that the published network reads of one
MOST_OCR, MOST_OBJECTS = 50, 100


@dataclass(frozen=True)
class Question:
    """A line of a data file; `answers` is empty where nobody has answered."""

    question_id: str
    image_id: str
    question: str
    answers: tuple[str, ...]
    picture: Picture


@dataclass(frozen=True)
class Checked:
    """What the validator found: the questions that are right, and a message for each line that is not."""

    questions: list[Question]
    wrong: list[str]


def read_questions(path: Path, on_bad_box: OnBadBox = "error") -> list[Question]:
    """The questions of a data file.

    Raises:
        UserError: no such file, or its first line that is wrong: the line, the question and what was expected.
    """
    checked = validate(path, on_bad_box)
    if checked.wrong:
        raise UserError(checked.wrong[0])
    return checked.questions


def validate(path: Path, on_bad_box: OnBadBox = "error") -> Checked:
    """Looks at every line, so that all that is wrong is seen at once.

    Raises:
        UserError: no such file, or not a line in it.
    """
    questions: list[Question] = []
    wrong: list[str] = []
    seen: dict[str, int] = {}
    images: dict[str, tuple[int, Any]] = {}
    for number, text in lines(path):
        try:
            question = _question(parsed_json(text, f"{path}, line {number}"), path, number, on_bad_box)
            _once(question.question_id, seen, number, path)
            known = (question.picture.words, question.picture.objects, question.picture.width, question.picture.height)
            first, before = images.setdefault(question.image_id, (number, known))
            if before != known:
                raise UserError(
                    f"{path}, line {number} (question {question.question_id}): image {question.image_id!r} has other "
                    f"words, objects or another size in line {first}: one image has one graph"
                )
        except UserError as error:
            wrong.append(str(error).replace(f"line {number}, line 1", f"line {number}"))
        else:
            questions.append(question)
    return Checked(questions, wrong)


def _once(question_id: str, seen: dict[str, int], number: int, path: Path) -> None:
    first = seen.setdefault(question_id, number)
    if first != number:
        raise UserError(f"{path}, line {number}: question_id {question_id!r} is that of line {first}")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    found = [(i, line) for i, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    if not found:
        raise UserError(f"{path}: empty, expected json-lines with one question a line")
    yield from found


def _question(row: Any, path: Path, number: int, on_bad_box: OnBadBox) -> Question:
    where = f"{path}, line {number}"
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with {', '.join(sorted(KEYS))}")
    identifier = _identifier(row, "question_id", where)
    where = f"{where} (question {identifier})"
    if unknown := sorted(row.keys() - KEYS):
        raise UserError(f"{where}: unknown key {unknown[0]!r}: the keys are {', '.join(sorted(KEYS))}")
    if missing := sorted({"question", "width", "height", "ocr"} - row.keys()):
        raise UserError(f"{where}: {missing[0]!r} is missing")
    text = checked_question(row["question"], where)
    answers = row.get("answers", [])
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f"{where}: `answers` has to be a list of texts")
    picture = checked_picture(
        (row["width"], row["height"]), row["ocr"], row.get("objects", []), where, on_bad_box=on_bad_box
    )
    if "features" in row:
        picture = _with_features(picture, row, path, where)
    return Question(identifier, _identifier(row, "image_id", where), text, tuple(answers), picture)


def checked_question(question: Any, where: str) -> str:
    """The text of a question.

    Raises:
        UserError: no text, a blank one, or one that is far too long.
    """
    if not isinstance(question, str) or not question.strip():
        raise UserError(f"{where}: the question is {question!r}: expected a text that is not blank")
    if not is_unicode(question):
        raise UserError(f"{where}: the question {question[:60]!r} has half of a surrogate pair: expected Unicode")
    if len(question) > MOST_CHARACTERS:
        raise UserError(f"{where}: the question has {len(question)} characters, at most {MOST_CHARACTERS} are taken")
    return question.strip()


def ten(answers: Sequence[str]) -> list[str]:
    """Answers of fewer than ten people, said again until they are ten: the soft score is made for that many."""
    return list(islice(cycle(answers), max(10, len(answers)))) if answers else []


def _identifier(row: dict, key: str, where: str) -> str:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise UserError(f"{where}: {key} is {value!r}: expected a text or a whole number")
    return str(value)


def inside(folder: Path, name: Any, where: str) -> Path:
    """A file below a folder, by a name that came from a file.

    Raises:
        UserError: the name leads out of the folder.
    """
    if not isinstance(name, str) or "\0" in name or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{where}: {name!r} leads out of {folder}: name a file in it")
    return folder / name


def _with_features(picture: Picture, row: dict, path: Path, where: str) -> Picture:
    file = inside(path.parent, row["features"], where)
    if len(picture.words) < len(row["ocr"]) or len(picture.objects) < len(row.get("objects", [])):
        raise UserError(f"{where}: blank or padded rows beside `features`: take them out of the lists and the file")
    return with_features(picture, file, where)


def sample_of(question: Question) -> Sample:
    """A question as the data modules give theirs, boxes over width and height."""
    picture = question.picture
    return Sample(
        sample_id=question.question_id,
        image_id=question.image_id,
        question=question.question,
        answers=ten(question.answers),
        ocr_tokens=[word.text for word in picture.words],
        ocr_boxes=picture.boxes(picture.words),
        obj_boxes=picture.boxes(picture.objects),
        obj_features=picture.object_features,
        ocr_features=picture.word_features,
        obj_names=[thing.label for thing in picture.objects],
        image_size=(round(picture.width), round(picture.height)),
    )


def picture_of(sample: Sample) -> Picture:
    """The picture of a sample of any data module, boxes in pixels."""
    width, height = sample.image_size
    scale = np.array([width, height, width, height])
    names = [*sample.obj_names, *[""] * len(sample.obj_boxes)]
    words = [Word(text, tuple(box)) for text, box in zip(sample.ocr_tokens, (sample.ocr_boxes * scale).tolist())]
    things = [Thing(tuple(box), name) for box, name in zip((sample.obj_boxes * scale).tolist(), names)]
    return Picture(sample.image_id, width, height, words, things, sample.obj_features, sample.ocr_features)


# Converter -------------------------------------------------------------------------------------------------------


def convert(
    questions: Path,
    ocr: Path,
    out: Path,
    objects: Path | None = None,
    images: Path | None = None,
    on_bad_box: OnBadBox = "error",
) -> int:
    """Writes a data file from questions and what an OCR engine wrote about their images.

    Args:
        questions: json-lines with image_id, question and, if known, question_id and answers.
        ocr: folder with `<image_id>.json` or `<image_id>.tsv`, of any form of `ocr_files`.
        out: the data file.
        objects: folder with `<image_id>.json`, boxes of objects.
        images: folder with `<image_id>.png`, `.jpg` or `.jpeg`, for OCR files that do not say the size.

    Returns:
        How many questions it wrote; what was left out of an OCR file is logged once.

    Raises:
        UserError: a line, an OCR file or an image that is wrong or missing; nothing is written then.
    """
    pictures: dict[str, Picture] = {}
    seen: dict[str, int] = {}
    written = []
    for number, text in lines(questions):
        where = f"{questions}, line {number}"
        row = parsed_json(text, where)
        if not isinstance(row, dict):
            raise UserError(
                f"{where}: expected an object with image_id, question and, if known, question_id and answers"
            )
        image = _identifier(row, "image_id", where)
        if image not in pictures:
            pictures[image] = _converted(image, where, ocr, objects, images, on_bad_box)
            for note in pictures[image].notes:
                log.warning("%s", note)
        picture = pictures[image]
        made = {
            "question_id": _identifier({"question_id": str(number)} | row, "question_id", where),
            "image_id": image,
            "question": row.get("question"),
            "answers": row.get("answers", []),
            "width": picture.width,
            "height": picture.height,
            "ocr": [{"text": word.text, "box": word.box} for word in picture.words],
            "objects": [{"box": thing.box, "label": thing.label} for thing in picture.objects],
        }
        made["question"] = _question(made, questions, number, on_bad_box).question
        _once(made["question_id"], seen, number, questions)
        written.append(made)
    partial = out.with_name(f"{out.name}.part")
    partial.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in written), encoding="utf-8")
    partial.replace(out)
    return len(written)


def _converted(
    image: str, where: str, ocr: Path, objects: Path | None, images: Path | None, on_bad_box: OnBadBox
) -> Picture:
    size = None
    file = _first(images, image, ("png", "jpg", "jpeg"), where)
    if file is not None:
        with opened_image(file, str(file)) as opened:
            size = (float(opened.width), float(opened.height))
    words = _first(ocr, image, ("json", "tsv"), where)
    if words is None:
        raise UserError(f"{where}: neither {image}.json nor {image}.tsv lies in {ocr}")
    return read_picture(words, _first(objects, image, ("json",), where), None, size, on_bad_box)


def _first(folder: Path | None, name: str, kinds: Sequence[str], where: str) -> Path | None:
    if folder is None:
        return None
    return next((file for kind in kinds if (file := inside(folder, f"{name}.{kind}", where)).is_file()), None)


# Statistics ------------------------------------------------------------------------------------------------------


def statistics(questions: Sequence[Question]) -> dict[str, float | int]:
    """Counts and shares of a data file's questions; shares are fractions, those of answers over answered questions.

    `spatial` and `OCR-answerable` are the subsets of section 9. `mean degree` is that of the images' graphs, edges of
    an entity to others; `mean degree of all` is what a graph of every pair would have. `pairs that differ` have one
    label in the official and another in the clean mode of the graph.
    """
    pictures = {question.image_id: question.picture for question in questions}
    answered = [q for q in questions if q.answers]
    by_ocr = [answerable_from_ocr(ten(q.answers), [w.text for w in q.picture.words]) for q in answered]
    entities = [len(p.words) + len(p.objects) for p in pictures.values()]
    return {
        "questions": len(questions),
        "images": len(pictures),
        "answered": len(answered),
        "spatial": fmean(is_spatial(q.question) for q in questions) if questions else 0.0,
        "OCR-answerable": fmean(by_ocr) if by_ocr else float("nan"),
        f"questions over {MOST_WORDS} words": sum(len(q.question.split()) > MOST_WORDS for q in questions),
        "images without text": sum(not p.words for p in pictures.values()),
        "images without objects": sum(not p.objects for p in pictures.values()),
        "words an image, median": median(len(p.words) for p in pictures.values()) if pictures else 0,
        f"words over {MOST_OCR} an image": sum(max(0, len(p.words) - MOST_OCR) for p in pictures.values()),
        f"objects over {MOST_OBJECTS} an image": sum(max(0, len(p.objects) - MOST_OBJECTS) for p in pictures.values()),
        "mean degree": fmean(map(degree, pictures.values())) if pictures else 0.0,
        "mean degree of all": fmean(max(0, n - 1) for n in entities) if pictures else 0.0,
        "pairs that differ between the modes, an image": (
            fmean(pairs_that_differ(boxes_of(p)) for p in pictures.values()) if pictures else 0.0
        ),
    }


def boxes_of(picture: Picture) -> Float[Tensor, "n 4"]:
    """Boxes of the entities that a graph of the published size has room for."""
    entities: list[Word | Thing] = [*picture.objects[:MOST_OBJECTS], *picture.words[:MOST_OCR]]
    return torch.from_numpy(picture.boxes(entities)).reshape(-1, 4)


def degree(picture: Picture) -> float:
    """Edges of the spatial graph per entity of a picture, 0 of one without entities."""
    return mean_degree(relations(boxes_of(picture)))


def is_question_only(path: Path) -> bool:
    """Whether the first line of a data file has a `text`, and no words with boxes."""
    number, line = next(iter(lines(path)))
    row = parsed_json(line, f"{path}, line {number}")
    return isinstance(row, dict) and "text" in row and "ocr" not in row


def question_only_statistics(path: Path) -> dict[str, float | int]:
    """The same of a file that has questions but no boxes: lines of {question_id, text}.

    The text's first line is the question; what follows the colon of its second line are OCR tokens, by commas.

    Raises:
        UserError: a line without them.
    """
    spatial, tokens = [], []
    identifiers: Counter[str] = Counter()
    for number, line in lines(path):
        where = f"{path}, line {number}"
        row = parsed_json(line, where)
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f"{where}: expected an object with question_id and text")
        identifiers[_identifier(row, "question_id", where)] += 1
        said = row["text"].split("\n")
        spatial.append(is_spatial(said[0]))
        listed = said[1].partition(":")[2] if len(said) > 1 else ""
        tokens.append(sum(bool(token.strip()) for token in listed.split(",")))
    return {
        "questions": len(spatial),
        "questions of an id that comes again": len(spatial) - len(identifiers),
        "spatial questions": sum(spatial),
        "spatial": fmean(spatial),
        "words an image, median": median(tokens),
        "questions without text": sum(not n for n in tokens),
    }
