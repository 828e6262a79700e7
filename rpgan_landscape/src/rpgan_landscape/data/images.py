"""The image sets (section 6), each as bytes of the size that the networks take.

digits          scikit-learn's 8 x 8, enlarged bilinearly to 32; 500 for testing
mnist           28 x 28 within a black frame of 2 pixels: 32 x 32, no pixel resampled
stacked_mnist   three MNIST digits drawn at random as red, green and blue: 1000 modes, numbered as the digits read
cifar10         32 x 32
stl10           the unlabeled part of the binary version, 96 x 96 reduced to 48; its test part for testing
image_folder    every image under a folder, cut square, reduced to 256

Where a set is resized, each pixel is averaged over what it covers (bilinear, antialiased).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from shared.data.folders import SUFFIXES, read_image_folder
from shared.data.images import load_images
from shared.data.root import MissingData, data_root
from shared.data.stl10 import FOLDER, read_stl10_images
from shared.errors import UserError
from torch import Tensor, nn

from .points import Points, stream

SIZES = {"digits": 32, "mnist": 32, "stacked_mnist": 32, "cifar10": 32, "stl10": 48, "image_folder": 256}
LABELLED = ("digits", "mnist", "cifar10")
STACKS = 128_000
FRAME = 2
STL10_PARTS = ("unlabeled_X.bin", "test_X.bin")
CHUNK = 1000  # images resized at a time


def load(name: str, root: Path | None, size: int, limit: int | None, seed: int) -> tuple[Points, Points | None]:
    """Training and test part of an image set.

    Args:
        name: a key of `SIZES`.
        root: where the data lie (default: `data_root()`); of `image_folder` the folder itself.
        size: side of the images returned, in pixels.
        limit: images of the training part at most; stacks of `stacked_mnist` (default: 128,000).
        seed: of what the stacks are made of.

    Raises:
        MissingData, DamagedData: a file is not there, or not sound (FileNotFoundError and ValueError, too).
        UserError: `image_folder` without a root.
    """
    if name == "image_folder":
        images = read_image_folder(_folder(root), size, limit)
        return Points(torch.from_numpy(images), None), None
    if name == "stl10":
        parts = [read_stl10_images(path) for path in _stl10_files(root)]
        train, test = (Points(resized(part[:most], size), None) for part, most in zip(parts, (limit, None)))
        return train, test
    source = load_images("mnist" if name == "stacked_mnist" else name, root)
    halves = []
    for images, labels in (
        (source.train_images, source.train_labels),
        (source.test_images, source.test_labels),
    ):
        if name == "digits":
            images = np.rint(images * (255 / source.scale)).astype(np.uint8)
        if "mnist" in name:
            images = np.pad(images, [(0, 0), (0, 0), (FRAME, FRAME), (FRAME, FRAME)])
        halves.append(Points(resized(images, size), torch.from_numpy(labels)))
    train, test = halves
    if name == "stacked_mnist":
        return stacked(train, limit or STACKS, seed, "stacks"), stacked(test, len(test), seed, "test stacks")
    return train, test


def stacked(digits: Points, n: int, seed: int, use: str) -> Points:
    """n images of three digits each, drawn with replacement; the label of 4, 0, 7 (red, green, blue) is 407."""
    assert digits.labels is not None
    stacks = torch.randint(len(digits), (n, 3), generator=stream(seed, use))
    return Points(digits.rows, digits.labels[stacks] @ torch.tensor([100, 10, 1]), stacks)


def resized(images: UInt8[np.ndarray, "n c h w"], size: int) -> UInt8[Tensor, "n c size size"]:
    """Bilinear, antialiased; the images as they are where they have that size."""
    if images.shape[2:] == (size, size):
        return torch.from_numpy(np.ascontiguousarray(images))
    out = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    for start in range(0, len(images), CHUNK):
        chunk = torch.from_numpy(np.ascontiguousarray(images[start : start + CHUNK]))
        out[start : start + CHUNK] = nn.functional.interpolate(chunk, (size, size), mode="bilinear", antialias=True)
    return out


def chosen(labels: Int64[Tensor, " n"], classes: Sequence[int], ratio: Sequence[float] | None) -> Int64[Tensor, " m"]:
    """Numbers of the points of `classes`, in order; of each class the first so large a part (None: all)."""
    keep = torch.zeros(len(labels), dtype=torch.bool)
    for label, part in zip(classes, ratio or [1.0] * len(classes)):
        own = (labels == label).nonzero()[:, 0]
        keep[own[: int(part * len(own))]] = True
    return keep.nonzero()[:, 0]


def describe(name: str, root: Path | None = None) -> tuple[str, str, str]:
    """(hash of the contents, `real` or `embedded`, what it is, in words) of an image set; raises as `load` does."""
    if name in LABELLED or name == "stacked_mnist":
        source = load_images("mnist" if name == "stacked_mnist" else name, root)
        stacks = "three digits at a time as one colour image, from " if name == "stacked_mnist" else ""
        return source.fingerprint, source.kind, stacks + source.detail
    if name == "stl10":
        files = _stl10_files(root)
        detail = "STL-10, unlabeled part"
    else:
        folder = _folder(root)
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        detail = f"{len(files):,} images of the folder {folder.name}"
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest(), "real", detail


def _stl10_files(root: Path | None) -> list[Path]:
    folder = (root or data_root()).expanduser().absolute() / FOLDER
    missing = [name for name in STL10_PARTS if not (folder / name).exists()]
    if missing:
        raise MissingData(
            f"stl10 is missing: no {', '.join(missing)} in {folder}; extract stl10_binary.tar.gz of STL-10 into "
            f"{folder.parent}, or name another place by `root` or DATA_ROOT"
        )
    return [folder / name for name in STL10_PARTS]


def _folder(root: Path | None) -> Path:
    if root is None:
        raise UserError("image_folder needs `root`: the folder that the images are in")
    return root.expanduser().absolute()
