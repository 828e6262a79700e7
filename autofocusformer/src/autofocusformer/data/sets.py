"""Data sets of labelled images, by folder (section 4). Nothing is downloaded.

camvid       <root>/CamVid/{train,val,test} and {train,val,test}annot, as in the repository of SegNet's tutorial
ade20k       <root>/images/{training,validation}/*.jpg, <root>/annotations/{training,validation}/*.png (0: ignored)
cityscapes   <root>/leftImg8bit/<part>/<city>/*_leftImg8bit.png and
             <root>/gtFine/<part>/<city>/*_gtFine_{labelIds,instanceIds}.png
synthetic_density: drawn (see `synthetic`)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt8
from shared.data.root import data_root
from shared.errors import UserError

from autofocusformer.data import read
from autofocusformer.data.synthetic import REGIONS, SHAPES, SceneConfig, scene

Part = Literal["train", "val", "test"]
Labelled = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]
CAMVID = (
    "sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
CAMVID_SMALL = ("pole", "signsymbol", "pedestrian", "bicyclist")
CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
CITYSCAPES_SMALL = ("pole", "traffic light", "traffic sign", "person", "rider", "motorcycle", "bicycle")
# The id in the label files of each of the 19 classes that are evaluated; every other id is ignored.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# The 8 of them whose objects are told apart; they are the last of the 19.
CITYSCAPES_THING_IDS = CITYSCAPES_IDS[11:]
CITYSCAPES_THINGS = CITYSCAPES[11:]


@dataclass(frozen=True)
class LabelledImages:
    """A part of a data set: `read(i)` is (RGB image, label of each pixel; 255: ignored).

    `kind`, `fingerprint` and `detail` say what the data are, for the ledger.
    """

    name: str
    size: int
    read: Callable[[int], Labelled]
    names: tuple[str, ...]
    small: tuple[int, ...]
    kind: Literal["real", "synthetic"]
    fingerprint: str
    detail: str
    instances: Callable[[int], Int64[np.ndarray, "h w"]] | None = None

    @property
    def classes(self) -> int:
        return len(self.names)


def _numbers(names: tuple[str, ...], chosen: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(names.index(name) for name in chosen)


def load(
    name: str, part: Part, root: Path | None = None, config: SceneConfig | None = None, size: int = 256, seed: int = 0
) -> LabelledImages:
    """A part of a data set.

    Args:
        name: `synthetic_density`, `camvid`, `ade20k` or `cityscapes`.
        part: `train`, `val` or `test` (`ade20k` and `cityscapes` have no test labels: `test` is `val`).
        root: where it lies: the folder above `CamVid`, or the data set's own (default: under the data root).
        config, size, seed: of synthetic scenes: what they look like, how many, and which.

    Raises:
        UserError: unknown name; missing or damaged files.
    """
    if name == "synthetic_density":
        return synthetic(part, config or SceneConfig(), size, seed)
    if name not in READERS:
        raise UserError(f"unknown data set {name!r}: there are synthetic_density, {', '.join(READERS)}")
    base = (data_root() if root is None else Path(root).expanduser()).absolute()
    return READERS[name](part, base)


def synthetic(part: Part, config: SceneConfig, size: int, seed: int) -> LabelledImages:
    """`size` scenes; parts have no scene in common, nor have seeds."""
    if size < 1:
        raise UserError(f"{size} scenes: at least one is needed")
    stream = 3 * seed + ("train", "val", "test").index(part)
    kinds = SHAPES[: config.object_classes] if config.coding == "shape" else range(config.object_classes)
    names = ("top", "bottom", "band", *(str(kind) if config.coding == "shape" else f"colour {kind}" for kind in kinds))
    assert len(names) == REGIONS + config.object_classes
    words = f"scenes of {config.height} x {config.width} pixels drawn by us, objects coded by {config.coding}"
    digest = hashlib.sha256(repr((sorted(asdict(config).items()), size)).encode()).hexdigest()
    return LabelledImages(
        "synthetic_density", size, lambda i: scene(stream, i, config), names, config.small, "synthetic", digest, words
    )


def camvid(part: Part, root: Path) -> LabelledImages:
    """CamVid: 367, 101 and 233 street scenes of 480 x 360 pixels; label 11 (unlabelled) becomes 255."""
    layout = "CamVid/{train,val,test} with CamVid/{train,val,test}annot beside them"
    base = next((root / name for name in ("CamVid", "camvid") if (root / name).is_dir()), root / "CamVid")
    images = read.pictures(read.folder(base / part, "CamVid", layout))
    labels = read.folder(base / f"{part}annot", "CamVid", layout)
    files = read.pairs(images, {p.stem: p for p in labels.glob("*.png")}, labels)

    def one(i: int) -> Labelled:
        image, found = read.read_image(files[i][0]), read.read_labels(files[i][1])
        found[found == len(CAMVID)] = read.IGNORE
        return image, read.check_labels(found, image, len(CAMVID), files[i][1])

    return LabelledImages(
        "camvid", len(files), one, CAMVID, _numbers(CAMVID, CAMVID_SMALL), "real", _digest(base, part),
        f"CamVid as laid out for SegNet, {part}: {len(files)} images (a copy re-encoded as JPEG, where it is one)",
    )  # fmt: skip


@lru_cache(maxsize=8)
def _digest(base: Path, part: str) -> str:
    files = read.pictures(base / part) + read.pictures(base / f"{part}annot")
    return read.fingerprint(files, base)


def ade20k(part: Part, root: Path) -> LabelledImages:
    """ADE20K's scene parsing: 150 classes; 0 in the files is `other` and ignored."""
    layout = "images/{training,validation}/*.jpg and annotations/{training,validation}/*.png"
    where = "training" if part == "train" else "validation"
    images = read.pictures(read.folder(root / "images" / where, "ADE20K", layout))
    labels = read.folder(root / "annotations" / where, "ADE20K", layout)
    files = read.pairs(images, {p.stem: p for p in labels.glob("*.png")}, labels)

    def one(i: int) -> Labelled:
        image, found = read.read_image(files[i][0]), read.read_labels(files[i][1]) - 1
        found[found == -1] = read.IGNORE
        return image, read.check_labels(found, image, 150, files[i][1])

    digest = read.fingerprint([p for pair in files for p in pair], root, contents=False)
    names = tuple(str(c) for c in range(150))
    return LabelledImages("ade20k", len(files), one, names, (), "real", digest, f"ADE20K, {where}: {len(files)} images")


