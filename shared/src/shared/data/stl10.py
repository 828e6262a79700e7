"""The binary version of STL-10: images of 3 x 96 x 96 bytes one after another, each channel column by column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from shared.data.root import DamagedData, MissingData, unreadable

FOLDER = "stl10_binary"
SIDE = 96
RECORD = 3 * SIDE * SIDE


def read_stl10_images(path: Path) -> UInt8[np.ndarray, "n 3 96 96"]:
    """The images of `train_X.bin`, `test_X.bin` or `unlabeled_X.bin`, row by row.

    The file is mapped, not read: the unlabeled part has 2.8 GB, of which only the rows that are indexed are loaded.

    Raises:
        MissingData, DamagedData (both `UserError`): no such file; it is empty or no whole number of images.
        UserError: unreadable.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        images, rest = divmod(size, RECORD)
        content = np.memmap(path, np.uint8, "r") if images and not rest else None
    except FileNotFoundError:
        raise MissingData(
            f"{path} is missing: extract stl10_binary.tar.gz of STL-10 into {path.parent.parent}, so that "
            f"{FOLDER}/{path.name} lies in it"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    if content is None:
        raise DamagedData(
            f"{path} is truncated or no binary STL-10 file: {size} bytes are {images} images of {RECORD} bytes and "
            f"{rest} bytes more; extract stl10_binary.tar.gz anew"
        )
    return content.reshape(images, 3, SIDE, SIDE).transpose(0, 1, 3, 2)
