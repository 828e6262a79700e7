"""Images for pair training (section 4): the whole set resident as one tensor, minibatches by index.

A minibatch is `(images [B, D], labels [B], u [B])`; `u` is one uniform draw per sample, from which the negative label
is made. All draws of an epoch follow from (seed, epoch), so a run resumed at an epoch goes on with the same bits.
Where a sweep draws a minibatch for every layer (`streams` > 1), the three have a leading axis of that length.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as L
import torch
from shared.data.images import ImageDataset, load_images
from shared.errors import UserError
from torch import Tensor

from forward_forward.labels import LabelSlots, image_part

VALIDATION = {"mnist": 10_000, "fashion_mnist": 10_000, "cifar10": 5_000, "digits": 0}
EVALUATION_ROWS = 100  # images per evaluation batch: with 10 labels x 256 units 1 MB, which stays in a core's cache


class EpochBatches:
    """The minibatches of one epoch: `streams` independent permutations of the training set, cut into equal parts."""

    def __init__(self, data: PairData) -> None:
        self.data = data

    def __len__(self) -> int:
        return -(-len(self.data.train_labels) // self.data.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        data, n = self.data, len(self.data.train_labels)
        epoch = data.trainer.current_epoch if data.trainer else 0
        generator = torch.Generator().manual_seed(data.seed * 1_000_003 + epoch)
        order = torch.stack([torch.randperm(n, generator=generator) for _ in range(data.streams)])
        u = torch.rand(data.streams, n, generator=generator)
        shifts = torch.randint(-data.shift, data.shift + 1, (data.streams, n, 2), generator=generator)
        order, u, shifts = (t.to(data.train_images.device) for t in (order, u, shifts))
        for start in range(0, n, data.batch_size):
            rows = slice(start, start + data.batch_size)
            index = order[:, rows]
            images = data.train_images[index]
            if data.shift:
                images = shifted(images, shifts[:, rows], data.image_shape)
            batch = (data.network_part(images), data.train_labels[index], u[:, rows])
            yield batch if data.streams > 1 else tuple(t[0] for t in batch)  # type: ignore[misc]


class EvaluationBatches:
    """`(images, labels)` in order, in parts of `EVALUATION_ROWS`."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return -(-len(self.labels) // EVALUATION_ROWS)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.images.split(EVALUATION_ROWS), self.labels.split(EVALUATION_ROWS))


def shifted(images: Tensor, shifts: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Each image moved by its (dy, dx) pixels, zeros moving in; images [..., pixels], shifts [..., 2]."""
    c, height, width = shape
    rows = torch.arange(height, device=images.device) - shifts[..., 0, None]
    columns = torch.arange(width, device=images.device) - shifts[..., 1, None]
    inside = ((rows >= 0) & (rows < height))[..., :, None] & ((columns >= 0) & (columns < width))[..., None, :]
    index = rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    flat = images.unflatten(-1, (c, height * width))
    moved = flat.gather(-1, index.flatten(-2)[..., None, :].expand_as(flat))
    return (moved * inside.flatten(-2)[..., None, :]).flatten(-2)


class PairData(L.LightningDataModule):
    """A data set laid out for (image, label) pairs.

    Args:
        dataset: `digits` (embedded), `mnist`, `fashion_mnist` or `cifar10`.
        root: where the data lie; default `DATA_ROOT`, else `./data`.
        batch_size: pairs of one sign in a minibatch.
        train_size, val_size: the first so many of the training and of the validation part (None: all).
        label_slots: `overwrite` the first C pixels with the label code, or `prepend` C entries.
        shift: largest move in pixels of each training image (0: none).

    Raises:
        UserError: missing or damaged data; sizes larger than the parts; NaN in the images.
    """

    def __init__(
        self,
        dataset: str = "mnist",
        root: str | None = None,
        batch_size: int = 100,
        train_size: int | None = None,
        val_size: int | None = None,
        label_slots: LabelSlots = "overwrite",
        shift: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}: it has to be at least 1")
        self.dataset, self.root, self.batch_size, self.shift = dataset, root, batch_size, shift
        self.train_size, self.val_size, self.label_slots = train_size, val_size, label_slots
        self.streams = 1
        self.source: ImageDataset | None = None

    def load(self) -> ImageDataset:
        if self.source is None:
            self.source = load_images(self.dataset, Path(self.root) if self.root else None)
        return self.source

    @property
    def image_size(self) -> int:
        """Entries of the image part of a network input."""
        data = self.load()
        c, h, w = self.image_shape
        return c * h * w - (data.classes if self.label_slots == "overwrite" else 0)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        c, h, w = self.load().train_images.shape[1:]
        return int(c), int(h), int(w)

    @property
    def classes(self) -> int:
        return self.load().classes

    @property
    def validation_name(self) -> str:
        """`val`, or `test` where the data set has no validation part (digits): its numbers must not choose anything."""
        return "val" if VALIDATION[self.dataset] else "test"

    def network_part(self, images: Tensor) -> Tensor:
        return images[..., self.classes :] if self.label_slots == "overwrite" else images

    def _flat(self, images: object) -> Tensor:
        source = torch.as_tensor(images).flatten(1)
        flat = source.float() / self.load().scale
        if source.is_floating_point() and not bool(torch.isfinite(flat).all()):
            raise UserError(f"{self.dataset}: the images hold NaN or infinite values; check the source files")
        return flat

    def setup(self, stage: str) -> None:
        if hasattr(self, "train_images"):
            return
        data = self.load()
        self.seed = torch.initial_seed() % 2**31
        held_out = VALIDATION[self.dataset]
        available = len(data.train_labels) - held_out
        if available < 1:
            raise UserError(
                f"{self.dataset}: {len(data.train_labels)} training images leave none beside {held_out} for validation"
            )
        for name, size, most in (
            ("train_size", self.train_size, available),
            ("val_size", self.val_size, held_out),
        ):
            if size is not None and not 1 <= size <= most:
                raise UserError(f"{name} is {size}: {self.dataset} has {most} such images")
        labels = torch.as_tensor(data.train_labels).long()
        self.test_images = image_part(self._flat(data.test_images), self.classes, self.label_slots)
        self.test_labels = torch.as_tensor(data.test_labels).long()
        n = self.train_size or available
        self.train_images, self.train_labels = self._flat(data.train_images[:n]), labels[:n]
        held = slice(available, available + (self.val_size or held_out))
        self.val_images = image_part(self._flat(data.train_images[held]), self.classes, self.label_slots)
        self.val_labels = labels[held]
        if not held_out:
            self.val_images, self.val_labels = self.test_images, self.test_labels

    def to_device(self, device: torch.device) -> None:
        """Make every part resident where the model is; a no-op on the CPU."""
        for name in ("train", "val", "test"):
            for part in ("images", "labels"):
                setattr(self, f"{name}_{part}", getattr(self, f"{name}_{part}").to(device))

    def train_dataloader(self) -> EpochBatches:
        return EpochBatches(self)

    def val_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(self.val_images, self.val_labels)

    def test_dataloader(self) -> list[EvaluationBatches]:
        """Test, then validation where there is one: the settings of an experiment are chosen on the second only."""
        parts = [EvaluationBatches(self.test_images, self.test_labels)]
        return [*parts, self.val_dataloader()] if VALIDATION[self.dataset] else parts
