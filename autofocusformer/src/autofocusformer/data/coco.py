"""COCO's instances by folder: <root>/{train2017,val2017}/*.jpg and annotations/instances_{train2017,val2017}.json.

Polygons and run lengths (plain or packed into a string) become masks here, so that no compiled reader is needed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from matplotlib.path import Path as Outline
from shared.data.root import DamagedData, MissingData

from autofocusformer.data import read


class Annotated(NamedTuple):
    """An RGB image, and of each of its instances the class, the mask, and whether it is a crowd: many in one mask."""

    image: UInt8[np.ndarray, "h w 3"]
    classes: Int64[np.ndarray, " n"]
    masks: Bool[np.ndarray, "n h w"]
    crowds: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class Instances:
    """`read(i)` is an image with its instances."""

    size: int
    read: Callable[[int], Annotated]
    names: tuple[str, ...]
    fingerprint: str
    detail: str
    kind: Literal["real"] = "real"

    @property
    def classes(self) -> int:
        return len(self.names)


def unpack(text: str) -> list[int]:
    """Run lengths from their packed form: 5 bits a character from the lowest, bit 6 says that more follow, two's
    complement, and from the third number on the difference to the number two before."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            piece = ord(text[place]) - 48
            value |= (piece & 31) << shift
            more, shift, place = bool(piece & 32), shift + 5, place + 1
            if not more and piece & 16:
                value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def mask_of(segmentation: Any, h: int, w: int) -> Bool[np.ndarray, "h w"]:
    """The mask of an annotation: a list of polygons, or run lengths down the columns (first those outside).

    Raises:
        ValueError, TypeError, KeyError, IndexError: no such thing, or not of a picture of this size.
    """
    if isinstance(segmentation, list):
        out = np.zeros((h, w), dtype=bool)
        for polygon in segmentation:
            # Corners lie on the pixels' borders: a pixel whose centre is inside belongs to it.
            corners = np.asarray(polygon, dtype=float).reshape(-1, 2)
            x0, y0 = np.floor(corners.min(0)).astype(int).clip(0)
            x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int), (w, h))
            x, y = np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
            inside = Outline(corners).contains_points(np.stack([x.ravel(), y.ravel()], 1))
            out[y0:y1, x0:x1] |= inside.reshape(x.shape)
        return out
    counts = segmentation["counts"]
    runs = unpack(counts) if isinstance(counts, str) else counts
    if min(runs, default=0) < 0 or sum(runs) != h * w:
        raise ValueError(f"its runs have {sum(runs)} pixels, the picture has {h * w}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(w, h).T


def coco(part: Literal["train", "val", "test"], root: Path) -> Instances:
    """The images of a part (test: val).

    For training those that have objects, without the crowds. A test has all of them: what a network finds where nothing
    is counts against it, and what it finds in a crowd neither for nor against it, as in COCO's own AP.

    Raises:
        UserError: missing or damaged files.
    """
    where = "train2017" if part == "train" else "val2017"
    layout = "{train2017,val2017}/*.jpg and annotations/instances_{train2017,val2017}.json"
    folder = read.folder(root / where, "COCO", layout)
    file = root / "annotations" / f"instances_{where}.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in content["images"]}
        categories = sorted(content["categories"], key=lambda c: c["id"])
        by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            if part != "train" or not annotation.get("iscrowd"):
                by_image[annotation["image_id"]].append(annotation)
    except FileNotFoundError:
        raise MissingData(f"{file} is missing: COCO is expected as {layout}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedData(f"{file} is no COCO annotation file ({type(error).__name__}: {error})") from None
    number = {category["id"]: c for c, category in enumerate(categories)}
    for annotation in (one for found in by_image.values() for one in found):
        which = f"{file}: annotation {annotation.get('id')}"
        if annotation.get("category_id") not in number:
            raise DamagedData(f"{which} has category {annotation.get('category_id')}, which the file does not list")
        if "segmentation" not in annotation:
            raise DamagedData(f"{which} has no segmentation: instances need one (boxes alone are of no use here)")
    objects = [i for i in sorted(by_image) if i in images and not all(a.get("iscrowd") for a in by_image[i])]
    order = [images[i] for i in (objects if part == "train" else sorted(images))]
    if not objects:
        raise MissingData(f"{file} has no annotation of any picture (crowds do not count)")

    def one(i: int) -> Annotated:
        image = read.read_image(folder / order[i]["file_name"])
        h, w = image.shape[:2]
        if (h, w) != (order[i]["height"], order[i]["width"]):
            raise DamagedData(f"{folder / order[i]['file_name']} is {w} x {h}, {file.name} says otherwise")
        found = by_image.get(order[i]["id"], [])
        masks = np.zeros((len(found), h, w), dtype=bool)
        for mask, a in zip(masks, found):
            try:
                mask[:] = mask_of(a["segmentation"], h, w)
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise DamagedData(f"{file}: annotation {a.get('id')} has no readable segmentation ({error})") from None
        classes = np.array([number[a["category_id"]] for a in found], dtype=np.int64)
        return Annotated(image, classes, masks, np.array([bool(a.get("iscrowd")) for a in found], dtype=bool))

    names = tuple(category["name"] for category in categories)
    words = f"COCO 2017 instances, {where}: {len(order)} images, {len(objects)} with objects"
    return Instances(len(order), one, names, read.fingerprint([file], root, contents=True), words)
