"""Real receipts in the layout of ICDAR 2019 SROIE (section 7.2): text lines with boxes, and four fields of each.

    box/000.csv     x1,y1,x2,y2,x3,y3,x4,y4,text        one text line a row; the text may hold commas
    key/000.json    {"company": ..., "date": ..., "address": ..., "total": ...}

A text line becomes its words, which share its box by their number of characters. Questions ask for a field, or for the
text beside a label that stands alone on the receipt ("what is to the right of total").
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from shared.data.root import DamagedData, MissingData, unreadable
from shared.errors import UserError

from spatial_textvqa.answers import clean
from spatial_textvqa.data.sample import Sample

log = logging.getLogger(__name__)

FIELDS = {
    "company": "what is the name of the company",
    "date": "what is the date",
    "address": "what is the address",
    "total": "what is the total to pay",
}
BESIDE = {
    "right": "what is to the right of {}",
    "left": "what is to the left of {}",
    "below": "what is below {}",
    "above": "what is above {}",
}
LABELS = (
    "amount", "cash", "cashier", "change", "date", "description", "discount", "fax", "gst id", "gst", "gst summary",
    "invoice no", "item", "price", "qty", "rounding", "salesperson", "subtotal", "tax", "tax invoice", "tel", "time",
    "total", "total gst", "total qty",
)  # fmt: skip
KINDS = (*FIELDS, *BESIDE)
_TEXTS = " ".join([*FIELDS.values(), *BESIDE.values(), *LABELS]).replace("{}", "")
QUESTION_WORDS = ("<pad>", "<unk>", *dict.fromkeys(_TEXTS.split()))
NEAR = 0.6  # farthest neighbour, as a part of the receipt's width or height
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Line:
    """A text line in pixels."""

    text: str
    box: Box


def read_lines(file: Path) -> list[Line]:
    """The text lines of a receipt, in the file's order; blank ones are left out.

    Raises:
        UserError: the file and the line that is not eight numbers and a text.
    """
    try:
        content = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise unreadable(file, error) from None
    except UnicodeDecodeError:
        raise DamagedData(f"{file}: expected UTF-8 text") from None
    out = []
    for number, row in enumerate(content.splitlines(), 1):
        if not row.strip():
            continue
        parts = row.split(",", 8)
        try:
            corners = np.array([float(part) for part in parts[:8]]).reshape(4, 2)
        except ValueError:
            corners = np.full((4, 2), np.nan)
        if len(parts) < 9 or not np.isfinite(corners).all():
            raise DamagedData(f"{file}, line {number}: expected eight corner numbers and a text, found {row[:60]!r}")
        if parts[8].strip():
            low, high = corners.min(0), corners.max(0)
            out.append(Line(parts[8].strip(), (low[0], low[1], high[0], high[1])))
    return out


def read_fields(file: Path) -> dict[str, str]:
    """The fields that a receipt's annotators found; a field may be missing.

    Raises:
        UserError: not JSON, or not texts by name.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(file, error) from None
    except ValueError:  # JSON's and UTF-8's errors are both
        raise DamagedData(f"{file}: expected JSON with {', '.join(FIELDS)}") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise DamagedData(f"{file}: expected texts by the names {', '.join(FIELDS)}")
    return {name: found[name].strip() for name in FIELDS if found.get(name, "").strip()}


def words_of(line: Line) -> list[tuple[str, Box]]:
    """The words of a line; each has the part of the box that its characters have of the text."""
    x0, y0, x1, y1 = line.box
    out = []
    for found in re.finditer(r"\S+", line.text):
        start, end = (x0 + (x1 - x0) * place / len(line.text) for place in found.span())
        out.append((found[0], (start, y0, end, y1)))
    return out


def samples_of(name: str, lines: Sequence[Line], fields: dict[str, str], max_ocr: int) -> tuple[list[Sample], int]:
    """The questions about one receipt, and how many of its lines had no room.

    The image's size is that of what is on it: the largest coordinates.
    """
    kept: list[Line] = []
    words: list[tuple[str, Box]] = []
    owner: list[int] = []
    for line in lines:
        more = words_of(line)
        if len(words) + len(more) <= max_ocr:
            owner += [len(kept)] * len(more)
            kept.append(line)
            words += more
    width, height = (max((line.box[side] for line in lines), default=1.0) for side in (2, 3))
    scale = np.array([width, height, width, height])
    boxes = (np.array([box for _, box in words]).reshape(-1, 4) / scale).astype(np.float32)
    tokens = [word for word, _ in words]

    def sample(kind: str, question: str, answer: str, target_ocr: tuple[int, ...] = ()) -> Sample:
        number = len(out)
        size = (max(1, round(width)), max(1, round(height)))
        return Sample(
            f"{name}_{number}", name, question, [answer] * 10, tokens, boxes, kind=kind, target_ocr=target_ocr,
            image_size=size,
        )  # fmt: skip

    out: list[Sample] = []
    for field, answer in fields.items():
        out.append(sample(field, FIELDS[field], answer, _places(answer, tokens)))
    places = np.array([line.box for line in kept]).reshape(-1, 4) / scale
    for label, anchor in _alone(kept).items():
        for relation, template in BESIDE.items():
            target = beside(places, anchor, relation)
            if target is not None:
                slots = tuple(slot for slot, line in enumerate(owner) if line == target)
                out.append(sample(relation, template.format(label), kept[target].text, slots))
    return out, len(lines) - len(kept)


