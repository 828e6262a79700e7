"""Images in class folders: `train/<class>/*.png` and `test/<class>/*.png`.

Where every file of a part is named by its number (`train/5/0.png`), that number is its place in the set; otherwise the
images are ordered by the SHA-256 of `<class>/<file>`: a fixed order that mixes the classes, so that the last ten
thousand are a fair validation part.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from shared.data.root import unreadable
from shared.errors import UserError

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
        UserError: a class folder is unknown, missing or empty; a file is no image, or of another size.
    """
    return (*_part(folder / "train", shape, names), *_part(folder / "test", shape, names))


def _part(folder: Path, shape: tuple[int, int, int], names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: the class folders {names[0]} to {names[-1]} are expected in it")
    files: list[tuple[Path, int]] = []
    met: dict[int, Path] = {}
    for entry in _entries(folder):
        label = _label(entry, names)
        if label in met:
            raise UserError(f"{entry} and {met[label]} are the same class: put the images into one of them")
        met[label] = entry
        images = _entries(entry)
        if not images:
            raise UserError(f"{entry} has no image in it")
        files += [(image, label) for image in images]
    missing = [name for label, name in enumerate(names) if label not in met]
    if missing:
        raise UserError(f"{folder} has no folder for the class {', '.join(missing)}")
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
    raise UserError(
        f"{folder} is no known class folder: the classes are {', '.join(names)}; move it out of {folder.parent}"
    )


def _image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    channels, height, width = shape
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} is no image ({', '.join(sorted(SUFFIXES))}): move it out of the class folder")
    try:
        with Image.open(path) as image:
            if image.size != (width, height):
                raise UserError(
                    f"{path}: wrong image size, {image.size[0]} x {image.size[1]} pixels where {width} x {height} "
                    "are expected: this file belongs to another data set"
                )
            if image.mode not in MODES:
                raise UserError(f"{path}: pixel format {image.mode}, 8 bits grey or RGB are expected: convert it")
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except UnidentifiedImageError:
        raise UserError(f"{path} is damaged or no image: replace it") from None
    except OSError as error:
        if error.errno is not None:
            raise unreadable(path, error) from None
        raise UserError(f"{path} is damaged ({error}): replace it") from None
    except (SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged ({error}): replace it") from None
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)
