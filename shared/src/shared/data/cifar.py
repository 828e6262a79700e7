"""The binary version of CIFAR-10: records of one label byte and 3 x 32 x 32 pixels, channel by channel.

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
RECORD = 1 + 3 * 32 * 32

Images = UInt8[np.ndarray, "n 3 32 32"]
Labels = Int64[np.ndarray, " n"]


def read_cifar10(folder: Path) -> tuple[Images, Labels, Images, Labels]:
    """Training images and labels, test images and labels, in the order of the files.

    Raises:
        MissingData, DamagedData (both `UserError`): a file is missing; it is empty, no whole number of records, or has
            a label outside 0..9.
    """
    folder = Path(folder)
    train = [_records(folder / name) for name in TRAIN_FILES]
    return (*_split(train), *_split([_records(folder / TEST_FILE)]))


def _records(path: Path) -> UInt8[np.ndarray, "n record"]:
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise unreadable(path, error) from None
    records, rest = divmod(content.size, RECORD)
    if rest or not records:
        raise DamagedData(
            f"{path} is truncated or no binary CIFAR-10 file: {content.size} bytes are {records} records of {RECORD} "
            f"bytes and {rest} bytes more; {ANEW}"
        )
    table = content.reshape(records, RECORD)
    wrong = np.flatnonzero(table[:, 0] >= len(CLASS_NAMES))
    if wrong.size:
        raise DamagedData(
            f"{path}: label {table[wrong[0], 0]} of record {wrong[0]} is outside 0..{len(CLASS_NAMES) - 1}, "
            f"so this is no sound CIFAR-10 file; {ANEW}"
        )
    return table


def _split(parts: list[np.ndarray]) -> tuple[Images, Labels]:
    images = np.concatenate([part[:, 1:] for part in parts]).reshape(-1, 3, 32, 32)
    return images, np.concatenate([part[:, 0] for part in parts]).astype(np.int64)