def _places(answer: str, tokens: Sequence[str]) -> tuple[int, ...]:
    """The first run of tokens that spells the answer."""
    wanted, spelt = clean(answer).split(), [clean(token) for token in tokens]
    for start in range(len(spelt) - len(wanted) + 1):
        if wanted and spelt[start : start + len(wanted)] == wanted:
            return tuple(range(start, start + len(wanted)))
    return ()


def _alone(lines: Sequence[Line]) -> dict[str, int]:
    """Labels that are the whole text of exactly one line, with that line."""
    found: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        text = " ".join(re.sub(r"[^a-z ]", " ", line.text.lower()).split())
        if text in LABELS:
            found.setdefault(text, []).append(number)
    return {label: numbers[0] for label, numbers in found.items() if len(numbers) == 1}


def beside(boxes: Float64[np.ndarray, "n 4"], anchor: int, relation: str) -> int | None:
    """The nearest line on that side which shares half the smaller extent across; None where there is none.

    Args:
        boxes: of all lines, over the image's width and height.
    """
    along, across = (0, 1) if relation in ("left", "right") else (1, 0)
    low, high = boxes[:, :2], boxes[:, 2:]
    shared = np.minimum(high[:, across], high[anchor, across]) - np.maximum(low[:, across], low[anchor, across])
    extent = high[:, across] - low[:, across]
    smaller = np.minimum(extent, extent[anchor])
    if relation in ("right", "below"):
        distance = low[:, along] - high[anchor, along]
    else:
        distance = low[anchor, along] - high[:, along]
    middle = (low + high)[:, along] / 2 - (low + high)[anchor, along] / 2
    beyond = middle > 0 if relation in ("right", "below") else middle < 0
    fits = beyond & (shared >= 0.5 * smaller) & (distance < NEAR) & (np.arange(len(boxes)) != anchor)
    return int(np.where(fits, distance, np.inf).argmin()) if fits.any() else None


def part_of(number: int) -> str:
    """Every fifth receipt is tested on, every tenth validated on."""
    return "test" if number % 5 == 4 else "val" if number % 10 == 3 else "train"


def names(folder: Path) -> list[str]:
    """The receipts that have boxes and fields.

    Raises:
        UserError: no such folder, or no receipt in it.
    """
    if not (folder / "box").is_dir() or not (folder / "key").is_dir():
        raise MissingData(f"{folder} has no box/ and key/: put ICDAR 2019 SROIE's there, or set DATA_ROOT or data.root")
    found = sorted(f.stem for f in (folder / "box").glob("*.csv") if (folder / "key" / f"{f.stem}.json").is_file())
    if not found:
        raise MissingData(f"{folder}: no receipt has both box/NAME.csv and key/NAME.json")
    return found


def read(folder: Path, part: str, max_ocr: int = 50) -> list[Sample]:
    """The questions of a part (`train`, `val` or `test`) of the receipts; a receipt is in one part only.

    Raises:
        UserError: data that are missing or damaged.
    """
    out: list[Sample] = []
    cut = 0
    for number, name in enumerate(names(folder)):
        if part_of(number) == part:
            lines = read_lines(folder / "box" / f"{name}.csv")
            found, lost = samples_of(name, lines, read_fields(folder / "key" / f"{name}.json"), max_ocr)
            out += found
            cut += lost
    if cut:
        log.warning("receipts, %s: %d text lines had no room in max_ocr = %d words and were cut", part, cut, max_ocr)
    if not out:
        raise UserError(f"{folder}: no question for the {part} part")
    return out


def fingerprint(folder: Path) -> str:
    """Hash of all boxes and fields."""
    digest = hashlib.sha256()
    for name in names(folder):
        for file in (folder / "box" / f"{name}.csv", folder / "key" / f"{name}.json"):
            content = file.read_bytes()
            digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
