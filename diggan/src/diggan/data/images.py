"""The image sets of section 8, as they lie on disk; pixels in [-1, 1].

digits          scikit-learn's 8 x 8 (embedded): a fixed permutation, 897 to train on and 900 as the reference
mnist, fashion_mnist, cifar10, cifar100     standard files under the data root, see `shared.data.images`
class_folders   <root>/train/<class>/*.png and <root>/test/<class>/*.png; any names, any size with `resize`;
                one channel where every image is grey
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from shared.data.cifar import CIFAR100_FILES, read_cifar100
from shared.data.folders import read_labelled_folder
from shared.data.images import fingerprint, load_images
from shared.data.root import MissingData, data_root
from shared.errors import UserError
from torch import Tensor

log = logging.getLogger(__name__)

NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "class_folders")
FLIPPED = ("cifar10", "cifar100", "class_folders")  # digits and clothes are not mirrored
CIFAR100_FOLDER = "cifar-100-binary"
CIFAR100_PICKLES = ("cifar-100-python", "cifar-100-python.tar.gz")
DIGITS_POOL = 897
FEW = 10_000  # images of a reference set below which FID is visibly biased


@dataclass(frozen=True)
class Source:
    """A data set in memory: pixels as stored (`[-1, 1]` is `images / half - 1`), labels int64."""

    name: str
    kind: Literal["real", "embedded"]
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    half: float
    fingerprint: str
    detail: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return tuple(self.images.shape[1:])  # type: ignore[return-value]

    def scaled(self, images: Tensor) -> Float[Tensor, "n c h w"]:
        return images.float() / self.half - 1


def load(
    name: str, root: Path | None = None, resize: int | None = None, to_rgb: bool = False, coarse: bool = False
) -> Source:
    """Read a data set.

    Args:
        root: where the data lie (default: the data root); of class_folders the folder that holds train and test.
        resize: side in pixels (default: as they are).
        to_rgb: grey images as three equal channels.
        coarse: the 20 classes of cifar100 instead of its 100.

    Raises:
        MissingData, DamagedData (both `UserError`): a file is missing or damaged.
        UserError: unknown name (the known are listed), class_folders without a root.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"unknown data set {name!r}: there are {', '.join(NAMES)}{hint}")
    source = _read(name, root, resize, coarse)
    if resize is not None and source.shape[1:] != (resize, resize):
        source = replace(
            source, images=_resized(source.images, resize), test_images=_resized(source.test_images, resize)
        )
    if to_rgb and source.shape[0] == 1:
        source = replace(
            source, images=source.images.expand(-1, 3, -1, -1), test_images=source.test_images.expand(-1, 3, -1, -1)
        )
    return source


@lru_cache(maxsize=2)
def _read(name: str, root: Path | None, resize: int | None, coarse: bool) -> Source:
    if name == "digits":
        return _digits()
    if name == "cifar100":
        return _cifar100(root, coarse)
    if name == "class_folders":
        return _folders(root, resize)
    data = load_images(name, root)
    arrays = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    tensors = _tensors(arrays)
    return Source(name, data.kind, *tensors, data.classes, 127.5, data.fingerprint, data.detail)


