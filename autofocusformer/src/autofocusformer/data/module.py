"""All data sets behind one Lightning module: configuration in, batches out.

segmentation     synthetic_density, camvid, ade20k, cityscapes      batches: `Scenes`
instances        coco, cityscapes with `instances: true`            batches: `Things`
classification   digits_canvas, imagenet                            batches: (images, classes or mixed targets)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytorch_lightning as L
import torch
from jaxtyping import Bool, Float, Int64
from shared.data.root import data_root
from shared.errors import UserError
from torch import Tensor

from autofocusformer.data import classification, sets
from autofocusformer.data.augment import (
    IGNORE,
    Labelled,
    Mix,
    SceneAugmentation,
    centre,
    imagenet_training,
    normalise,
    padded,
    resized,
)
from autofocusformer.data.coco import coco
from autofocusformer.data.synthetic import SceneConfig
from autofocusformer.tokens_of_images import label_edges, object_tokens, pad_to_multiple, rank

SEGMENTATION = ("synthetic_density", "camvid", "ade20k", "cityscapes")
CLASSIFICATION = ("digits_canvas", "imagenet")
MIXED = ("ade20k", "coco")  # images of these are of many sizes
MULTIPLE = 32  # canvases of eight-fold sizes: all sampling modes keep as many tokens

TEST_SCENES = 2**31 + 7  # of no training; settings were tried on scenes of seed 0, so results are on others


class Scenes(NamedTuple):
    """Normalised images, labels (255: ignored), the oracle's importance and the object tokens of the canvas.

    The last two are of size 0 where the network asks for neither (see `Images.of_tokens`), the oracle's alone where it
    does not sample by it.
    """

    images: Float[Tensor, "b 3 h4 w4"]
    labels: Int64[Tensor, "b h4 w4"]
    oracle: Float[Tensor, "b h w"]
    objects: Bool[Tensor, "b h w"]


class Things(NamedTuple):
    """Normalised images, classes and masks of each image's instances, and which of them are crowds."""

    images: Float[Tensor, "b 3 h4 w4"]
    classes: list[Int64[Tensor, " n"]]
    masks: list[Bool[Tensor, "n h4 w4"]]
    crowds: list[Bool[Tensor, " n"]]


class Kinds(NamedTuple):
    """Of an image's instances: the classes, and which are crowds."""

    classes: Int64[Tensor, " n"]
    crowds: Bool[Tensor, " n"]


