"""Image classification sets as arrays of bytes, from whichever layout of them lies under the data root.

digits          8x8, comes with scikit-learn; a fixed permutation, 1297 for training and 500 for testing
mnist           MNIST/raw/*-ubyte[.gz]          or mnist.npz           or mnist/{train,test}/<class>/*.png
fashion_mnist   FashionMNIST/raw/*-ubyte[.gz]   or fashion_mnist.npz   or fashion_mnist/{train,test}/<class>/*.png
cifar10         cifar-10-batches-bin/*.bin      or cifar10.npz         or cifar10/{train,test}/<class>/*.png

The first layout that is there in full is read; nothing is downloaded here (`make data` does that).
"""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt8

from shared.data.cifar import CLASS_NAMES, TEST_FILE, TRAIN_FILES, read_cifar10
from shared.data.folders import read_class_folders
from shared.data.idx import read_idx_images, read_idx_labels
from shared.data.npz import read_npz
from shared.data.root import DamagedData, MissingData, data_root
from shared.data.sources import CIFAR10_MD5, CONTENTS, SOURCES
from shared.errors import UserError

DIGIT_NAMES = tuple("0123456789")
CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_PICKLES = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
SHAPES = {"mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
IDX_FOLDERS = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}
NAMES = ("digits", *SHAPES)

Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ImageDataset:
    """A data set in memory; an image in 0..1 is `images / scale`."""

    name: str
    kind: Literal["real", "embedded"]
    train_images: UInt8[np.ndarray, "n c h w"]
    train_labels: Int64[np.ndarray, " n"]
    test_images: UInt8[np.ndarray, "m c h w"]
    test_labels: Int64[np.ndarray, " m"]
    classes: int
    fingerprint: str
    """SHA-256 of the four arrays, whatever layout they were read from."""
    detail: str
    """What the data are and where they come from, in words: to be shown beside every number made from them."""
    scale: float = 255.0


def load_images(name: str, root: Path | None = None) -> ImageDataset:
    """Read a data set.

    Args:
        name: `digits`, `mnist`, `fashion_mnist` or `cifar10`.
        root: where the data lie; default `data_root()`.

    Raises:
        UserError: unknown name.
        MissingData: nothing there (says where it was looked for and how to get it); a FileNotFoundError too.
        DamagedData: a file is damaged, of another data set, or does not go with its sisters; a ValueError too.
    """
    if name == "digits":
        return _digits()
    if name not in SHAPES:
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"unknown data set {name!r}: there are {', '.join(NAMES)}{hint}")
    root = (data_root() if root is None else Path(root).expanduser()).absolute()
    parts, where = _read(name, root)
    for part, images, labels in (("training", *parts[:2]), ("test", *parts[2:])):
        _check(name, f"{where} ({part} part)", images, labels)
    digest = fingerprint(*parts)
    return ImageDataset(name, "real", *parts, len(DIGIT_NAMES), digest, _detail(name, root, where, parts, digest))


