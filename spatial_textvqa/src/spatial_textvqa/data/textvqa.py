"""TextVQA and ST-VQA as users have them (section 7.3), one question at a time: only questions stay in memory.

    FOLDER/imdb/*train*.npy, *val*.npy, *test*.npy      records, the first a header; or .json
    FOLDER/features/obj/<image>.npz, ocr/<image>.npz    detector features of objects, OCR boxes; or obj.lmdb, ocr.lmdb

Images without text, more tokens than features, and questions without answers (test) are all handled; of what does not
fit together a sample says so (`mismatch`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from shared.data.root import DamagedData, MissingData
from torch.utils.data import Dataset

from spatial_textvqa.data.features import features_in, read_object_array
from spatial_textvqa.data.sample import Sample
from spatial_textvqa.picture import is_unicode

TOKENS = "google_ocr_tokens_filtered"


def imdb_file(folder: Path, part: str) -> Path:
    """The one file of questions of a part.

    Raises:
        UserError: none, or several.
    """
    found = [f for kind in ("npy", "json") for f in sorted((folder / "imdb").glob(f"*{part}*.{kind}"))]
    if not found:
        raise MissingData(f"{folder / 'imdb'} has no *{part}*.npy or .json: put the data set's imdb files there")
    if len(found) > 1:
        raise DamagedData(
            f"{folder / 'imdb'} has {len(found)} files for {part}, such as {found[0].name}: keep one of them"
        )
    return found[0]


def read_imdb(file: Path, answered: bool = True) -> list[dict[str, Any]]:
    """The questions of an imdb, each checked; an `.npy` begins with a header, which is skipped.

    Args:
        answered: every question has to have answers; those of a test part need none.

    Raises:
        UserError: the file and the record that is wrong, and what was expected.
    """
    if file.suffix == ".npy":
        rows = read_object_array(file)[1:]
        first = 1
    else:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise MissingData(f"{file} is missing") from None
        except OSError as error:
            raise DamagedData(f"{file}: {error.strerror}: expected a JSON file of questions") from None
        except (ValueError, RecursionError):
            raise DamagedData(f"{file}: expected JSON, a list of questions or {{'data': [...]}}") from None
        listed = found.get("data") if isinstance(found, dict) else found
        first = 0
        if not isinstance(listed, list):
            raise DamagedData(f"{file}: expected a list of questions or {{'data': [...]}}")
        rows = listed
        if rows and isinstance(rows[0], dict) and "question" not in rows[0] and "image_id" not in rows[0]:
            rows, first = rows[1:], 1  # a header, as in an .npy
    return [_question(row, f"{file}, record {number}", answered) for number, row in enumerate(rows, first)]


def _question(row: Any, where: str, answered: bool) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise DamagedData(f"{where}: expected a mapping with question, question_id, image_id ...")
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise DamagedData(f"{where}: question is {question!r}, expected a text")
    image = row.get("image_id", row.get("image_path"))
    if image is None or str(image) == "":
        raise DamagedData(f"{where}: neither image_id nor image_path")
    image = str(image)
    for ending in (".jpg", ".jpeg", ".png"):
        image = image.removesuffix(ending)
    if TOKENS not in row:
        raise DamagedData(f"{where}: {TOKENS} is missing: expected the list of OCR tokens, [] where there is no text")
    tokens, answers = row[TOKENS], row.get("answers", [])
    for name, value in ((TOKENS, tokens), ("answers", answers)):
        value = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
            raise DamagedData(f"{where}: {name} has to be a list of texts")
    if answered and not len(answers):
        raise DamagedData(f"{where}: answers are missing: expected a list of at least one text")
    for text in (question, image, *tokens, *answers):
        if not is_unicode(text):
            raise DamagedData(f"{where}: {text[:60]!r} has half of a surrogate pair: expected Unicode")
    return {
        "question_id": str(row.get("question_id", where.rpartition(" ")[2])),
        "image_id": image,
        "question": question,
        "answers": [str(text) for text in answers],
        "tokens": [str(text) for text in tokens],
    }


def ten(answers: list[str]) -> list[str]:
    """ST-VQA has one to three answers; the soft score is made for ten."""
    return list(islice(cycle(answers), 10)) if 0 < len(answers) < 10 else list(answers)


class QuestionsOnDisk(Dataset):
    """The questions of a part, with features read when they are asked for.

    Args:
        folder: of the data set.
        name: `textvqa` or `stvqa`.
        part: `train`, `val` or `test`.
        most: of the questions, from the first on (None: all).

    Raises:
        UserError: missing or damaged files; the line names file and record.
    """

    def __init__(self, folder: Path, name: str, part: str, most: int | None = None) -> None:
        self.name, self.part = name, part
        self.rows = read_imdb(imdb_file(folder, part), part != "test")[:most]
        if not self.rows:
            raise DamagedData(f"{imdb_file(folder, part)}: holds no question")
        self.objects, self.ocr = (features_in(folder / "features" / kind) for kind in ("obj", "ocr"))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Sample:
        row = self.rows[number]
        objects = self.objects(row["image_id"])
        tokens = row["tokens"]
        sample = Sample(
            sample_id=row["question_id"],
            image_id=f"{self.name}/{row['image_id']}",
            question=row["question"],
            answers=ten(row["answers"]),
            obj_boxes=objects.boxes,
            obj_features=objects.features,
            image_size=objects.size,
        )
        if tokens:
            found = self.ocr(row["image_id"])
            if len(found.boxes) != len(tokens):
                sample.mismatch = "fewer" if len(found.boxes) < len(tokens) else "more"
            # A token without a box has no place in the graph; a box without a token says nothing.
            count = min(len(found.boxes), len(tokens))
            sample.ocr_tokens = tokens[:count]
            sample.ocr_boxes, sample.ocr_features = found.boxes[:count], found.features[:count]
        return sample


def fingerprint(folder: Path, name: str) -> str:
    """Hash of the questions and of which features there are (not of gigabytes of their contents)."""
    digest = hashlib.sha256(name.encode())
    for part in ("train", "val", "test"):
        digest.update(imdb_file(folder, part).read_bytes())
    for file in sorted((folder / "features").rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0".encode())
    return digest.hexdigest()