def _tensors(parts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images, labels, test_images, test_labels = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    return images, labels, test_images, test_labels


def _digits() -> Source:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(1234).permutation(len(labels))
    images = images[order].reshape(-1, 1, 8, 8).astype(np.uint8)
    labels = labels[order].astype(np.int64)
    parts = images[:DIGITS_POOL], labels[:DIGITS_POOL], images[DIGITS_POOL:], labels[DIGITS_POOL:]
    tensors = _tensors(parts)
    detail = "scikit-learn's digits: 1,797 scanned digits of 8x8 pixels, 897 to train on and 900 as the reference"
    return Source("digits", "embedded", *tensors, 10, 8.0, fingerprint(*parts), detail)


def _cifar100(root: Path | None, coarse: bool) -> Source:
    root = (data_root() if root is None else Path(root).expanduser()).absolute()
    folder = root / CIFAR100_FOLDER
    missing = [file for file in CIFAR100_FILES if not (folder / file).exists()]
    if missing:
        pickles = [root / file for file in CIFAR100_PICKLES if (root / file).exists()]
        note = f" ({pickles[0]} holds pickles, which are never read: get the binary version)" if pickles else ""
        raise MissingData(
            f"cifar100 is missing: no {', '.join(missing)} in {folder}{note}; extract cifar-100-binary.tar.gz of "
            "CIFAR-100 into DATA_ROOT (default ./data)"
        )
    parts = read_cifar100(folder, coarse)
    tensors = _tensors(parts)
    kind = "20 coarse" if coarse else "100"
    detail = f"CIFAR-100, {kind} classes: {len(parts[1]):,} training and {len(parts[3]):,} test images"
    return Source("cifar100", "real", *tensors, 20 if coarse else 100, 127.5, fingerprint(*parts), detail)


def _folders(root: Path | None, resize: int | None) -> Source:
    if root is None:
        raise UserError("class_folders needs `root`: the folder that holds train/<class> and test/<class>")
    root = Path(root).expanduser().absolute()
    images, labels, names = read_labelled_folder(root / "train", resize)
    if (root / "test").is_dir():
        test_images, test_labels, _ = read_labelled_folder(root / "test", resize or images.shape[-1], names)
    else:  # every second image is held out
        images, labels, test_images, test_labels = images[::2], labels[::2], images[1::2], labels[1::2]
        log.warning("%s has no test folder: every second image of train is held out as the reference", root)
    if len(test_labels) < FEW:
        log.warning(
            "%s has %d reference images: FID depends on their number, compare only with the same",
            root,
            len(test_labels),
        )
    if _grey(images) and _grey(test_images):
        images, test_images = images[:, :1], test_images[:, :1]
    parts = images, labels, test_images, test_labels
    tensors = _tensors(parts)
    counts = f"{len(labels):,} training and {len(test_labels):,} reference images of {len(names)} classes"
    detail = f"the folder {root.name}: {counts}"
    return Source("class_folders", "real", *tensors, len(names), 127.5, fingerprint(*parts), detail)


def _grey(images: UInt8[np.ndarray, "n 3 h w"]) -> bool:
    """Whether the three channels are equal in every image."""
    return bool((images[:, 1:] == images[:, :1]).all())


def _resized(images: Tensor, size: int) -> Tensor:
    """Bilinear, antialiased."""
    parts = [F.interpolate(part, (size, size), mode="bilinear", antialias=True) for part in images.split(1000)]
    return torch.cat(parts)


def spread(total: int, count: int) -> Int64[Tensor, " count"]:
    """Places of `count` of `total` images (or all of them), evenly spread: folders are sorted by class."""
    return torch.linspace(0, total - 1, min(count, total)).round().long()


def subset(n: int, count: int, seed: int) -> Int64[np.ndarray, " count"]:
    """Which images are trained on: the authors' `numpy.random.seed(seed); numpy.random.choice(n, count, False)`."""
    return np.random.RandomState(seed).choice(n, count, replace=False).astype(np.int64)


def stratified_subset(labels: Int64[np.ndarray, " n"], count: int, seed: int) -> Int64[np.ndarray, " count"]:
    """As `subset`, with equal numbers of every class (one more of the first where it does not divide).

    Raises:
        UserError: a class has too few images.
    """
    random = np.random.RandomState(seed)
    classes = np.unique(labels)
    each, more = divmod(count, len(classes))
    chosen = []
    for place, label in enumerate(classes):
        own, wanted = np.flatnonzero(labels == label), each + (place < more)
        if len(own) < wanted:
            raise UserError(f"stratified: class {label} has {len(own)} images, {wanted} are wanted: take fewer")
        chosen.append(random.choice(own, wanted, replace=False))
    return random.permutation(np.concatenate(chosen)).astype(np.int64)
