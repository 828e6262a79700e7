"""The binary versions of CIFAR-10 and CIFAR-100: records of label bytes and 3 x 32 x 32 pixels, channel by channel.

A record of CIFAR-10 begins with its class, one of CIFAR-100 with its coarse and then its fine class.

The Python version of the archive is pickled and is not read: unpickling runs whatever the file says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from shared.data.root import ANEW, DamagedData, unreadable

TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE = "test_batch.bin"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32
CIFAR100_FILES = ("train.bin", "test.bin")

Images = UInt8[np.ndarray, "n 3 32 32"]
Labels = Int64[np.ndarray, " n"]


def read_cifar10(folder: Path) -> tuple[Images, Labels, Images, Labels]:
    """Training images and labels, test images and labels, in the order of the files.

    Raises:
        MissingData, DamagedData (both `UserError`): a file is missing; it is empty, no whole number of records, or has
            a label outside 0..9.
    """
    folder = Path(folder)
    train = [_records(folder / name, "CIFAR-10", (10,)) for name in TRAIN_FILES]
    return (*_split(train, 0, 1), *_split([_records(folder / TEST_FILE, "CIFAR-10", (10,))], 0, 1))


def read_cifar100(folder: Path, coarse: bool = False) -> tuple[Images, Labels, Images, Labels]:
    """As `read_cifar10`, of CIFAR-100: its 100 fine classes, or its 20 coarse ones."""
    parts = [_records(Path(folder) / name, "CIFAR-100", (20, 100)) for name in CIFAR100_FILES]
    place = 0 if coarse else 1
    return (*_split(parts[:1], place, 2), *_split(parts[1:], place, 2))


def _records(path: Path, name: str, classes: tuple[int, ...]) -> UInt8[np.ndarray, "n record"]:
    """The records of a file, each with so many label bytes as `classes` has entries."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise unreadable(path, error) from None
    size = len(classes) + PIXELS
    records, rest = divmod(content.size, size)
    if rest or not records:
        raise DamagedData(
            f"{path} is truncated or no binary {name} file: {content.size} bytes are {records} records of {size} "
            f"bytes and {rest} bytes more; {ANEW}"
        )
    table = content.reshape(records, size)
    for column, count in enumerate(classes):
        wrong = np.flatnonzero(table[:, column] >= count)
        if wrong.size:
            raise DamagedData(
                f"{path}: label {table[wrong[0], column]} of record {wrong[0]} is outside 0..{count - 1}, "
                f"so this is no sound {name} file; {ANEW}"
            )
    return table


def _split(parts: list[np.ndarray], label: int, labels: int) -> tuple[Images, Labels]:
    images = np.concatenate([part[:, labels:] for part in parts]).reshape(-1, 3, 32, 32)
    return images, np.concatenate([part[:, label] for part in parts]).astype(np.int64)