def fingerprint(*arrays: np.ndarray) -> str:
    """SHA-256 over type, shape and entries of the arrays, the same on every machine."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def idx_files(name: str, root: Path) -> dict[str, Path | None]:
    """The four IDX files by the names they have without `.gz`, each where it is found (plain before compressed)."""
    folder = root / IDX_FOLDERS[name]
    found: dict[str, Path | None] = {}
    for remote in SOURCES[name]:
        plain = folder / remote.name.removesuffix(".gz")
        found[plain.name] = next((p for p in (plain, folder / remote.name) if p.exists()), None)
    return found


def _digits() -> ImageDataset:
    import torch
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(123)).numpy()
    images = images[order].reshape(-1, 1, 8, 8).astype(np.uint8)
    labels = labels[order].astype(np.int64)
    parts = images[:1297], labels[:1297], images[1297:], labels[1297:]
    detail = "scikit-learn's digits: 1,797 scanned digits of 8x8 pixels, 1,297 for training and 500 for testing"
    return ImageDataset("digits", "embedded", *parts, 10, fingerprint(*parts), detail, scale=16.0)


def _read(name: str, root: Path) -> tuple[Parts, Path]:
    """The arrays and the file or folder they were read from."""
    names = CLASS_NAMES if name == "cifar10" else DIGIT_NAMES
    archive, folder = root / f"{name}.npz", root / name
    if name == "cifar10":
        original = root / CIFAR10_FOLDER
        missing = [file for file in (*TRAIN_FILES, TEST_FILE) if not (original / file).exists()]
        if not missing:
            return read_cifar10(original), original
    else:
        original = root / IDX_FOLDERS[name]
        found = idx_files(name, root)
        files = [path for path in found.values() if path]
        missing = [file for file, path in found.items() if not path]
        if not missing:
            return _read_idx(name, files), original
    if archive.exists():
        return read_npz(archive, SHAPES[name]), archive
    if (folder / "train").is_dir():
        return read_class_folders(folder, SHAPES[name], names), folder
    raise _missing(name, root, original, missing)


def _read_idx(name: str, files: list[Path]) -> Parts:
    arrays = []
    for images_file, labels_file in (files[:2], files[2:]):
        images, labels = read_idx_images(images_file), read_idx_labels(labels_file)
        if images.shape[1:] != SHAPES[name][1:]:
            height, width = SHAPES[name][1:]
            raise DamagedData(
                f"{images_file}: wrong image size, {images.shape[1]} x {images.shape[2]} pixels where "
                f"{height} x {width} are expected: this file belongs to another data set"
            )
        _check(name, f"{images_file} and {labels_file.name}", images, labels)
        arrays += [images[:, None], labels]
    return arrays[0], arrays[1], arrays[2], arrays[3]


def _check(name: str, where: str, images: np.ndarray, labels: np.ndarray) -> None:
    if len(images) != len(labels):
        raise DamagedData(
            f"{where}: {len(images)} images but {len(labels)} labels: they do not belong together; "
            "get both anew with `make data`, or from one source"
        )
    if not len(images):
        raise DamagedData(f"{where}: no images; get them anew with `make data`")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(DIGIT_NAMES)))
    if wrong.size:
        raise DamagedData(
            f"{where}: label {labels[wrong[0]]} of image {wrong[0]} is outside 0..{len(DIGIT_NAMES) - 1}: "
            f"these are not the labels of {name}"
        )


def _missing(name: str, root: Path, original: Path, missing: list[str]) -> MissingData:
    remote = SOURCES[name]
    wanted = [file for file in remote if name == "cifar10" or file.name.removesuffix(".gz") in missing]
    optional = "" if name == "cifar10" else "[.gz]"
    # One digest in full; of several the beginnings, since the line has to stay readable.
    digests = ", ".join(f"{f.name} SHA-256 {f.sha256 if len(wanted) == 1 else f.sha256[:12] + '...'}" for f in wanted)
    pickles = [root / file for file in CIFAR10_PICKLES if name == "cifar10" and (root / file).exists()]
    note = f" ({pickles[0]} holds pickles, which are never read: get the binary version)" if pickles else ""
    base = wanted[0].urls[0] if len(wanted) == 1 else wanted[0].urls[0].removesuffix(wanted[0].name)
    return MissingData(
        f"{name} is missing: no {', '.join(file + optional for file in missing)} in {original}, no "
        f"{root / f'{name}.npz'}, no {root / name}/train/<class>/*.png{note}; run `make data` (downloads to "
        f"DATA_ROOT, default ./data), or put the files there by hand from {base} ({digests})"
    )


def _detail(name: str, root: Path, where: Path, parts: Parts, digest: str) -> str:
    title = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}[name]
    counts = f"{len(parts[1]):,} training and {len(parts[3]):,} test images"
    if digest in CONTENTS:
        return f"{CONTENTS[digest]}: {counts}"
    if _is_original(name, root, where):
        return f"{title}, the original files (checksums verified): {counts}"
    return f"{title} (a copy: not the original files byte for byte, read from {where.relative_to(root)}): {counts}"


def _is_original(name: str, root: Path, where: Path) -> bool:
    try:
        if where == root / CIFAR10_FOLDER:
            return all(_file_digest(where / file, "md5") == md5 for file, md5 in CIFAR10_MD5.items())
        if name in IDX_FOLDERS and where == root / IDX_FOLDERS[name]:
            return all(_file_digest(where / f.name, "sha256") == f.sha256 for f in SOURCES[name])
    except OSError:
        return False  # A plain file beside a compressed one's digest: cannot be told.
    return False


def _file_digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
