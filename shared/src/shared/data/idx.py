"""The IDX format of MNIST and Fashion-MNIST, compressed by gzip or not.

magic (0, 0, type of the entries, number of axes), the length of each axis (32 bit, big-endian), then the entries.
Images are magic 2051 (unsigned bytes, three axes), labels 2049 (unsigned bytes, one axis).
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Int64, UInt8

from shared.data.root import ANEW, DamagedData, unreadable

IMAGES, LABELS = 2051, 2049
CONTENT = {IMAGES: "images", LABELS: "labels"}
GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot compress further than this, so a header that promises more is wrong: checked before allocating.
MOST_COMPRESSION = 1032


def read_idx_images(path: Path) -> UInt8[np.ndarray, "n height width"]:
    """The images of an IDX file.

    Raises:
        MissingData, DamagedData (both `UserError`): missing; not IDX, labels instead of images, truncated, too long, or
            empty.
        UserError: unreadable.
    """
    return _read_idx(Path(path), IMAGES)


def read_idx_labels(path: Path) -> Int64[np.ndarray, " n"]:
    """The labels of an IDX file; raises as `read_idx_images` does."""
    return _read_idx(Path(path), LABELS).astype(np.int64)


def _read_idx(path: Path, magic: int) -> np.ndarray:
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            most = path.stat().st_size * (MOST_COMPRESSION if compressed else 1)
            if not compressed:
                return _parse(path, file, magic, most)
            with gzip.GzipFile(fileobj=file) as plain:
                return _parse(path, plain, magic, most)
    except EOFError:
        raise DamagedData(f"{path} is truncated: the gzip stream ends early; {ANEW}") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DamagedData(f"{path} is damaged ({error}); {ANEW}") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _parse(path: Path, file: IO[bytes] | gzip.GzipFile, magic: int, most: int) -> np.ndarray:
    found = int.from_bytes(_header(path, file, 4), "big")
    if found != magic:
        wanted = f"{CONTENT[magic]} (IDX magic {magic})"
        if found in CONTENT:
            raise DamagedData(
                f"{path} holds {CONTENT[found]} (IDX magic {found}) where {wanted} are expected: "
                "the files of images and labels are exchanged; give them their original names"
            )
        raise DamagedData(f"{path} is no IDX file of {wanted}: it begins with {found}; {ANEW}")
    axes = 3 if magic == IMAGES else 1
    shape = tuple(int.from_bytes(_header(path, file, 4), "big") for _ in range(axes))
    size = math.prod(shape)
    if size == 0:
        raise DamagedData(f"{path} is empty: its header says {' x '.join(map(str, shape))}; {ANEW}")
    content = file.read(size) if size <= most else b""
    if len(content) < size:
        raise DamagedData(
            f"{path} is truncated: its header promises {size} bytes ({' x '.join(map(str, shape))}), "
            f"{'it is far shorter' if size > most else f'{len(content)} are there'}; {ANEW}"
        )
    if file.read(1):  # At the end of a gzip stream this also compares its checksum.
        raise DamagedData(
            f"{path} goes on after the {size} bytes that its header promises ({' x '.join(map(str, shape))}); {ANEW}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape).copy()  # Writable: torch warns of what is not.


def _header(path: Path, file: IO[bytes] | gzip.GzipFile, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise DamagedData(f"{path} is truncated: it ends within the IDX header; {ANEW}")
    return content
