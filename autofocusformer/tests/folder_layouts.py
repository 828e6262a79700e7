"""Small data sets in the real layouts, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def halves(h: int, w: int, left: int, right: int, dtype: type = np.uint8) -> np.ndarray:
    out = np.full((h, w), left, dtype=dtype)
    out[:, w // 2 :] = right
    return out


def camvid(root: Path, h: int = 48, w: int = 64) -> Path:
    """Two images a part, one PNG and one JPEG; the right half is unlabelled (11) in the second."""
    for part in ("train", "val", "test"):
        for i, suffix in enumerate((".png", ".jpg")):
            save(root / "CamVid" / part / f"{part}{i}{suffix}", noise(h, w, i))
            save(root / "CamVid" / f"{part}annot" / f"{part}{i}.png", halves(h, w, 2 + i, 8 + 3 * i))
    return root


def ade20k(root: Path, h: int = 66, w: int = 81) -> Path:
    for part in ("training", "validation"):
        for i in range(2):
            save(root / "images" / part / f"ADE_{i}.jpg", noise(h, w, i))
            save(root / "annotations" / part / f"ADE_{i}.png", halves(h, w, 0, 150 - i))
    return root


def cityscapes(root: Path, h: int = 64, w: int = 128) -> Path:
    for part in ("train", "val"):
        for i in range(2):
            name = f"ulm_00000{i}_000019"
            save(root / "leftImg8bit" / part / "ulm" / f"{name}_leftImg8bit.png", noise(h, w, i))
            gt = root / "gtFine" / part / "ulm" / f"{name}_gtFine_"
            save(gt.with_name(gt.name + "labelIds.png"), halves(h, w, 7, 26))
            save(gt.with_name(gt.name + "instanceIds.png"), halves(h, w, 7, 26_003, np.uint16))
    return root


def imagenet(root: Path, h: int = 70, w: int = 90) -> Path:
    for part in ("train", "val"):
        for i, name in enumerate(("n01440764", "n01443537")):
            save(root / part / name / f"{name}_{i}.JPEG", noise(h, w, i))
    return root


def coco(root: Path, h: int = 60, w: int = 80) -> Path:
    """Two images: a polygon of a square of 20 pixels, and a crowd given by run lengths (left half)."""
    categories = [{"id": i, "name": f"thing {i}"} for i in (1, 2, 90)]
    for part in ("train2017", "val2017"):
        images = [{"id": 7 + i, "file_name": f"{7 + i:012d}.jpg", "height": h, "width": w} for i in range(2)]
        for i, image in enumerate(images):
            save(root / part / str(image["file_name"]), noise(h, w, i))
        square = [10, 10, 30, 10, 30, 30, 10, 30]
        annotations = [
            {"id": 1, "image_id": 7, "category_id": 90, "iscrowd": 0, "segmentation": [square]},
            {"id": 2, "image_id": 8, "category_id": 1, "iscrowd": 0, "segmentation": [square]},
            {"id": 3, "image_id": 8, "category_id": 2, "iscrowd": 1,
             "segmentation": {"size": [h, w], "counts": [0, h * w // 2, h * w // 2]}},
        ]  # fmt: skip
        file = root / "annotations" / f"instances_{part}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root
