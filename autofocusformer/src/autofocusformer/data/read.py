"""Pictures and label maps from files, with every mistake on one line that names the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, UnidentifiedImageError
from shared.data.root import DamagedData, MissingData
from shared.errors import UserError

PICTURES = (".jpg", ".jpeg", ".png")
IGNORE = 255


def folder(path: Path, what: str, layout: str) -> Path:
    """`path` if it is a folder.

    Raises:
        MissingData: it is not there; the line says what was looked for and how the data set lies.
    """
    if not path.is_dir():
        raise MissingData(f"{path} is missing: {what} is expected as {layout}; set data.root, or DATA_ROOT")
    return path


def pictures(path: Path) -> list[Path]:
    """Picture files of a folder by name.

    Raises:
        MissingData: there is none.
    """
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
    if not found:
        raise MissingData(f"{path} holds no picture ({', '.join(PICTURES)})")
    return found


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise MissingData(f"{path} is missing") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DamagedData(f"{path} is no readable picture ({' '.join(str(error).split())})") from None
    return image


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """A picture as RGB; grey and palette pictures are converted, an opaque alpha channel is dropped.

    Raises:
        MissingData, DamagedData: not there, not readable.
        UserError: a picture that is partly transparent, or of 16 bits: what is meant is not known.
    """
    image = _open(path)
    if image.mode in ("I", "I;16", "F"):
        raise UserError(f"{path} has {image.mode} pixels: convert it to 8 bits a channel")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        if rgba[..., 3].min() < 255:
            raise UserError(f"{path} is partly transparent: put it on a background and save it as RGB")
    return np.array(image.convert("RGB"))


def size_of(path: Path) -> tuple[int, int]:
    """(h, w) of a picture, from its head alone.

    Raises:
        MissingData, DamagedData: not there, not readable.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise MissingData(f"{path} is missing") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DamagedData(f"{path} is no readable picture ({' '.join(str(error).split())})") from None


def read_labels(path: Path) -> Int64[np.ndarray, "h w"]:
    """A label map: one channel, of 8 or 16 bits, or a palette's indices.

    Raises:
        MissingData, DamagedData: not there, not readable.
        UserError: more than one channel.
    """
    image = _open(path)
    if image.mode not in ("L", "P", "1", "I", "I;16"):
        raise UserError(f"{path} has channels {image.mode}: a label map has one, the class of each pixel")
    return np.array(image).astype(np.int64)


def check_labels(
    labels: Int64[np.ndarray, "h w"], image: UInt8[np.ndarray, "h w 3"], classes: int, path: Path
) -> UInt8[np.ndarray, "h w"]:
    """Labels as bytes, if they go with the image: same size, classes below `classes` or 255.

    Raises:
        UserError: they do not.
    """
    if labels.shape != image.shape[:2]:
        (h, w), (ih, iw) = labels.shape, image.shape[:2]
        raise UserError(f"{path} is {w} x {h}, its picture {iw} x {ih}: they have to be of one size")
    wrong = (labels != IGNORE) & ((labels < 0) | (labels >= classes))
    if wrong.any():
        raise UserError(f"{path} has label {labels[wrong][0]}: there are {classes} classes, and 255 for ignored pixels")
    return labels.astype(np.uint8)


def fingerprint(paths: Iterable[Path], root: Path, contents: bool = True) -> str:
    """SHA-256 over names and contents of files (or names and sizes, for sets that are too large to read)."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(path.read_bytes() if contents else str(path.stat().st_size).encode())
    return digest.hexdigest()


def pairs(images: Sequence[Path], find: dict[str, Path], where: Path) -> list[tuple[Path, Path]]:
    """(picture, labels) of the same stem.

    Raises:
        MissingData: a picture without labels.
    """
    for path in images:
        if path.stem not in find:
            raise MissingData(f"{where} has no labels for {path.name}: {path.stem}.png is expected there")
    return [(path, find[path.stem]) for path in images]