class Batches:
    """Batches of rows: `steps` of them in an order from `seed()`, or all rows as they lie.

    The seed is asked for whenever a pass begins: a trainer keeps one loader for all of its epochs.

    Several devices share one order, device `rank` of `world` takes every world-th row of it, and each augments by
    random numbers of its own. Rows as they lie (a test) are seen by every device whole, so that all find the same.
    """

    def __init__(
        self,
        size: int,
        batch: int,
        make: Callable[[list[int]], Any],
        steps: int | None = None,
        seed: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.size, self.batch, self.make, self.steps, self.seed = size, batch, make, steps, seed
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return -(-self.size // self.batch) if self.steps is None else self.steps

    def rows(self) -> list[int]:
        if self.steps is None:
            return list(range(self.size))
        generator, wanted = torch.Generator().manual_seed(self.seed()), self.steps * self.batch * self.world
        orders = [torch.randperm(self.size, generator=generator) for _ in range(-(-wanted // self.size))]
        return torch.cat(orders)[:wanted][self.rank :: self.world].tolist()

    def __iter__(self) -> Iterator[Any]:
        rows = self.rows()
        for start in range(0, len(rows), self.batch):
            yield self.made(rows[start : start + self.batch])

    def made(self, rows: list[int]) -> Any:
        if self.steps is None or self.world == 1:
            return self.make(rows)
        # The global generators of all devices stay alike: a resumed run restores that of device 0 on each.
        common = int(torch.randint(2**31, ()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(common * self.world + self.rank)
            return self.make(rows)


class Images(L.LightningDataModule):
    """Images of any of the data sets. After `setup`: `names`, `classes` and `small` of the classes.

    Args:
        dataset: see above.
        root: where it lies (default: the data root; see the readers for the layouts).
        batch_size: images of a batch, on each device.
        test_batch_size: images of a batch of the test (default: `batch_size`; 1 where images are of many sizes, as what
            a batch is padded to would be part of the result).
        iterations: batches of an epoch (default: as many as show every image once).
        resize: (h, w) of every image before anything else.
        crop: (h, w) of training images (default: none, they are padded to a multiple of 32).
        scale, short_side, long_side, flip, colour: see `SceneAugmentation`.
        size, test_resize: of classification: pixels of an image, and of the short side before the middle is cut out
            (None: nothing is cut, the whole image is brought to the square).
        augment: of classification: RandAugment and what goes with it.
        mix: of classification: mixup and cutmix.
        smoothing: of classes.
        train_images, test_images: only as many (of synthetic scenes: how many are drawn).
        scene: what synthetic scenes look like (default: `SceneConfig()`).
        instances: Cityscapes as instances of its 8 classes of things.
        keep: images are kept in memory once they were read.

    Raises:
        UserError: unknown data set or settings that do not go together; missing or damaged files.
    """

    names: tuple[str, ...]
    small: tuple[int, ...]

    def __init__(
        self,
        dataset: str = "synthetic_density",
        root: str | None = None,
        batch_size: int = 8,
        iterations: int | None = None,
        resize: tuple[int, int] | None = None,
        crop: tuple[int, int] | None = None,
        scale: tuple[float, float] = (1.0, 1.0),
        short_side: int | None = None,
        flip: bool = True,
        colour: float = 0.0,
        size: int = 64,
        test_resize: int | None = 64,
        augment: bool = False,
        mix: bool = False,
        smoothing: float = 0.0,
        train_images: int | None = None,
        test_images: int | None = None,
        scene: SceneConfig | None = None,
        instances: bool = False,
        keep: bool = True,
        long_side: int | None = None,
        test_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        known = (*SEGMENTATION, "coco", *CLASSIFICATION)
        if dataset not in known:
            raise UserError(f"unknown data set {dataset!r}: there are {', '.join(known)}")
        counts = {"batch_size": batch_size, "iterations": iterations, "size": size}
        counts |= {"train_images": train_images, "test_images": test_images, "test_batch_size": test_batch_size}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise UserError(f"{name} is {count}: it has to be at least 1")
        if not 0 < scale[0] <= scale[1]:
            raise UserError(f"scale is {scale[0]}, {scale[1]}: give the least and the largest, both above 0")
        if not 0 <= smoothing < 1:
            raise UserError(f"smoothing is {smoothing}: it has to be in [0, 1)")
        if (scale != (1.0, 1.0) or short_side or long_side) and crop is None:
            raise UserError("scale, short_side and long_side need a crop: images of a batch have to be of one size")
        if short_side and long_side:
            raise UserError(f"short_side is {short_side} and long_side {long_side}: scale by one of them")
        self.dataset, self.root, self.batch_size, self.iterations = dataset, root, batch_size, iterations
        self.test_batch_size = test_batch_size or (1 if dataset in MIXED and not resize else batch_size)
        self.resize, self.crop, self.size, self.test_resize = resize, crop, size, test_resize
        self.counts = {"train": train_images, "test": test_images}
        self.scene, self.smoothing, self.keep = scene or SceneConfig(), smoothing, keep
        self.things = dataset == "coco" or (dataset == "cityscapes" and instances)
        self.scene_options: dict[str, Any] = {"scale": scale, "flip": flip, "colour": colour}
        self.scene_options |= {"short_side": short_side, "long_side": long_side}
        self.augmentation: Any = None
        self.class_augmentation = imagenet_training(size) if augment else None
        self.of_tokens = True  # a network that looks at labels of pixels alone sets this to False
        self.of_oracle = True  # one that does not sample by the oracle's importance sets this to False
        self.with_mix = mix
        self.mix: Mix | None = None
        self.sources: dict[str, Any] = {}
        self.kept: dict[tuple[str, int], Any] = {}

    # What is read --------------------------------------------------------------------------------------------------

    def source(self, part: Literal["train", "test"]) -> Any:
        """The data of a part; training scenes depend on the run's seed, those that a result is on do not."""
        if part not in self.sources:
            root = Path(self.root) if self.root else None
            if self.dataset in CLASSIFICATION:
                self.sources[part] = classification.load(self.dataset, part, root)
            elif self.dataset == "coco":
                self.sources[part] = coco(part, (root or data_root()).expanduser().absolute())
            else:
                seed = 1 + torch.initial_seed() % 2**31 if part == "train" else TEST_SCENES
                count = self.counts[part] or 256
                self.sources[part] = sets.load(self.dataset, part, root, self.scene, count, seed)
        return self.sources[part]

    def setup(self, stage: str = "fit") -> None:
        source = self.source("test" if stage == "test" else "train")
        self.names, self.small = source.names, tuple(getattr(source, "small", ()))
        if self.things and self.dataset == "cityscapes":
            self.names, self.small = sets.CITYSCAPES_THINGS, ()
        if self.with_mix and self.mix is None:
            self.mix = Mix(len(self.names), self.smoothing)

    @property
    def classes(self) -> int:
        return len(self.names)

    def amount(self, part: Literal["train", "test"]) -> int:
        return min(self.source(part).size, self.counts[part] or self.source(part).size)

    def read(self, part: Literal["train", "test"], row: int) -> Any:
        """An image in [0, 1] with its labels, at the size of `resize`."""
        if (part, row) in self.kept:
            return self.kept[part, row]
        source = self.source(part)
        if self.dataset in CLASSIFICATION:
            image, kind = source.read(row)
            out: Any = (torch.from_numpy(image), kind)
        else:
            out = self._scene(source, row)
            if self.resize:
                classes, sample = out
                out = (classes, resized(sample, *self.resize))
        if self.keep:
            self.kept[part, row] = out
        return out

    def _scene(self, source: Any, row: int) -> tuple[Kinds | None, Labelled]:
        """(what instances are, where they are wanted, the labelled image)."""
        if self.dataset == "coco":
            image, classes, masks, crowds = source.read(row)
            labels = torch.zeros(image.shape[:2], dtype=torch.long)
            kinds = Kinds(torch.from_numpy(classes), torch.from_numpy(crowds))
            return kinds, Labelled(_unit(image), labels, torch.from_numpy(masks))
        image, labels = source.read(row)
        sample = Labelled(_unit(image), torch.from_numpy(labels.astype(np.int64)))
        if not self.things:
            return None, sample
        found = source.instances(row)
        numbers = np.unique(found[found > 0])
        sample.masks = torch.from_numpy(found[None] == numbers[:, None, None])
        groups = torch.from_numpy(numbers < 1000)
        ids = [sets.CITYSCAPES_THING_IDS.index(n if n < 1000 else n // 1000) for n in numbers.tolist()]
        return Kinds(torch.tensor(ids, dtype=torch.long), groups), sample

    # Batches -------------------------------------------------------------------------------------------------------

    def batch(self, part: Literal["train", "test"], rows: list[int]) -> Any:
        training = part == "train"
        read = [self.read(part, row) for row in rows]
        if self.dataset in CLASSIFICATION:
            return self._class_batch(read, training)
        samples = [self._augmented(sample) if training else sample for _, sample in read]
        h, w = (max(sample.labels.shape[axis] for sample in samples) for axis in (0, 1))
        samples = [padded(sample, h + -h % MULTIPLE, w + -w % MULTIPLE) for sample in samples]
        images = normalise(torch.stack([sample.image for sample in samples]))
        if self.things:
            return self._things(images, [kinds for kinds, _ in read], samples)
        labels = torch.stack([sample.labels for sample in samples])
        if not self.of_tokens:
            return Scenes(
                images, labels, images.new_zeros(len(images), 0, 0), labels.new_zeros(len(images), 0, 0).bool()
            )
        plain = [one.numpy().astype(np.uint8) for one in labels]
        objects = torch.from_numpy(np.stack([object_tokens(one, self.classes, self.small) for one in plain]))
        oracle = images.new_zeros(len(images), 0, 0)
        if self.of_oracle:
            oracle = torch.from_numpy(np.stack([rank(label_edges(one)) for one in plain])).float()
        return Scenes(images, labels, oracle, objects)

    def _augmented(self, sample: Labelled) -> Labelled:
        crop = self.crop or tuple(sample.labels.shape)
        if self.augmentation is None or self.augmentation.crop != crop:
            self.augmentation = SceneAugmentation(crop, **self.scene_options)  # type: ignore[arg-type]
        return self.augmentation(sample)

    @staticmethod
    def _things(images: Tensor, kinds: list[Kinds], samples: list[Labelled]) -> Things:
        """Instances of which something is left after the crop."""
        there = [sample.masks.flatten(1).any(1) for sample in samples if sample.masks is not None]
        masks = [sample.masks[keep] for sample, keep in zip(samples, there) if sample.masks is not None]
        classes, crowds = ([kind[i][keep] for kind, keep in zip(kinds, there)] for i in (0, 1))
        return Things(images, classes, masks, crowds)

    def _class_batch(self, read: list[tuple[Tensor, int]], training: bool) -> tuple[Tensor, Tensor]:
        images = [image.permute(2, 0, 1).float() / 255 for image, _ in read]
        labels = torch.tensor([kind for _, kind in read])
        if training and self.class_augmentation is not None:
            x = torch.cat([self.class_augmentation(image[None]) for image in images])
        else:
            x = normalise(torch.stack([centre(image, self.size, self.test_resize) for image in images]))
        if training and self.mix is not None:
            return self.mix(x, labels)
        return x, labels

    def train_dataloader(self) -> Batches:
        started = torch.initial_seed()

        def seed() -> int:  # a run resumed at an epoch draws the same order
            return (started * 1_000_003 + (self.trainer.current_epoch if self.trainer else 0)) % 2**63

        size = self.amount("train")
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        steps = self.iterations or max(1, size // (self.batch_size * world))
        return Batches(size, self.batch_size, lambda rows: self.batch("train", rows), steps, seed, rank, world)

    def test_dataloader(self) -> Batches:
        return Batches(self.amount("test"), self.test_batch_size, lambda rows: self.batch("test", rows))


def _unit(image: np.ndarray) -> Float[Tensor, "3 h w"]:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def one_image(image: np.ndarray, size: tuple[int, int] | None = None) -> Float[Tensor, "1 3 h4 w4"]:
    """An RGB image as a network takes it, padded to whole canvas cells of eight-fold counts."""
    x = normalise(_unit(pad_to_multiple(image, 1, 0)))[None]
    if size is not None:
        x = torch.nn.functional.interpolate(x, size, mode="bilinear", antialias=True)
    h, w = x.shape[2:]
    return torch.nn.functional.pad(x, (0, -w % MULTIPLE, 0, -h % MULTIPLE))


__all__ = ["IGNORE", "Batches", "Images", "Scenes", "Things", "one_image"]