def cityscapes(part: Part, root: Path) -> LabelledImages:
    """Cityscapes, fine labels: 19 classes; objects of 8 of them also one by one (`instances`)."""
    layout = "leftImg8bit/<part>/<city>/*_leftImg8bit.png and gtFine/<part>/<city>/*_gtFine_labelIds.png"
    where = "train" if part == "train" else "val"
    base = read.folder(root / "leftImg8bit" / where, "Cityscapes", layout)
    images = sorted(base.glob("*/*_leftImg8bit.png"))
    if not images:
        raise read.MissingData(f"{base} holds no <city>/*_leftImg8bit.png")
    to_class = np.full(256, read.IGNORE)
    to_class[list(CITYSCAPES_IDS)] = np.arange(len(CITYSCAPES_IDS))

    def beside(i: int, what: str) -> Path:
        stem = images[i].name.removesuffix("_leftImg8bit.png")
        return root / "gtFine" / where / images[i].parent.name / f"{stem}_gtFine_{what}.png"

    def one(i: int) -> Labelled:
        path = beside(i, "labelIds")
        image, found = read.read_image(images[i]), read.read_labels(path)
        if found.min() < 0 or found.max() > 255:
            raise UserError(f"{path} has label {found.max()}: label ids end at 33")
        return image, read.check_labels(to_class[found], image, len(CITYSCAPES), path)

    def instances(i: int) -> Int64[np.ndarray, "h w"]:
        path = beside(i, "instanceIds")
        found = read.read_labels(path)
        if found.shape != (size := read.size_of(images[i])):
            (h, w), (ih, iw) = found.shape, size
            raise UserError(f"{path} is {w} x {h}, its picture {iw} x {ih}: they have to be of one size")
        objects = (found >= 1000) & np.isin(found // 1000, CITYSCAPES_THING_IDS)
        groups = np.isin(found, CITYSCAPES_THING_IDS)
        if part == "train":
            groups[:] = (
                False  # as COCO's crowds: many in one mask, in a test neither for nor against what is found there
            )
        return np.where(objects | groups, found, 0)  # class id * 1000 + number, of a group its class id; stuff is none

    for i in range(len(images)):
        if not beside(i, "labelIds").is_file():
            raise read.MissingData(f"{beside(i, 'labelIds')} is missing: {images[i].name} has no labels")
    digest = read.fingerprint(images, root, contents=False)
    return LabelledImages(
        "cityscapes", len(images), one, CITYSCAPES, _numbers(CITYSCAPES, CITYSCAPES_SMALL), "real", digest,
        f"Cityscapes, fine, {where}: {len(images)} images", instances,
    )  # fmt: skip


READERS: dict[str, Callable[[Part, Path], LabelledImages]] = {
    "camvid": camvid, "ade20k": ade20k, "cityscapes": cityscapes,
}  # fmt: skip
