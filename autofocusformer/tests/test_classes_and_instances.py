"""Digits on a canvas, ImageNet's and COCO's layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder_layouts as folders
import numpy as np
import pytest
from autofocusformer.data.classification import load
from autofocusformer.data.coco import coco, mask_of, unpack
from shared.errors import UserError


def test_digits_lie_somewhere_on_the_canvas_and_always_there() -> None:
    train, test = load("digits_canvas", "train"), load("digits_canvas", "test")
    assert (train.size, test.size, train.classes, train.kind) == (1297, 250, 10, "embedded")
    images = np.stack([train.read(i)[0] for i in range(80)])
    assert images.shape == (80, 64, 64, 3)
    sides = [np.ptp(np.nonzero(image[..., 0] > 100)[0]) for image in images]
    assert min(sides) < 18 < 32 < max(sides)
    assert np.array_equal(images[0], train.read(0)[0])
    assert not np.array_equal(images[0], load("digits_canvas", "train", seed=1).read(0)[0])
    assert sorted({train.read(i)[1] for i in range(80)}) == list(range(10))


def test_imagenet_by_folder(tmp_path: Path) -> None:
    part = load("imagenet", "val", folders.imagenet(tmp_path))
    assert (part.size, part.names) == (2, ("n01440764", "n01443537"))
    assert [part.read(i)[1] for i in range(2)] == [0, 1]
    with pytest.raises(UserError, match="unknown data set 'mnist'"):
        load("mnist", "val", tmp_path)
    with pytest.raises(UserError, match="ImageNet is expected as"):
        load("imagenet", "val", tmp_path / "elsewhere")
    (tmp_path / "val" / "n01440764").rename(tmp_path / "aside")
    with pytest.raises(UserError, match=r"val has no folder n01440764 \(1 classes differ\)"):
        load("imagenet", "val", tmp_path)
    (tmp_path / "aside").rename(tmp_path / "val" / "n01440764")
    for path in (tmp_path / "val").rglob("*.JPEG"):
        path.unlink()
    with pytest.raises(UserError, match="holds no <class>"):
        load("imagenet", "val", tmp_path)


def test_coco_polygons_and_crowds(tmp_path: Path) -> None:
    part = coco("val", folders.coco(tmp_path))
    assert (part.size, part.classes) == (2, 3)
    image, kinds, masks, crowds = part.read(1)
    assert (image.shape, kinds.tolist(), masks.shape) == ((60, 80, 3), [0, 1], (2, 60, 80))
    assert crowds.tolist() == [False, True]
    assert coco("train", tmp_path).read(1).classes.tolist() == [0]  # the crowd is left out
    assert part.read(0).classes.tolist() == [2]  # category 90 is the third
    assert masks[0, 10:30, 10:30].all()
    assert masks[0].sum() == 400


def test_run_lengths_go_down_the_columns() -> None:
    assert mask_of({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3).tolist() == [[0, 1, 0], [1, 0, 0]]


def pack(counts: list[int]) -> str:
    """The packed form, written the other way round."""
    out = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            piece, value = value & 31, value >> 5
            more = value != (-1 if piece & 16 else 0)
            out.append(chr((piece | 32 if more else piece) + 48))
    return "".join(out)


def test_packed_run_lengths() -> None:
    counts = [0, 5, 1000, 3, 16, 40_000, 2, 31, 32]
    assert unpack(pack(counts)) == counts
    assert unpack("04") == [0, 4]


def test_a_damaged_annotation_file(tmp_path: Path) -> None:
    folders.coco(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    for content, says in (("[", "is no COCO annotation file"), ("{}", "is no COCO annotation file")):
        file.write_text(content)
        with pytest.raises(UserError, match=says):
            coco("val", tmp_path)
    file.unlink()
    with pytest.raises(UserError, match=r"instances_val2017\.json is missing"):
        coco("val", tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"iscrowd": 1}, r"instances_val2017\.json has no annotation"),
        ({"category_id": 4}, r"annotation 1 has category 4, which the file does not list"),
        ({"segmentation": None}, r"annotation 1 has no segmentation"),
        ({"segmentation": [["x", 1, 2, 3]]}, r"annotation 1 has no readable segmentation"),
        ({"segmentation": {"size": [60, 80], "counts": [10, 20]}}, r"annotation 1 .* runs have 30 pixels, the picture"),
        ({"segmentation": {"size": [60, 80], "counts": "P"}}, r"annotation 1 has no readable segmentation"),
    ],
)
def test_damaged_annotations_are_named(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    folders.coco(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    one = content["annotations"][0] | change
    content["annotations"] = [{name: value for name, value in one.items() if value is not None}]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=says) as error:
        coco("val", tmp_path).read(0)
    assert "\n" not in str(error.value)
