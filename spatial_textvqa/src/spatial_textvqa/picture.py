"""What is known about one image: its size, the text read in it, the objects found in it, and features if there are any.

Everything that comes from outside (an OCR engine's file, a line of custom data, an upload) becomes a `Picture`; boxes
are checked here, in the units in which the user gave them, so that an error names his file and record.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from shared.errors import UserError

Box = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max in pixels, y down
OnBadBox = Literal["error", "clip"]
SLACK = 0.01  # of width or height that a box may reach over the border (section 3)
MEGAPIXELS = 40  # of the largest image that is opened
SHOWN = 1200  # pixels of the longer side of an image that is drawn
FORMATS = ("PNG", "JPEG")
MOST_DIGITS = 300  # of a whole number that is kept as one: floats end at 1.8e308
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # in json: a surrogate, which is half of a character or of a pair
SHAPE = "expected [x0, y0, x1, y1] in pixels"


@dataclass(frozen=True)
class Word:
    """An OCR token."""

    text: str
    box: Box


@dataclass(frozen=True)
class Thing:
    """A detected object; the label is only for people."""

    box: Box
    label: str = ""


@dataclass(frozen=True)
class Picture:
    """One image as the network knows it.

    Attributes:
        name: for messages.
        width, height: pixels.
        object_features, word_features: (objects, F) and (words, F) float32, or None where there are none.
        notes: what was left out while reading it.
    """

    name: str
    width: float
    height: float
    words: Sequence[Word] = ()
    objects: Sequence[Thing] = ()
    object_features: np.ndarray | None = None
    word_features: np.ndarray | None = None
    notes: Sequence[str] = field(default=())

    @property
    def entities(self) -> list[Word | Thing]:
        """Objects, then tokens: the order of the graph."""
        return [*self.objects, *self.words]

    def boxes(self, entities: Sequence[Word | Thing]) -> np.ndarray:
        """(n, 4) float32, divided by width and height."""
        scale = np.array([self.width, self.height, self.width, self.height])
        rows = np.array([entity.box for entity in entities], dtype=np.float64).reshape(-1, 4)
        return (rows / scale).astype(np.float32)


def checked_size(width: Any, height: Any, where: str) -> tuple[float, float]:
    """The size of an image in pixels.

    Raises:
        UserError: not two positive numbers.
    """
    if all(_is_number(value) and value > 0 for value in (width, height)):
        return float(width), float(height)
    raise UserError(f"{where}: the image size is {_short(width)} x {_short(height)}: expected two positive numbers")


def checked_box(box: Any, width: float, height: float, where: str, on_bad_box: OnBadBox = "error") -> Box | None:
    """A box as four numbers inside the image; None where it is padding, all of its coordinates zero.

    Args:
        box: what the file says.
        width, height: of the image, pixels.
        where: the file and the record, for the message.
        on_bad_box: `clip` orders and clips the corners of a box that lies outside or is turned over.

    Raises:
        UserError: not four numbers; not finite; turned over or outside the image and not to be clipped.
    """
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(_is_number(v, finite=False) for v in box):
        raise UserError(f"{where}: box is {_short(box)}: {SHAPE}")
    if not all(_is_number(v) for v in box):
        raise UserError(f"{where}: box {_short(box)} has a coordinate that is not finite: {SHAPE}")
    x0, y0, x1, y1 = map(float, box)
    if x0 == y0 == x1 == y1 == 0:
        return None
    outside = min(x0 / width, y0 / height) < -SLACK or max(x1 / width, y1 / height) > 1 + SLACK
    if x1 >= x0 and y1 >= y0 and not outside:
        return x0, y0, x1, y1
    if on_bad_box == "error":
        what = f"lies outside the image of {width:g} x {height:g} pixels" if x1 >= x0 and y1 >= y0 else "is turned over"
        raise UserError(f"{where}: box {_short(box)} {what}: {SHAPE}, or clip such boxes with --on_bad_box clip")
    x0, x1 = (min(max(v, 0.0), width) for v in sorted((x0, x1)))
    y0, y1 = (min(max(v, 0.0), height) for v in sorted((y0, y1)))
    return x0, y0, x1, y1


def checked_words(
    rows: Any, width: float, height: float, where: str, on_bad_box: OnBadBox = "error"
) -> tuple[list[Word], list[int]]:
    """OCR tokens of a list of {text, box}; those without a letter or with a padded box are left out.

    Returns:
        The tokens, and which rows they are.

    Raises:
        UserError: no such list; a text that is none; a bad box; every box is padding.
    """
    shape = 'expected a list of {"text": ..., "box": [x0, y0, x1, y1]}'
    words: list[Word] = []
    kept: list[int] = []
    padded = 0
    for i, row in enumerate(_list(rows, where, shape)):
        here = f"{where}, word {i}"
        if not isinstance(row, dict) or not isinstance(row.get("text"), str) or "box" not in row:
            raise UserError(f'{here}: found {_short(row)}: expected {{"text": ..., "box": [x0, y0, x1, y1]}}')
        box = checked_box(row["box"], width, height, f"{here} ({_short(row['text'])})", on_bad_box)
        padded += box is None
        if box is not None and row["text"].strip():
            words.append(Word(row["text"].strip(), box))
            kept.append(i)
    if padded and padded == len(rows):
        raise UserError(f"{where}: all {padded} boxes of words are [0, 0, 0, 0], which is padding: {SHAPE}")
    return words, kept


def checked_objects(
    rows: Any, width: float, height: float, where: str, on_bad_box: OnBadBox = "error"
) -> tuple[list[Thing], list[int]]:
    """Objects of a list of {box, label?}; those with a padded box are left out. As `checked_words`."""
    things: list[Thing] = []
    kept: list[int] = []
    for i, row in enumerate(_list(rows, where, 'expected a list of {"box": [x0, y0, x1, y1], "label": ...}')):
        here = f"{where}, object {i}"
        if not isinstance(row, dict) or "box" not in row or not isinstance(row.get("label", ""), str):
            raise UserError(f'{here}: found {_short(row)}: expected {{"box": [x0, y0, x1, y1], "label": ...}}')
        box = checked_box(row["box"], width, height, here, on_bad_box)
        if box is not None:
            things.append(Thing(box, row.get("label", "")))
            kept.append(i)
    if rows and not things:
        raise UserError(f"{where}: all {len(rows)} boxes of objects are [0, 0, 0, 0], which is padding: {SHAPE}")
    return things, kept


def opened_image(source: Path | Any, name: str) -> Image.Image:
    """A PNG or JPEG whose header was read and nothing else; what it is is read from its bytes, never from its name.

    Raises:
        UserError: no such file, another format, or more than `MEGAPIXELS`.
    """
    try:
        image = Image.open(source, formats=FORMATS)
    except FileNotFoundError:
        raise UserError(f"{name}: no such image") from None
    except Image.DecompressionBombError:
        raise UserError(f"{name}: the image is far larger than {MEGAPIXELS} megapixels: scale it down") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise UserError(f"{name}: not an image of a kind that is read here: give a PNG or JPEG") from None
    pixels = image.width * image.height / 1e6
    if pixels > MEGAPIXELS:
        raise UserError(
            f"{name}: {image.width} x {image.height} are {pixels:.1f} megapixels: at most {MEGAPIXELS} are opened, "
            "scale it and the boxes down"
        )
    return image


def as_data(image: Image.Image, name: str) -> str:
    """An opened image as a data address, made anew (nothing but its pixels is kept) and no larger than it is shown.

    Raises:
        UserError: the pixels cannot be read.
    """
    try:
        image.draft("RGB", (SHOWN, SHOWN))  # a JPEG is scaled down while it is read
        shown = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError):
        raise UserError(f"{name}: the image is damaged: its pixels cannot be read") from None
    shown.thumbnail((SHOWN, SHOWN))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def read_json(path: Path) -> Any:
    """What a json file says.

    Raises:
        UserError: no such file, or no json, and in which line.
    """
    return parsed_json(read_text(path), str(path))


def parsed_json(text: str, name: str) -> Any:
    """What a json text says; a whole number that no float can hold becomes infinite, as 1e999 does.

    Raises:
        UserError: no json, and in which line; a text that is none, and where it stands.
    """
    try:
        content = json.loads(text, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise UserError(f"{name}, line {error.lineno}: not json ({error.msg})") from None
    except RecursionError:
        raise UserError(f"{name}: json nested too deeply") from None
    if HALF.search(text):
        for place, found in _texts(content):
            if not is_unicode(found):
                raise UserError(
                    f"{name}, {place or 'the text'}: {_short(found)} has half of a surrogate pair: expected Unicode"
                )
    return content


def is_unicode(text: str) -> bool:
    """Whether a text can be written: json and pickles can bring halves of surrogate pairs, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)


def _texts(content: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a json value with where it stands, such as `[0].text`."""
    if isinstance(content, str):
        yield place, content
    elif isinstance(content, list):
        for i, value in enumerate(content):
            yield from _texts(value, f"{place}[{i}]")
    elif isinstance(content, dict):
        for key, value in content.items():
            yield f"a key of {place or 'the object'}", key
            yield from _texts(value, f"{place}.{key}".lstrip("."))


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, expected a file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check its permissions") from None


def _list(rows: Any, where: str, shape: str) -> list:
    if not isinstance(rows, list):
        raise UserError(f"{where}: found {_short(rows)}: {shape}")
    return rows


def _is_number(value: Any, finite: bool = True) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return not finite or math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _short(value: Any, most: int = 60) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= most else f"{text[: most - 3]}..."
