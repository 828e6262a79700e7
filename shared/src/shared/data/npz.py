"""Images in a NumPy archive with `x_train`, `y_train`, `x_test`, `y_test` (images last-axis colour, as Keras has them).

Arrays of objects are pickles inside and are refused.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from shared.data.root import DamagedData, unreadable
from shared.errors import UserError

KEYS = ("x_train", "y_train", "x_test", "y_test")


def read_npz(path: Path, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images [n, c, h, w] as uint8 and labels as int64, test images and labels.

    Args:
        path: the archive.
        shape: channels, height and width of an image of this data set.

    Raises:
        MissingData, DamagedData (both `UserError`): no such file; damaged, an array missing, of objects, of another
            shape, not finite, not bytes.
        UserError: unreadable.
    """
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive]
            if missing:
                raise DamagedData(
                    f"{path} has no {', '.join(missing)}: it needs the arrays {', '.join(KEYS)}; "
                    f"it has {', '.join(archive.files) or 'none'}"
                )
            for key in KEYS:
                try:
                    arrays[key] = archive[key]
                except ValueError as error:
                    raise DamagedData(
                        f"{path}: {key} cannot be read without unpickling it ({str(error).rstrip('.')}): "
                        "save it as an array of uint8"
                    ) from None
    except UserError:
        raise
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        raise DamagedData(
            f"{path} is damaged or no .npz archive ({type(error).__name__}): save it anew with numpy.savez"
        ) from None
    parts = []
    for part in ("train", "test"):
        parts += [_images(path, f"x_{part}", arrays[f"x_{part}"], shape)]
        parts += [_labels(path, f"y_{part}", arrays[f"y_{part}"])]
    return parts[0], parts[1], parts[2], parts[3]


def _images(path: Path, key: str, array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    channels, height, width = shape
    given = array.shape
    if channels == 1 and array.ndim == 3:
        array = array[..., None]
    if array.shape[1:] != (height, width, channels):
        expected = f"n x {height} x {width}" + (f" x {channels}" if channels > 1 else "")
        raise DamagedData(
            f"{path}: wrong image size, {key} is {' x '.join(map(str, given))} where {expected} is expected"
        )
    return np.ascontiguousarray(_whole(path, key, array, 0, 255).astype(np.uint8).transpose(0, 3, 1, 2))


def _labels(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DamagedData(
            f"{path}: {key} is {' x '.join(map(str, array.shape))} where one label per image (n) is expected"
        )
    return _whole(path, key, array, -(2**31), 2**31).astype(np.int64)


def _whole(path: Path, key: str, array: np.ndarray, least: int, most: int) -> np.ndarray:
    """The array itself, where each entry is a whole number in `least`..`most`, whatever its type."""
    if array.dtype.kind not in "uif":
        raise DamagedData(f"{path}: {key} is of type {array.dtype}: save it as an array of uint8")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DamagedData(f"{path}: {key} holds NaN or infinite values: mend its source and save it as uint8")
    if array.dtype != np.uint8 and array.size:
        low, high = array.min(), array.max()
        if low < least or high > most or (array.dtype.kind == "f" and not (array == np.floor(array)).all()):
            raise DamagedData(
                f"{path}: {key} holds {array.dtype} values in {low:g}..{high:g} that are no whole numbers in "
                f"{least}..{most}: scale it to bytes and save it as uint8"
            )
    return array
