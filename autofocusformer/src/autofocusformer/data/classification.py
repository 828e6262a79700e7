"""Images with one class each: scikit-learn's digits on a larger canvas (embedded), and ImageNet by folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from shared.data.root import MissingData, data_root
from shared.errors import UserError

from autofocusformer.data import read

CANVAS = 64


@dataclass(frozen=True)
class ClassImages:
    """A part of a data set: `read(i)` is (RGB image, class)."""

    name: str
    size: int
    read: Callable[[int], tuple[UInt8[np.ndarray, "h w 3"], int]]
    names: tuple[str, ...]
    kind: Literal["real", "embedded"]
    fingerprint: str
    detail: str

    @property
    def classes(self) -> int:
        return len(self.names)


def load(name: str, part: Literal["train", "val", "test"], root: Path | None = None, seed: int = 0) -> ClassImages:
    """A part of `digits_canvas` or `imagenet` (whose test part is its val).

    Raises:
        UserError: unknown name; missing files or packages.
    """
    if name == "digits_canvas":
        return digits_canvas(part, seed)
    if name == "imagenet":
        return imagenet(part, (data_root() if root is None else Path(root).expanduser()).absolute())
    raise UserError(f"unknown data set {name!r}: there are digits_canvas, imagenet")


def place_digit(digit: Float[np.ndarray, "8 8"], draw: np.random.Generator) -> UInt8[np.ndarray, "64 64 3"]:
    """A digit (values 0..16) of 16 to 48 pixels at a random place of a dark 64 x 64 canvas."""
    from PIL import Image

    side = int(draw.integers(16, 49))
    x, y = draw.integers(0, CANVAS - side + 1, 2)
    small = Image.fromarray((digit * 255 / 16).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    canvas[y : y + side, x : x + side] = np.asarray(small)
    return np.repeat(canvas[..., None], 3, -1)


def digits_canvas(part: Literal["train", "val", "test"], seed: int = 0) -> ClassImages:
    """1297, 250 and 250 of the 1797 digits, each at one place and scale that follow from its number and `seed`.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("digits_canvas needs scikit-learn: pip install scikit-learn") from None
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    rows = {"train": order[:1297], "val": order[1297:1547], "test": order[1547:]}[part]

    def one(i: int) -> tuple[np.ndarray, int]:
        row = int(rows[i])
        return place_digit(found.images[row], np.random.default_rng([seed, row])), int(found.target[row])

    digest = hashlib.sha256(found.images[rows].tobytes() + bytes([seed % 256])).hexdigest()
    names = tuple(str(c) for c in range(10))
    words = "scikit-learn's 8 x 8 digits at random places and scales of 64 x 64 pixels"
    return ClassImages("digits_canvas", len(rows), one, names, "embedded", digest, words)


def imagenet(part: Literal["train", "val", "test"], root: Path) -> ClassImages:
    """ImageNet-1K as <root>/{train,val}/<class>/*.JPEG; classes are numbered in the order of the train folders' names.

    Raises:
        UserError: missing files; a class that only one of train and val has.
    """
    where = "train" if part == "train" else "val"
    layout = "{train,val}/<class>/*.JPEG"
    base, training = (read.folder(root / one, "ImageNet", layout) for one in (where, "train"))
    names, there = (tuple(sorted(p.name for p in one.iterdir() if p.is_dir())) for one in (training, base))
    if other := sorted(set(names) ^ set(there)):
        lacks = base if other[0] in names else training
        raise UserError(f"{lacks} has no folder {other[0]} ({len(other)} classes differ): train and val need the same")
    files = [(path, c) for c, name in enumerate(names) for path in sorted((base / name).iterdir())
             if path.suffix.lower() in read.PICTURES]  # fmt: skip
    if not files:
        raise MissingData(f"{base} holds no <class>/*.JPEG: ImageNet is expected as {{train,val}}/<class>/*.JPEG")
    digest = read.fingerprint([path for path, _ in files], root, contents=False)
    words = f"ImageNet by folder, {where}: {len(files)} images of {len(names)} classes"
    return ClassImages(
        "imagenet", len(files), lambda i: (read.read_image(files[i][0]), files[i][1]), names, "real", digest, words
    )
