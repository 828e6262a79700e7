"""Limited data as a Lightning module: which images are trained on, and the batches of every iteration (section 8)."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from jaxtyping import Float, Int64
from shared.errors import UserError
from shared.runs.store import write_atomic
from torch import Tensor

from diggan.data.draws import Plan, Stream
from diggan.data.images import FLIPPED, Source, load, spread, stratified_subset, subset
from diggan.regulariser import Random
from diggan.training import Batch

log = logging.getLogger(__name__)
VALIDATION = 10_000  # images that settings are chosen by, at most


class Batches:
    """The next `iterations` batches of the run."""

    def __init__(self, data: LimitedImages) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.iterations

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(len(self)):
            self.data.handed_out += 1
            yield self.data.batch(self.data.handed_out - 1)


class LimitedImages(L.LightningDataModule):
    """A few images to train on. After `setup`: `source`, `images` (scaled), `labels`, `indices` of those trained on.

    Args:
        dataset: `digits`, `mnist`, `fashion_mnist`, `cifar10`, `cifar100` or `class_folders`.
        root: where the data lie (default: the data root); of class_folders the folder itself.
        num_samples: images to train on; or `fraction` of those there are (default: all).
        stratified: as many of each class.
        subset_seed: of which images these are (default: the run's seed).
        batch_size: of one update. With fewer images than that, they are repeated, and a warning says so.
        iterations: of G in an epoch, which ends with a look at the samples.
        flip: mirror half of the reals (default: for CIFAR and class_folders only).
        resize, to_rgb, coarse: see `images.load`.

    Raises:
        UserError: settings that mean nothing or do not go together, or as `images.load`.
    """

    source: Source
    images: Float[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    indices: Int64[np.ndarray, " n"]

    def __init__(
        self,
        dataset: str = "digits",
        root: str | None = None,
        num_samples: int | None = None,
        fraction: float | None = None,
        stratified: bool = False,
        subset_seed: int | None = None,
        batch_size: int = 32,
        iterations: int = 250,
        flip: bool | None = None,
        resize: int | None = None,
        to_rgb: bool = False,
        coarse: bool = False,
    ) -> None:
        super().__init__()
        counts = {"num_samples": num_samples, "batch_size": batch_size, "iterations": iterations, "resize": resize}
        for key, value in counts.items():
            if value is not None and value < 1:
                raise UserError(f"{key} is {value}: it has to be at least 1")
        if num_samples is not None and fraction is not None:
            raise UserError("num_samples and fraction both say how many images: give one of them")
        if fraction is not None and not 0 < fraction <= 1:
            raise UserError(f"fraction is {fraction}: it is a part of the images, in (0, 1]")
        self.dataset, self.root, self.batch_size, self.iterations = dataset, root, batch_size, iterations
        self.num_samples, self.fraction, self.stratified = num_samples, fraction, stratified
        self.subset_seed, self.flip = subset_seed, dataset in FLIPPED if flip is None else flip
        self.options: dict[str, Any] = {"resize": resize, "to_rgb": to_rgb, "coarse": coarse}
        self.handed_out = 0
        self.device: torch.device | str = "cpu"
        self.stream: Stream | None = None
        self.plan_options: dict[str, Any] = {"d_steps": 1, "latent": 32}

    def setup(self, stage: str = "fit") -> None:
        if hasattr(self, "source"):
            return
        self.seed = torch.initial_seed() % 2**31
        self.source = load(self.dataset, Path(self.root) if self.root else None, **self.options)
        total = len(self.source.labels)
        count = self.num_samples or (total if self.fraction is None else max(1, round(self.fraction * total)))
        if count > total:
            raise UserError(f"num_samples is {count}: {self.dataset} has {total} training images")
        self.indices = self.chosen(self.seed if self.subset_seed is None else self.subset_seed, count)
        if count < self.batch_size:
            log.warning("%d images for batches of %d: a batch holds some of them twice", count, self.batch_size)
        self.images = self.source.scaled(self.source.images[self.indices])
        self.labels = self.source.labels[self.indices]

    def chosen(self, seed: int, count: int) -> Int64[np.ndarray, " n"]:
        if self.stratified:
            return stratified_subset(self.source.labels.numpy(), count, seed)
        total = len(self.source.labels)
        return np.arange(total) if count == total else subset(total, count, seed)

    @property
    def subset_crc(self) -> int:
        """CRC-32 of the indices as little-endian int64."""
        return zlib.crc32(self.indices.astype("<i8").tobytes())

    def save_subset(self, folder: Path) -> None:
        """Which images were trained on, beside what was trained on them."""
        content = {"dataset": self.dataset, "crc32": self.subset_crc, "indices": self.indices.tolist()}
        write_atomic(folder / "subset.json", json.dumps(content) + "\n")

    def validation(self) -> Tensor:
        """Images that are neither trained on nor in the reference: what settings are chosen by (10,000 at most).

        The first, where files hold the classes mixed; of folders, which are sorted by class, evenly spread.
        """
        rest = np.setdiff1d(np.arange(len(self.source.labels)), self.indices)
        if self.dataset == "class_folders":
            rest = rest[spread(len(rest), VALIDATION).numpy()]
        return self.source.scaled(self.source.images[rest[:VALIDATION]])

    def reference(self) -> Tensor:
        """The test images: what a result is compared with."""
        return self.source.scaled(self.source.test_images)

    def held_out(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` of the test images (or all), evenly spread, and their labels: what D is looked at on."""
        rows = spread(len(self.source.test_labels), count)
        return self.source.scaled(self.source.test_images[rows]), self.source.test_labels[rows]

    def to_device(self, device: torch.device | str) -> None:
        self.device, self.stream = device, None
        self.images, self.labels = self.images.to(device), self.labels.to(device)

    @property
    def plan(self) -> Plan:
        height, width = self.source.shape[1:]
        return Plan(len(self.images), self.batch_size, height=height, width=width, flip=self.flip, **self.plan_options)

    def batch(self, k: int) -> Batch:
        """What iteration k of the run takes, from 0."""
        if self.stream is None:
            self.stream = Stream(self.plan, self.seed, self.device)
        chunk, i = self.stream.at(k)
        x, y = self.images[chunk.rows[i]], None
        if chunk.flips is not None:
            x = torch.where(chunk.flips[i][..., None, None, None], x.flip(-1), x)
        if chunk.gy is not None:
            y = self.labels[chunk.rows[i]]
        batches = self.plan.batches
        augment = chunk.augment[i * batches : (i + 1) * batches]
        gy = None if chunk.gy is None else chunk.gy[i]
        return Batch(x, y, chunk.z[i], gy, augment, Random([self.stream.random(k)]))

    def train_dataloader(self) -> Batches:
        return Batches(self)

    def test_dataloader(self) -> list[int]:
        """One step: samples are compared with whole sets."""
        return [0]

    def state_dict(self) -> dict[str, Any]:
        return {"handed_out": self.handed_out, **self._made_with()}

    def _made_with(self) -> dict[str, Any]:
        return {"seed": self.seed, "batch size": self.batch_size, "subset": self.subset_crc}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the batches that were handed out.

        Raises:
            UserError: the checkpoint is of a run with other images or batches.
        """
        for key, value in self._made_with().items():
            if state_dict[key] != value:
                raise UserError(f"the checkpoint was made with {key} {state_dict[key]}, this run has {value}")
        self.handed_out = state_dict["handed_out"]
