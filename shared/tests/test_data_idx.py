"""Every way in which an IDX file can be wrong is one line that says so; a right one comes back bit for bit."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shared.data.idx import read_idx_images, read_idx_labels
from shared.errors import UserError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 2048 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
LABELS = np.array([7, 0, 255], np.uint8)


def error_of(read, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_images_and_labels_come_back_whatever_the_file_is_called(tmp_path, pack):
    (tmp_path / "images").write_bytes(pack(idx(IMAGES)))
    (tmp_path / "labels.gz").write_bytes(pack(idx(LABELS)))
    images, labels = read_idx_images(tmp_path / "images"), read_idx_labels(tmp_path / "labels.gz")
    assert images.dtype == np.uint8
    assert np.array_equal(images, IMAGES)
    assert labels.dtype == np.int64
    assert labels.tolist() == [7, 0, 255]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("read", "content", "says"),
    [
        (read_idx_images, idx(LABELS), r"holds labels (IDX magic 2049) where images (IDX magic 2051) are expected"),
        (read_idx_labels, idx(IMAGES), r"holds images (IDX magic 2051) where labels (IDX magic 2049) are expected"),
        (
            read_idx_images,
            b"\x89PNG" + bytes(40),
            "is no IDX file of images (IDX magic 2051): it begins with 2303741511",
        ),
        (read_idx_images, idx(IMAGES)[:-1], "promises 60 bytes (3 x 5 x 4), 59 are there"),
        (read_idx_images, idx(IMAGES)[:11], "is truncated: it ends within the IDX header"),
        (read_idx_images, b"", "is truncated: it ends within the IDX header"),
        (read_idx_images, idx(IMAGES) + b"\0", "goes on after the 60 bytes that its header promises"),
        (read_idx_labels, idx(LABELS) + b"\0", "goes on after the 3 bytes that its header promises (3)"),
        (read_idx_images, idx(IMAGES[:0]), "is empty: its header says 0 x 5 x 4"),
        (read_idx_images, struct.pack(">4I", 2051, *[2**32 - 1] * 3), "it is far shorter"),
    ],
    ids=["labels", "images", "other", "short", "header", "nothing", "long", "long_labels", "empty", "enormous"],
)
def test_a_wrong_file_is_named_for_what_it_is(tmp_path, pack, read, content, says):
    path = tmp_path / "file"
    path.write_bytes(pack(content))
    assert says in error_of(read, path)


def test_exchanged_files_are_told_how_to_mend_it(tmp_path):
    (tmp_path / "a").write_bytes(idx(LABELS))
    assert "exchanged; give them their original names" in error_of(read_idx_images, tmp_path / "a")


def test_truncated_and_damaged_gzip(tmp_path):
    path = tmp_path / "images.gz"
    packed = gzip.compress(idx(IMAGES))
    path.write_bytes(packed[:-10])
    assert "is truncated: the gzip stream ends early; delete it and run `make data`" in error_of(read_idx_images, path)
    path.write_bytes(packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:])
    assert "is damaged (CRC check failed" in error_of(read_idx_images, path)
    path.write_bytes(packed + b"more")
    assert "is damaged (Not a gzipped file" in error_of(read_idx_images, path)


def test_missing_file_and_folder(tmp_path):
    assert "is missing: run `make data`" in error_of(read_idx_images, tmp_path / "nothing")
    assert "is a folder, a file is expected" in error_of(read_idx_images, tmp_path)


# No deadline: time is not what is tested, and the machine may be busy.
often = settings(deadline=None, max_examples=60)
more_often = settings(deadline=None, max_examples=150)
any_images = arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("idx") / "file"


def images_or_error(path: Path) -> np.ndarray | str:
    try:
        return read_idx_images(path)
    except UserError as error:
        return error_of(read_idx_images, path) and str(error)


@given(images=any_images, labels=arrays(np.uint8, st.integers(1, 50)), packed=st.booleans())
@often
def test_round_trip(file, images, labels, packed):
    pack = gzip.compress if packed else bytes
    file.write_bytes(pack(idx(images)))
    assert np.array_equal(read_idx_images(file), images)
    file.write_bytes(pack(idx(labels)))
    assert np.array_equal(read_idx_labels(file), labels)


@given(images=any_images, data=st.data())
@more_often
def test_a_corrupted_gzip_file_is_refused_or_gives_the_same_images(file, images, data):
    content = bytearray(gzip.compress(idx(images)))
    kind = data.draw(st.sampled_from(["change", "cut", "insert", "append"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if kind == "change":
        content[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[at : at + data.draw(st.integers(1, 20))]
    elif kind == "insert":
        content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    else:
        content += data.draw(st.binary(min_size=1, max_size=9))
    file.write_bytes(content)
    found = images_or_error(file)
    assert isinstance(found, str) or np.array_equal(found, images)


@given(images=any_images, at=st.integers(0, 15), change=st.integers(1, 255))
@often
def test_any_changed_byte_in_a_plain_header_is_found(file, images, at, change):
    content = bytearray(idx(images))
    content[at] ^= change
    file.write_bytes(content)
    with pytest.raises(UserError):
        read_idx_images(file)


@given(content=st.binary(max_size=60), start=st.sampled_from([b"", idx(IMAGES)[:4], b"\x1f\x8b", b"\x1f\x8b\x08\0"]))
@more_often
def test_arbitrary_bytes_give_images_or_a_user_error(file, content, start):
    file.write_bytes(start + content)
    found = images_or_error(file)
    assert isinstance(found, str) or found.nbytes + 16 == len(start + content)
