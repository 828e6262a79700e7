"""Folders in the real layouts are read, and what is wrong with them is one line that names the file."""

from __future__ import annotations

from pathlib import Path

import folder_layouts as folders
import numpy as np
import pytest
from autofocusformer.data.read import read_image, read_labels
from autofocusformer.data.sets import load
from PIL import Image
from shared.errors import UserError


def test_camvid(tmp_path: Path) -> None:
    part = load("camvid", "val", folders.camvid(tmp_path))
    assert (part.size, part.classes, part.kind) == (2, 11, "real")
    assert [part.names[c] for c in part.small] == ["pole", "signsymbol", "pedestrian", "bicyclist"]
    image, labels = part.read(1)
    assert image.shape == (48, 64, 3)
    assert np.unique(labels).tolist() == [3, 255]  # 11 is unlabelled
    before = part.fingerprint
    save = folders.save(tmp_path / "CamVid" / "val" / "val0.png", folders.noise(48, 64, 9))
    from autofocusformer.data.sets import _digest

    _digest.cache_clear()
    assert load("camvid", "val", tmp_path).fingerprint != before, save


def test_ade20k(tmp_path: Path) -> None:
    part = load("ade20k", "test", folders.ade20k(tmp_path))
    assert [np.unique(part.read(i)[1]).tolist() for i in range(2)] == [[149, 255], [148, 255]]


def test_cityscapes(tmp_path: Path) -> None:
    part = load("cityscapes", "train", folders.cityscapes(tmp_path))
    assert part.instances is not None
    assert np.unique(part.read(0)[1]).tolist() == [0, 13]  # road, car
    assert np.unique(part.instances(0)).tolist() == [0, 26003]


def test_grey_and_opaque_pictures_are_converted(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(read_image(folders.save(tmp_path / "grey.png", grey)), np.stack([grey] * 3, -1))
    rgba = np.full((3, 4, 4), 255, np.uint8)
    assert read_image(folders.save(tmp_path / "rgba.png", rgba)).shape == (3, 4, 3)


def damage(root: Path, what: str) -> str:
    """Break the first training image of CamVid; returns what has to be said of it."""
    image, labels = root / "CamVid/train/train0.png", root / "CamVid/trainannot/train0.png"
    if what == "folder":
        (root / "CamVid").rename(root / "Elsewhere")
        return r"CamVid/train is missing: CamVid is expected as"
    if what == "labels":
        labels.unlink()
        return r"trainannot has no labels for train0.png"
    if what == "size":
        folders.save(labels, folders.halves(48, 60, 1, 2))
        return r"train0.png is 60 x 48, its picture 64 x 48"
    if what == "range":
        folders.save(labels, folders.halves(48, 64, 1, 12))
        return r"trainannot/train0.png has label 12: there are 11 classes"
    if what == "torn":
        image.write_bytes(image.read_bytes()[:300])
        return r"train/train0.png is no readable picture"
    if what == "text":
        labels.write_text("no picture")
        return r"trainannot/train0.png is no readable picture"
    if what == "transparent":
        folders.save(image, np.full((48, 64, 4), 100, np.uint8))
        return r"train0.png is partly transparent"
    if what == "channels":
        folders.save(labels, folders.noise(48, 64))
        return r"trainannot/train0.png has channels RGB"
    folders.save(image, np.zeros((48, 64), np.uint16))
    return r"train0.png has I;16 pixels"


@pytest.mark.parametrize(
    "what", ["folder", "labels", "size", "range", "torn", "text", "transparent", "channels", "sixteen bits"]
)
def test_bad_files_are_named_on_one_line(what: str, tmp_path: Path) -> None:
    says = damage(folders.camvid(tmp_path), what)
    with pytest.raises(UserError, match=says) as error:
        load("camvid", "train", tmp_path).read(0)
    assert "\n" not in str(error.value)


def test_an_unknown_set_and_missing_sets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown data set 'pascal'"):
        load("pascal", "train", tmp_path)
    for name, says in (("ade20k", "ADE20K is expected"), ("cityscapes", "Cityscapes is expected")):
        with pytest.raises(UserError, match=says):
            load(name, "train", tmp_path)


def test_cityscapes_without_labels(tmp_path: Path) -> None:
    folders.cityscapes(tmp_path)
    next((tmp_path / "gtFine/val/ulm").glob("*labelIds.png")).unlink()
    with pytest.raises(UserError, match=r"gtFine_labelIds\.png is missing"):
        load("cityscapes", "val", tmp_path)


def test_cityscapes_with_instances_of_another_size(tmp_path: Path) -> None:
    part = load("cityscapes", "val", folders.cityscapes(tmp_path))
    path = next((tmp_path / "gtFine/val/ulm").glob("*0_000019*instanceIds.png"))
    folders.save(path, folders.halves(32, 64, 7, 26_003, np.uint16))
    assert part.instances is not None
    with pytest.raises(UserError, match=r"instanceIds\.png is 64 x 32, its picture 128 x 64"):
        part.instances(0)


def test_palette_labels_are_their_indices(tmp_path: Path) -> None:
    image = Image.fromarray(folders.halves(4, 4, 1, 2), mode="P")
    image.putpalette([255, 0, 0] * 256)
    image.save(tmp_path / "p.png")
    assert np.unique(read_labels(tmp_path / "p.png")).tolist() == [1, 2]
