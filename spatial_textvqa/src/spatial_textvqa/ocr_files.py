"""What OCR engines write becomes words with boxes: a plain list, a Google-Vision reply, a Tesseract TSV.

No engine is bundled. The three forms are told apart by what the file says, not by its name:

    [{"text": "EXIT", "box": [10, 20, 60, 35]}, ...]                 size from the picture or --size
    {"width": 640, "height": 480, "ocr": [...], "objects": [...]}    the same with the size in it
    {"responses": [{"textAnnotations": [...]}]}                      Google Vision, or one of its responses
    level<TAB>page_num<TAB>...<TAB>conf<TAB>text                     tesseract picture.png out tsv
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from shared.errors import UserError

from spatial_textvqa.picture import (
    OnBadBox,
    Picture,
    checked_objects,
    checked_size,
    checked_words,
    parsed_json,
    read_json,
    read_text,
)

Size = tuple[float, float]
TSV_COLUMNS = ("level", "page_num", "left", "top", "width", "height", "conf", "text")
PAGE, WORD = 1, 5  # levels of Tesseract
SHAPES = (
    'expected a list of {"text": ..., "box": [x0, y0, x1, y1]}, {"width": ..., "height": ..., "ocr": [that list]}, '
    "a Google-Vision reply or a Tesseract TSV"
)


def read_ocr(path: Path, size: Size | None = None, on_bad_box: OnBadBox = "error") -> Picture:
    """The words of an OCR engine's file.

    Args:
        path: of one of the forms above.
        size: width and height in pixels, for a file that does not say them. Where it does, its boxes are in its own.

    Raises:
        UserError: no such file, another shape, no size, a bad box: with the file and the record.
    """
    return parsed_ocr(read_text(path), str(path), size, on_bad_box)


def parsed_ocr(text: str, name: str, size: Size | None = None, on_bad_box: OnBadBox = "error") -> Picture:
    """As `read_ocr`, of the file's text."""
    if text.startswith("level\t"):
        said, rows = _tesseract(text, name)
        objects: Any = []
    else:
        content = parsed_json(text, name)
        said, rows, objects = _by_shape(content, name)
    return checked_picture(said or size or _no_size(name), rows, objects, name, size, on_bad_box)


def checked_picture(
    said: Size, rows: Any, objects: Any, name: str, size: Size | None = None, on_bad_box: OnBadBox = "error"
) -> Picture:
    """A picture of lists of words and objects, whose boxes are those of an image of the size that was said."""
    width, height = checked_size(*said, name)
    words, kept = checked_words(rows, width, height, name, on_bad_box)
    things, _ = checked_objects(objects, width, height, name, on_bad_box)
    notes = []
    if len(kept) < len(rows):
        notes.append(f"{name}: {len(rows) - len(kept)} of {len(rows)} words are blank or padding, and left out")
    if size and (width, height) != tuple(size):
        notes.append(f"{name} speaks of {width:g} x {height:g} pixels, the image has {size[0]:g} x {size[1]:g}: scaled")
    return Picture(name, width, height, words, things, notes=notes)


def read_picture(
    ocr: Path,
    objects: Path | None = None,
    features: Path | None = None,
    size: Size | None = None,
    on_bad_box: OnBadBox = "error",
) -> Picture:
    """Words, objects and features of their files; objects and features may be missing.

    Raises:
        UserError: as `read_ocr`, `read_objects` and `with_features`.
    """
    picture = read_ocr(ocr, size, on_bad_box)
    if objects is not None:
        things = read_objects(objects, (picture.width, picture.height), on_bad_box)
        picture = replace(picture, objects=things)
    return picture if features is None else with_features(picture, features, picture.name)


def read_objects(path: Path, size: Size, on_bad_box: OnBadBox = "error") -> list:
    """The objects of a file: a list of {box, label?}, or an object with that list under `objects`.

    Raises:
        UserError: as `read_ocr`.
    """
    return parsed_objects(read_json(path), str(path), size, on_bad_box)


def parsed_objects(content: Any, name: str, size: Size, on_bad_box: OnBadBox = "error") -> list:
    rows = content.get("objects") if isinstance(content, dict) else content
    return checked_objects(rows, *size, name, on_bad_box)[0]


def _by_shape(content: Any, name: str) -> tuple[Size | None, Any, Any]:
    if isinstance(content, list):
        return None, content, []
    if isinstance(content, dict):
        if "ocr" in content:
            has_size = "width" in content and "height" in content
            return (
                (content["width"], content["height"]) if has_size else None,
                content["ocr"],
                content.get("objects", []),
            )
        if content.keys() & {"responses", "textAnnotations", "fullTextAnnotation", "error"} or not content:
            return *_google(content, name), []
    raise UserError(f"{name}: {SHAPES}")


def _no_size(name: str) -> Size:
    raise UserError(f"{name}: does not say the image's size: give --image, or --size WIDTHxHEIGHT")


