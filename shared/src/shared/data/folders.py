"""Images in class folders, `train/<class>/*.png` and `test/<class>/*.png`, or in any folder.

Where every file of a part of class folders is named by its number (`train/5/0.png`), that number is its place in the
set; otherwise the images are ordered by the SHA-256 of `<class>/<file>`: a fixed order that mixes the classes, so that
the last ten thousand are a fair validation part.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from shared.data.root import DamagedData, MissingData, unreadable
from shared.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}
MODES = {"1", "L", "P", "RGB"}


def read_class_folders(
    folder: Path, shape: tuple[int, int, int], names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images [n, c, h, w] as uint8 and labels as int64, test images and labels.

    Args:
        folder: holds `train` and `test`.
        shape: channels, height and width of an image of this data set.
        names: the classes in order; a folder is called by its class's name or number.

    Raises:
        MissingData, DamagedData (both `UserError`): a part is missing; a class folder is unknown, missing or empty, a
            file is no image, or of another size.
    """
    return (*_part(folder / "train", shape, names), *_part(folder / "test", shape, names))


def read_image_folder(folder: Path, size: int, limit: int | None = None) -> UInt8[np.ndarray, "n 3 size size"]:
    """Every image under a folder, whatever its size: the largest square about its centre, resized bilinearly.

    The order is that of the SHA-256 of the paths below `folder`, so that the first so many are a fair sample.

    Args:
        folder: searched with its subfolders; what is no image file is passed over.
        size: side of the images returned, in pixels.
        limit: take the first so many (None: all).

    Raises:
        MissingData, DamagedData (both `UserError`): no such folder, or no image in it; an image is damaged.
        UserError: the images do not fit into this machine's memory.
    """
    if not folder.is_dir():
        raise MissingData(f"{folder} is missing: a folder of images ({', '.join(sorted(SUFFIXES))}) is expected there")
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    files.sort(key=lambda file: hashlib.sha256(file.as_posix().encode()).digest())
    files = files[:limit]
    if not files:
        raise MissingData(f"{folder} has no image in it: {', '.join(sorted(SUFFIXES))} are expected")
    needed, memory = len(files) * 3 * size**2, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise UserError(
            f"{folder}: {len(files)} images of {size} x {size} pixels are {needed / 1e9:.1f} GB, this machine has "
            f"{memory / 1e9:.1f} GB of memory: take at most {memory // (3 * size**2)} of them"
        )
    images = np.empty((len(files), 3, size, size), np.uint8)
    for row, file in enumerate(files):
        with _opened(folder / file) as image:
            images[row] = _square(image, size)
    return images


def read_labelled_folder(
    folder: Path, size: int | None = None, names: tuple[str, ...] = ()
) -> tuple[UInt8[np.ndarray, "n 3 h w"], np.ndarray, tuple[str, ...]]:
    """Images, labels (int64) and the classes' names of `<folder>/<class>/*.png`, in the order of the names.

    Args:
        size: cut to the largest square and resized bilinearly to this side (None: all have to be of one size).
        names: the classes that are expected (empty: those that are there).

    Raises:
        MissingData, DamagedData (both `UserError`): no such folder, or no class in it; an empty or unknown class; an
            image is damaged, or of another size than the first.
    """
    if not folder.is_dir():
        raise MissingData(f"{folder} is missing: a folder for each class is expected in it")
    found = tuple(entry.name for entry in _entries(folder) if entry.is_dir())
    if not found or (names and found != names):
        expected = ", ".join(names) or "a folder for each class"
        raise DamagedData(f"{folder} has the classes {', '.join(found) or '(none)'}: expected are {expected}")
    rows, labels = [], []
    for label, name in enumerate(found):
        files = _entries(folder / name)
        if not files:
            raise DamagedData(f"{folder / name} has no image in it")
        for file in files:
            with _opened(file) as image:
                rows.append(_square(image, size))
            if rows[-1].shape != rows[0].shape:
                (_, h, w), (_, height, width) = rows[-1].shape, rows[0].shape
                raise DamagedData(f"{file}: {w} x {h} pixels, the first image has {width} x {height}: set `resize`")
            labels.append(label)
    return np.stack(rows), np.array(labels, np.int64), found


def _square(image: Image, size: int | None) -> UInt8[np.ndarray, "3 h w"]:
    from PIL.Image import Resampling

    image = image.convert("RGB")
    if size is not None and image.size != (size, size):
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((size, size), Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def _part(folder: Path, shape: tuple[int, int, int], names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    if not folder.is_dir():
        raise MissingData(f"{folder} is missing: the class folders {names[0]} to {names[-1]} are expected in it")
    files: list[tuple[Path, int]] = []
    met: dict[int, Path] = {}
    for entry in _entries(folder):
        label = _label(entry, names)
        if label in met:
            raise DamagedData(f"{entry} and {met[label]} are the same class: put the images into one of them")
        met[label] = entry
        images = _entries(entry)
        if not images:
            raise DamagedData(f"{entry} has no image in it")
        files += [(image, label) for image in images]
    missing = [name for label, name in enumerate(names) if label not in met]
    if missing:
        raise DamagedData(f"{folder} has no folder for the class {', '.join(missing)}")
    numbered = all(file.stem.isdecimal() for file, _ in files)
    if numbered and len({int(file.stem) for file, _ in files}) == len(files):
        files.sort(key=lambda pair: int(pair[0].stem))
    else:
        files.sort(key=lambda pair: hashlib.sha256(f"{names[pair[1]]}/{pair[0].name}".encode()).digest())
    images_ = np.empty((len(files), *shape), np.uint8)
    for row, (file, _) in enumerate(files):
        images_[row] = _image(file, shape)
    return images_, np.array([label for _, label in files], np.int64)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, but what desktops leave there (`.DS_Store`, `Thumbs.db`)."""
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name != "Thumbs.db")
    except OSError as error:
        raise unreadable(folder, error) from None


def _label(folder: Path, names: tuple[str, ...]) -> int:
    if folder.is_dir():
        if folder.name in names:
            return names.index(folder.name)
        if folder.name.isdecimal() and int(folder.name) < len(names):
            return int(folder.name)
    raise DamagedData(
        f"{folder} is no known class folder: the classes are {', '.join(names)}; move it out of {folder.parent}"
    )


def _image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    channels, height, width = shape
    with _opened(path) as image:
        if image.size != (width, height):
            raise DamagedData(
                f"{path}: wrong image size, {image.size[0]} x {image.size[1]} pixels where {width} x {height} "
                "are expected: this file belongs to another data set"
            )
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """An image to be decoded in the `with` block; what is wrong with the file is said in one line."""
    import PIL.Image

    if path.suffix.lower() not in SUFFIXES:
        raise DamagedData(f"{path} is no image ({', '.join(sorted(SUFFIXES))}): move it out of the class folder")
    try:
        with PIL.Image.open(path) as image:
            if image.mode not in MODES:
                raise DamagedData(f"{path}: pixel format {image.mode}, 8 bits grey or RGB are expected: convert it")
            yield image
    except UserError:
        raise
    except PIL.UnidentifiedImageError:
        raise DamagedData(f"{path} is damaged or no image: replace it") from None
    except OSError as error:
        if error.errno is not None:
            raise unreadable(path, error) from None
        raise DamagedData(f"{path} is damaged ({error}): replace it") from None
    except (SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError) as error:
        raise DamagedData(f"{path} is damaged ({error}): replace it") from None
