"""Detector features as users have them (section 7.3): a folder of `.npz`, or an LMDB of pickled records.

An image's record holds `features` (n, F) float32, `boxes` (n, 4) in pixels, `image_h` and `image_w`. Pickles are read
by an unpickler that knows arrays and plain values only: a file can carry numbers in, and no code.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from shared.data.root import DamagedData, MissingData
from shared.errors import UserError

KEYS = ("features", "boxes", "image_h", "image_w")


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes as Python 3 writes them in protocols below 3; the codec is that one only."""
    if encoding != "latin1":
        raise _NotPlain(f"text in {encoding!r} is neither an array nor a plain value")
    return text.encode("latin1")


class _NotPlain(Exception):
    pass


_PLAIN = {
    ("_codecs", "encode"): _latin1,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy.core.multiarray", "scalar"): np._core.multiarray.scalar,  # type: ignore[attr-defined]
    ("numpy._core.multiarray", "scalar"): np._core.multiarray.scalar,  # type: ignore[attr-defined]
    ("numpy.core.numeric", "_frombuffer"): np._core.numeric._frombuffer,  # type: ignore[attr-defined]
    ("numpy._core.numeric", "_frombuffer"): np._core.numeric._frombuffer,  # type: ignore[attr-defined]
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise _NotPlain(f"{module}.{name} is neither an array nor a plain value")
        return _PLAIN[module, name]


def plain_pickle(content: bytes | io.BufferedIOBase, where: str) -> Any:
    """Arrays, numbers, texts, lists and mappings of a pickle; nothing else is made.

    Raises:
        UserError: anything else in it, or no pickle.
    """
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        return _PlainUnpickler(file, encoding="latin1").load()
    except _NotPlain as error:
        raise DamagedData(f"{where}: not read, as it holds more than plain data ({error})") from None
    except Exception:  # a damaged pickle can raise anything
        raise DamagedData(f"{where}: damaged, or no pickle") from None


def read_object_array(file: Path) -> list[Any]:
    """The rows of a one-dimensional `.npy` of mappings (an imdb), read without numpy's own unpickling.

    Raises:
        UserError: no such file, or not such an array.
    """
    try:
        with file.open("rb") as content:
            version = np.lib.format.read_magic(content)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, _, dtype = read(content)
            if not dtype.hasobject:
                raise ValueError
            found = plain_pickle(content, str(file))
    except FileNotFoundError:
        raise MissingData(f"{file} is missing") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise DamagedData(f"{file}: expected a .npy of records, as imdb files are") from None
    except OSError as error:
        raise DamagedData(f"{file}: {error.strerror}: expected a .npy of records, as imdb files are") from None
    return list(np.asarray(found, dtype=object).ravel())


@dataclass(frozen=True)
class Regions:
    """What a detector found in an image; boxes over its width and height."""

    features: Float32[np.ndarray, "n width"]
    boxes: Float32[np.ndarray, "n 4"]
    size: tuple[int, int]


def regions(record: Mapping[str, Any], where: str) -> Regions:
    """A record, checked.

    Raises:
        UserError: a key that is missing, shapes that do not fit, numbers that are none.
    """
    missing = [key for key in KEYS if key not in record]
    if missing:
        raise DamagedData(f"{where}: {missing[0]} is missing; expected {', '.join(KEYS)}")
    try:
        features = np.asarray(record["features"], dtype=np.float32)
        boxes = np.asarray(record["boxes"], dtype=np.float64)
        height, width = (float(np.asarray(record[key]).reshape(())) for key in ("image_h", "image_w"))
    except (TypeError, ValueError, OverflowError):
        raise DamagedData(f"{where}: {', '.join(KEYS)} have to be numbers") from None
    if boxes.size == 0 and features.size == 0:
        features, boxes = features.reshape(0, features.shape[-1] if features.ndim == 2 else 1), boxes.reshape(0, 4)
    if features.ndim != 2 or boxes.shape != (len(features), 4):
        raise DamagedData(
            f"{where}: features {features.shape} and boxes {boxes.shape}, expected (n, F) and (n, 4) with one n"
        )
    if not (width > 0 and height > 0):
        raise DamagedData(f"{where}: image_w is {width:g} and image_h {height:g}: both have to be > 0")
    if not np.isfinite(features).all():
        raise DamagedData(f"{where}: features hold NaN or infinite values")
    scaled = (boxes / [width, height, width, height]).astype(np.float32)
    return Regions(features, scaled, (round(width), round(height)))


class FeatureFolder:
    """`FOLDER/<image id>.npz`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, image_id: str) -> Regions:
        """What was found in an image.

        Raises:
            UserError: no such file, a damaged one, or an id that leads out of the folder.
        """
        file = self.folder / f"{image_id}.npz"
        if not file.resolve().is_relative_to(self.folder.resolve()):
            raise DamagedData(f"image id {image_id!r} leads out of {self.folder}")
        try:
            with np.load(file, allow_pickle=False) as content:
                record = {key: content[key] for key in KEYS if key in content}
        except FileNotFoundError:
            raise MissingData(f"{file} is missing: features of image {image_id}") from None
        except Exception:  # a damaged archive fails in many ways
            raise DamagedData(f"{file}: expected an .npz with {', '.join(KEYS)}") from None
        return regions(record, str(file))


class FeatureLMDB:
    """An LMDB whose keys are image ids and whose values are pickled records."""

    def __init__(self, folder: Path) -> None:
        try:
            import lmdb
        except ModuleNotFoundError:
            raise UserError(f"{folder} is an LMDB: `pip install lmdb`, or turn it into a folder of .npz") from None
        self.folder = folder
        self.environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)

    def __call__(self, image_id: str) -> Regions:
        with self.environment.begin() as transaction:
            found = transaction.get(image_id.encode())
        if found is None:
            raise MissingData(f"{self.folder} has no features of image {image_id}")
        where = f"{self.folder}, image {image_id}"
        record = plain_pickle(bytes(found), where)
        if not isinstance(record, Mapping):
            raise DamagedData(f"{where}: expected a record with {', '.join(KEYS)}")
        return regions(record, where)


def features_in(folder: Path) -> FeatureFolder | FeatureLMDB:
    """Features of a folder: `<folder>` of `.npz`, or `<folder>.lmdb`.

    Raises:
        UserError: neither is there.
    """
    lmdb = folder.with_name(f"{folder.name}.lmdb")
    if folder.is_dir():
        return FeatureFolder(folder)
    if lmdb.exists():
        return FeatureLMDB(lmdb)
    raise MissingData(f"neither {folder}/ with .npz files nor {lmdb.name} beside it: put the detector's features there")