def with_features(picture: Picture, file: Path, where: str) -> Picture:
    """The picture with the features of an npz: `object_features` and `ocr_features`, a row for each box.

    Raises:
        UserError: no such file, another shape, values that are not finite.
    """
    found: dict[str, np.ndarray] = {}
    try:
        with np.load(file, allow_pickle=False) as content:
            found = {key: np.asarray(content[key], np.float32) for key in ("object_features", "ocr_features")}
    except FileNotFoundError:
        raise UserError(f"{where}: {file}: no such feature file") from None
    except Exception:  # a damaged archive fails in many ways
        raise UserError(f"{where}: {file}: expected an npz with object_features and ocr_features") from None
    for key, rows in (("object_features", len(picture.objects)), ("ocr_features", len(picture.words))):
        if found[key].ndim != 2 or len(found[key]) != rows or not np.isfinite(found[key]).all():
            raise UserError(
                f"{where}: {file}: {key} is {tuple(found[key].shape)}: expected ({rows}, F) with finite values"
            )
    return replace(picture, object_features=found["object_features"], word_features=found["ocr_features"])


# Google Vision ---------------------------------------------------------------------------------------------------


def _google(reply: dict, name: str) -> tuple[Size | None, list]:
    responses = reply.get("responses", [reply])
    if not isinstance(responses, list) or len(responses) != 1 or not isinstance(responses[0], dict):
        raise UserError(f"{name}: expected a Google-Vision reply about one image, with one entry in `responses`")
    response = responses[0]
    if "error" in response:
        error = response["error"]
        message = error.get("message") if isinstance(error, dict) else error
        raise UserError(f"{name}: Google Vision answered with an error: {message}")
    pages = _entries(_entry(response, "fullTextAnnotation", {}, name), "pages", name)
    size = (pages[0]["width"], pages[0]["height"]) if pages and {"width", "height"} <= pages[0].keys() else None
    annotations = _entries(response, "textAnnotations", name)
    found: Iterable[tuple[Any, Any]] = _words_of_pages(pages, name)
    if annotations:  # the first is the whole text
        found = [(a.get("description"), a.get("boundingPoly")) for a in annotations[1:]]
    return size, [
        {"text": text, "box": _corners(polygon, f"{name}, word {i}", size)} for i, (text, polygon) in enumerate(found)
    ]


def _words_of_pages(pages: list[dict], name: str) -> Iterator[tuple[str, Any]]:
    for page in pages:
        for block in _entries(page, "blocks", name):
            for paragraph in _entries(block, "paragraphs", name):
                for word in _entries(paragraph, "words", name):
                    symbols = _entries(word, "symbols", name)
                    yield "".join(str(symbol.get("text", "")) for symbol in symbols), word.get("boundingBox")


def _corners(polygon: Any, where: str, size: Size | None) -> list[float]:
    """The upright box round a polygon; coordinates that are zero are left out by Google."""
    polygon = polygon if isinstance(polygon, dict) else {}
    normalised = polygon.get("normalizedVertices")
    vertices, scale = polygon.get("vertices"), (1.0, 1.0)
    if not vertices and normalised and size:
        vertices, scale = normalised, size
    try:
        xs = [vertex.get("x", 0) * scale[0] for vertex in vertices]
        ys = [vertex.get("y", 0) * scale[1] for vertex in vertices]
        return [min(xs), min(ys), max(xs), max(ys)]
    except (TypeError, AttributeError, ValueError, OverflowError):
        raise UserError(f"{where}: expected a boundingPoly with vertices of numbers x and y") from None


def _entry(content: dict, key: str, default: Any, name: str) -> Any:
    value = content.get(key, default)
    if not isinstance(value, type(default)):
        raise UserError(f"{name}: `{key}` is not what a Google-Vision reply has there")
    return value


def _entries(content: dict, key: str, name: str) -> list[dict]:
    values = _entry(content, key, [], name)
    if not all(isinstance(value, dict) for value in values):
        raise UserError(f"{name}: `{key}` is not what a Google-Vision reply has there")
    return values


# Tesseract -------------------------------------------------------------------------------------------------------


def _tesseract(text: str, name: str) -> tuple[Size | None, list]:
    lines = text.splitlines()
    columns = lines[0].split("\t")
    if missing := [column for column in TSV_COLUMNS if column not in columns]:
        raise UserError(f"{name}, line 1: a Tesseract TSV without the column {missing[0]}")
    size: Size | None = None
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        # No quoting: a token may be a quotation mark. A blank text at the end may have lost its tab.
        fields = line.split("\t", len(columns) - 1)
        row = dict(zip(columns, [*fields, ""] if len(fields) == len(columns) - 1 else fields))
        try:
            level, page, left, top, width, height = (
                int(row[key]) for key in ("level", "page_num", "left", "top", "width", "height")
            )
        except (KeyError, ValueError):
            raise UserError(f"{name}, line {number}: expected {len(columns)} fields as in the first line") from None
        if page != 1:
            raise UserError(f"{name}, line {number}: a second page: one image at a time, split the file by page_num")
        if level == PAGE:
            size = (width, height)
        elif level == WORD:
            rows.append({"text": row["text"], "box": [left, top, left + width, top + height]})
    return size, rows
