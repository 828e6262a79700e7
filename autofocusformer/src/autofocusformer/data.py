"""What comes in: a whole data set as one tensor, minibatches by index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as L
import torch
from shared.data.images import load_images
from shared.errors import UserError
from torch import Tensor


class Batches:
    """Minibatches of `(x, labels)`; with a generator in random order, without one as they lie."""

    def __init__(self, x: Tensor, labels: Tensor, size: int, generator: torch.Generator | None = None) -> None:
        self.x, self.labels, self.size, self.generator = x, labels, size, generator

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n = len(self.x)
        order = torch.arange(n) if self.generator is None else torch.randperm(n, generator=self.generator)
        for rows in order.split(self.size):
            yield self.x[rows], self.labels[rows]


class Images(L.LightningDataModule):
    """Images as vectors in [0, 1].

    Args:
        dataset: `digits` (embedded), `mnist`, `fashion_mnist` or `cifar10`.
        root: where the data lie; default `DATA_ROOT`, else `./data`.
        batch_size: images of a minibatch.

    Raises:
        UserError: missing or damaged data, or a batch_size below 1.
    """

    def __init__(self, dataset: str = "digits", root: str | None = None, batch_size: int = 32) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}: it has to be at least 1")
        self.batch_size = batch_size
        source = load_images(dataset, Path(root) if root else None)
        self.classes = source.classes
        self.train = self._part(source.train_images, source.train_labels, source.scale)
        self.test = self._part(source.test_images, source.test_labels, source.scale)
        self.inputs = self.train[0].shape[1]

    @staticmethod
    def _part(images: object, labels: object, scale: float) -> tuple[Tensor, Tensor]:
        x, y = torch.as_tensor(images), torch.as_tensor(labels)
        return x.flatten(1).float() / scale, y.long()

    def train_dataloader(self) -> Batches:
        epoch = self.trainer.current_epoch if self.trainer else 0
        seed = torch.initial_seed() * 1_000_003 + epoch  # a run resumed at an epoch draws the same order
        return Batches(*self.train, self.batch_size, torch.Generator().manual_seed(seed % 2**63))

    def test_dataloader(self) -> Batches:
        return Batches(*self.test, 500)
