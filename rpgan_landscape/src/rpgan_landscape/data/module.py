"""The data of every experiment as one Lightning module (section 6).

The training part is resident. Batch k of a run is a function of (seed, k) and nothing else: its rows come from the
permutation of its epoch, the noise on its images from a generator of its own. So what has to be saved is how many
batches were handed out, and a run resumed anywhere goes on with the same bits.

Pairing (section 7). `fixed`: row i is always the same real point and the same latent z_i, both drawn once; batch k is
rows kB .. kB + B - 1, counted on from the first row after the last. The other three differ in the loss only; here the
real points are shuffled each epoch. The latents of `two_cluster` are drawn once whatever the pairing: a batch brings
them in their order, beside shuffled points. Everywhere else `batch.z` is None and the trainer draws its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import pytorch_lightning as L
import torch
from jaxtyping import Float, Int64
from shared.errors import UserError
from torch import Tensor

from ..population import two_cluster
from .images import LABELLED, SIZES, chosen, load
from .points import Points, class_cyclic, image_noise, shuffled, stream
from .toy import PER_MODE, gaussian_centres, gaussians

Pairing = Literal["fixed", "batch", "all_pairs", "average"]
DATASETS = ("two_cluster", "gaussians", *SIZES)
TOY = ("two_cluster", "gaussians")
CLUSTER_POINTS = 100
BATCH_SIZES = {"gaussians": 128}  # the reference's; of images 64, of two_cluster the whole set
LATENTS = {"two_cluster": 1, "gaussians": 2}  # of images 128
EVALUATION_ROWS = 500


class Batch(NamedTuple):
    """Real points x [B, ...], their classes where there are any, the latents paired with them where these are fixed.

    Where an iteration takes several batches (`draws` > 1) each has a leading axis of that length.
    """

    x: Tensor
    labels: Tensor | None
    z: Tensor | None


class EpochBatches:
    """The next batches of the run: `iterations_per_epoch` of them, or one pass over the training part."""

    def __init__(self, data: GanData) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.iterations_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(len(self)):
            self.data.handed_out += 1
            yield self.data.batch(self.data.handed_out - 1)


class EvaluationBatches:
    """`(x, labels)` of `points` in order and without noise, in parts of `EVALUATION_ROWS`."""

    def __init__(self, points: Points) -> None:
        self.points = points

    def __len__(self) -> int:
        return -(-len(self.points) // EVALUATION_ROWS)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        labels = self.points.labels
        for rows in torch.arange(len(self.points), device=self.points.rows.device).split(EVALUATION_ROWS):
            yield self.points.x(rows), None if labels is None else labels[rows]


class GanData(L.LightningDataModule):
    """Real points for a GAN. After `setup`: `train`, `test` (`Points`; None without a test part), `z`, `z_test`.

    Args:
        dataset: `two_cluster`, `gaussians`, `digits`, `mnist`, `stacked_mnist`, `cifar10`, `stl10` or `image_folder`.
        root: where the data lie (default: `DATA_ROOT`, else `./data`); of `image_folder` the folder itself.
        batch_size: default 64 images, 128 of the gaussians, or all of the two clusters.
        pairing: default `fixed` for two_cluster, `batch` elsewhere (see above).
        draws: batches that one iteration takes (of 1 step of G and 5 of D with real points of their own: 6).
        iterations: of an epoch (default: one pass over the training part; what is left over is dropped).
        noise: add uniform noise in [0, 1/128) to the images of each batch, after they are scaled to [-1, 1].
        size: side of the images in pixels (default: the paper's, `SIZES`).
        train_size: points of two_cluster (default 100) or stacks of stacked_mnist (128,000) to draw; elsewhere the
            first so many are taken (default: all).
        modes: of the gaussians: 2, 5 or 25, with 2000 points each.
        classes: keep these only (digits, mnist, cifar10).
        class_ratio: the part of each of `classes` that is kept for training, the first ones. The reference's
            imbalanced MNIST is classes [5, 7] with ratios [0.2, 1.0].
        balanced: draw the classes in turn, smaller ones repeatedly, until the largest is through.
        seed: of points, order and noise (default: the run's). The two clusters of a seed are those of `population`.

    Raises:
        UserError: unknown names; values that do not go together; more in a batch than there are points. Missing
            files are a FileNotFoundError and damaged ones a ValueError, too.
    """

    train: Points
    test: Points | None
    z: Float[Tensor, "n latent"] | None
    z_test: Float[Tensor, "n latent"] | None

    def __init__(
        self,
        dataset: str = "two_cluster",
        root: str | None = None,
        batch_size: int | None = None,
        pairing: Pairing | None = None,
        draws: int = 1,
        iterations: int | None = None,
        noise: bool = True,
        size: int | None = None,
        train_size: int | None = None,
        modes: int = 5,
        classes: list[int] | None = None,
        class_ratio: list[float] | None = None,
        balanced: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if dataset not in DATASETS:
            near = difflib.get_close_matches(dataset, DATASETS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"unknown data set {dataset!r}: there are {', '.join(DATASETS)}{hint}")
        self.pairing: Pairing = pairing or ("fixed" if dataset == "two_cluster" else "batch")
        if self.pairing not in get_args(Pairing):
            raise UserError(f"unknown pairing {pairing!r}: there are {', '.join(get_args(Pairing))}")
        counts = {"batch_size": batch_size, "draws": draws, "iterations": iterations, "size": size}
        for key, value in {**counts, "train_size": train_size}.items():
            if value is not None and value < 1:
                raise UserError(f"{key} is {value}: it has to be at least 1")
        if size is not None and dataset in TOY:
            raise UserError(f"size is for images: {dataset} has none")
        _check_classes(dataset, classes, class_ratio)
        if balanced and (dataset not in LABELLED or self.pairing == "fixed"):
            why = "the order is fixed by the pairing" if dataset in LABELLED else f"not {dataset}"
            raise UserError(f"balanced batches are for shuffled {', '.join(LABELLED)}: {why}")
        self.dataset, self.root, self.draws, self.noise = dataset, root, draws, noise
        self.iterations = iterations
        self.size = size or SIZES.get(dataset, 0)
        self.train_size, self.modes = train_size, modes
        self.classes, self.class_ratio, self.balanced = classes, class_ratio, balanced
        self.batch_size, self.seed = batch_size or 0, seed
        self.handed_out = 0
        self.order: tuple[int, Tensor] | None = None

    @property
    def latent(self) -> int:
        """Entries of a latent: 1, 2, or 128 for images."""
        return LATENTS.get(self.dataset, 128)

    @property
    def centres(self) -> Float[Tensor, "modes 2"] | None:
        """Of the gaussians."""
        return gaussian_centres(self.modes).to(self.train.rows.device) if self.dataset == "gaussians" else None

    @property
    def iterations_per_epoch(self) -> int:
        return self.iterations or max(1, self.epoch_batches // self.draws)

    @property
    def reference(self) -> Points:
        """What samples are compared with: the test part, or the training part of a set that has no other."""
        return self.test or self.train

    def setup(self, stage: str) -> None:
        if hasattr(self, "train"):
            return
        if self.seed is None:
            self.seed = torch.initial_seed() % 2**31
        self.z = self.z_test = self.test = None
        if self.dataset == "two_cluster":
            # A generator seeded as a population's is: the same points and latents.
            x, z, z_test = two_cluster(torch.Generator().manual_seed(self.seed), self.train_size or CLUSTER_POINTS)
            self.train = Points(x[:, None], torch.arange(len(x)) % 2)
            self.z, self.z_test = z[:, None], z_test[:, None]
        elif self.dataset == "gaussians":
            points = gaussians(stream(self.seed, "gaussians"), self.modes, PER_MODE)
            self.train = Points(points, torch.arange(len(points)) % self.modes)
        else:
            root = Path(self.root) if self.root else None
            self.train, self.test = load(self.dataset, root, self.size, self.train_size, self.seed)
        if self.classes is not None:
            self.train = self._kept(self.train, self.class_ratio)
            self.test = self.test and self._kept(self.test, None)
        if self.train_size is not None:
            if self.train_size > len(self.train):
                raise UserError(f"train_size is {self.train_size}: {self.dataset} has {len(self.train)} points")
            self.train = self.train.first(self.train_size)
        n = len(self.train)
        self.batch_size = self.batch_size or BATCH_SIZES.get(self.dataset, n if self.dataset in TOY else 64)
        if self.batch_size > n:
            raise UserError(f"batch_size is {self.batch_size}: {self.dataset} has {n} training points here")
        if self.pairing == "fixed" and self.z is None:
            self.z = torch.randn(n, self.latent, generator=stream(self.seed, "latents"))

    def _kept(self, points: Points, ratio: list[float] | None) -> Points:
        assert self.classes is not None
        assert points.labels is not None
        for label in self.classes:
            if not (points.labels == label).any():
                raise UserError(f"classes: {self.dataset} has no class {label}")
        kept = points.of(chosen(points.labels, self.classes, ratio))
        assert kept.labels is not None
        for label in self.classes:
            if not (kept.labels == label).any():
                raise UserError(f"class_ratio leaves no image of class {label}: raise it")
        return kept

    def to_device(self, device: torch.device) -> None:
        """Make everything resident where the model is; the noise is then drawn there, with other bits than on a CPU."""
        self.train, self.test, self.order = self.train.to(device), self.test and self.test.to(device), None
        self.z, self.z_test = (None if z is None else z.to(device) for z in (self.z, self.z_test))

    # -- batches ------------------------------------------------------------------------------------------------------

    @property
    def epoch_batches(self) -> int:
        """Batches of one pass over the training part."""
        n = len(self.train)
        if self.balanced:
            counts = self.train.labels.unique(return_counts=True)[1]  # type: ignore[union-attr]
            n = int(counts.max()) * len(counts)
        return n // self.batch_size

    def batch(self, k: int) -> Batch:
        """What iteration k takes: the run's batches `draws` k to `draws` (k + 1) - 1."""
        numbers = range(self.draws * k, self.draws * (k + 1))
        rows = torch.cat([self._rows(number) for number in numbers])
        x = self.train.x(rows)
        if self.noise and self.train.rows.dtype == torch.uint8:
            x = x + image_noise(tuple(x.shape), stream(self._seed, "noise", k, x.device))
        labels = None if self.train.labels is None else self.train.labels[rows]
        z = None if self.z is None else self.z[torch.cat([self._in_order(number) for number in numbers])]
        if self.draws == 1:
            return Batch(x, labels, z)
        parts = (None if t is None else t.unflatten(0, (self.draws, self.batch_size)) for t in (x, labels, z))
        return Batch(*parts)  # type: ignore[arg-type]

    def _in_order(self, number: int) -> Int64[Tensor, " b"]:
        start = number * self.batch_size
        return torch.arange(start, start + self.batch_size, device=self.train.rows.device) % len(self.train)

    def _rows(self, number: int) -> Int64[Tensor, " b"]:
        """The points of the run's batch of this number."""
        if self.pairing == "fixed":
            return self._in_order(number)
        epoch, place = divmod(number, self.epoch_batches)
        if self.order is None or self.order[0] != epoch:
            generator = stream(self._seed, "order", epoch)
            if self.balanced:
                assert self.train.labels is not None
                order = class_cyclic(self.train.labels.cpu(), generator)
            else:
                order = shuffled(len(self.train), generator)
            self.order = epoch, order.to(self.train.rows.device)
        return self.order[1][place * self.batch_size : (place + 1) * self.batch_size]

    @property
    def _seed(self) -> int:
        assert self.seed is not None  # set by `setup`
        return self.seed

    def train_dataloader(self) -> EpochBatches:
        return EpochBatches(self)

    def test_dataloader(self) -> EvaluationBatches:
        return EvaluationBatches(self.reference)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def _made_with(self) -> dict[str, int | None]:
        keys = {"seed": self.seed, "batch_size": self.batch_size, "draws": self.draws}
        return {**keys, "training points": len(self.train)}

    def state_dict(self) -> dict[str, Any]:
        return {"handed_out": self.handed_out, **self._made_with()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the batches that were handed out.

        Raises:
            UserError: the checkpoint is of a run with other batches.
        """
        for key, value in self._made_with().items():
            if state_dict[key] != value:
                raise UserError(f"the checkpoint was made with {key} {state_dict[key]}, this run has {value}")
        self.handed_out = state_dict["handed_out"]


def _check_classes(dataset: str, classes: list[int] | None, ratio: list[float] | None) -> None:
    if classes is None:
        if ratio is not None:
            raise UserError("class_ratio needs `classes`: it says how much of each is kept")
        return
    if dataset not in LABELLED:
        raise UserError(f"classes can be chosen of {', '.join(LABELLED)}: not of {dataset}")
    if not classes:
        raise UserError("classes is empty: name at least one")
    twice = [label for i, label in enumerate(classes) if label in classes[:i]]
    if twice:
        raise UserError(f"classes: {twice[0]} is named twice")
    if ratio is not None and len(ratio) != len(classes):
        raise UserError(f"class_ratio has {len(ratio)} entries for {len(classes)} classes: give one for each")
    for part in ratio or []:
        if not 0 < part <= 1:
            raise UserError(f"class_ratio: {part} is not a part of a class (0 < part <= 1)")
