"""STL-10's binary files, and folders of images of any size."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared.data.cifar import read_cifar10
from shared.data.folders import read_image_folder
from shared.data.root import DamagedData, MissingData
from shared.data.stl10 import read_stl10_images
from shared.errors import UserError

RNG = np.random.default_rng(2)


def line_of(caught: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_stl10_is_column_major(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (3, 3, 96, 96), dtype=np.uint8)
    path = tmp_path / "test_X.bin"
    path.write_bytes(b"".join(channel.tobytes("F") for image in images for channel in image))
    assert np.array_equal(read_stl10_images(path), images)


@pytest.mark.parametrize(("size", "says"), [(27647, "0 images of 27648 bytes and 27647"), (0, "0 bytes are 0 images")])
def test_stl10_cut_short(tmp_path: Path, size: int, says: str) -> None:
    path = tmp_path / "unlabeled_X.bin"
    path.write_bytes(bytes(size))
    with pytest.raises(DamagedData, match=r"unlabeled_X.bin is truncated or no binary STL-10 file") as caught:
        read_stl10_images(path)
    assert says in line_of(caught)
    assert isinstance(caught.value, ValueError)


def test_stl10_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"stl10_binary/unlabeled_X.bin is missing: extract") as caught:
        read_stl10_images(tmp_path / "stl10_binary" / "unlabeled_X.bin")
    assert isinstance(caught.value, MissingData)
    assert f"into {tmp_path}, so that stl10_binary/unlabeled_X.bin lies in it" in line_of(caught)


def test_missing_and_damaged_files_are_the_built_in_errors_too(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data_batch_1.bin is missing"):
        read_cifar10(tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"data_batch_1.bin is truncated"):
        read_cifar10(tmp_path)


def test_an_image_folder_is_cut_square_about_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, 3:7] = (10, 20, 30)  # The square about the centre; the rest is cut off.
    (tmp_path / "deep" / "er").mkdir(parents=True)
    Image.fromarray(wide).save(tmp_path / "deep" / "er" / "wide.png")
    (tmp_path / "notes.txt").write_text("no image")
    assert np.array_equal(
        read_image_folder(tmp_path, 2), np.broadcast_to(np.uint8([10, 20, 30])[:, None, None], (1, 3, 2, 2))
    )


def test_an_image_folder_is_averaged_when_it_shrinks(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "grey.png")
    small = read_image_folder(tmp_path, 8)
    assert small.shape == (1, 3, 8, 8)
    assert (abs(small[..., 1:-1].astype(int) - 100) <= 2).all()  # Point sampling would give 0 or 200.


def test_the_order_of_an_image_folder_is_fixed_and_mixes_its_subfolders(tmp_path: Path) -> None:
    for i in range(40):
        file = tmp_path / f"part{i // 20}" / f"{i:02d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((3, 3), i, np.uint8)).save(file)
    order = read_image_folder(tmp_path, 3)[:, 0, 0, 0]
    assert sorted(order) == list(range(40))
    assert 5 <= (order[:20] < 20).sum() <= 15
    assert np.array_equal(read_image_folder(tmp_path, 3, limit=7)[:, 0, 0, 0], order[:7])


def test_image_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone is missing: a folder of images \(.bmp, .jpeg, .jpg, .png\)"):
        read_image_folder(tmp_path / "gone", 8)
    with pytest.raises(FileNotFoundError, match="has no image in it"):
        read_image_folder(tmp_path, 8)
    file = tmp_path / "a.jpg"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a.jpg is damaged \(image file is truncated"):
        read_image_folder(tmp_path, 8)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 4096}.get)
    with pytest.raises(UserError, match=r"1 images of 64 x 64 pixels are 0.0 GB, .*: take at most 0 of them") as caught:
        read_image_folder(tmp_path, 64)
    line_of(caught)
