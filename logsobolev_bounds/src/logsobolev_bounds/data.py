"""Data of section 5: flat vectors, how they were scaled and centred, and the covariances that the bounds assume.

digits           scikit-learn's 8 x 8 (embedded): RandomState(0)'s permutation, 1,200 to train on and 597 to test on
mnist, fashion_mnist, cifar10     standard files under the data root, see `shared.data.images`
synthetic_logistic     y in {0, 1}, x = (2y - 1) mu + N(0, I) in two dimensions: any number of fresh examples

A mean subtracted over the training set makes the hypotheses depend on it: a certificate needs `center` heldout or none.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytorch_lightning as L
import torch
from jaxtyping import Float, Int64
from shared.data.images import fingerprint, load_images
from shared.errors import UserError
from torch import Tensor

from logsobolev_bounds.streams import run_seed, seed_for, stream
from logsobolev_bounds.synthetic import SyntheticLogistic

Dataset = Literal["digits", "mnist", "fashion_mnist", "cifar10", "synthetic_logistic"]
Scale = Literal["unit", "standardised"]
Center = Literal["train", "heldout", "none"]
DIGITS_TRAIN = 1200
BUDGET = 256 * 2**20  # bytes that a chunk of examples may take, unless said otherwise
TINY_STD = 1e-3  # added to a pixel's deviation before dividing: border pixels never change


class BadData(UserError, ValueError):
    """Examples, labels or a covariance that no bound can be computed from."""


@lru_cache(maxsize=4)
def read(dataset: str, root: Path | None) -> tuple[Tensor, Tensor, Tensor, Tensor, int, str, str, str]:
    """Training x in [0, 1] flat, y, test x, y, classes, (hash, kind, what it is)."""
    if dataset == "digits":
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        order = np.random.RandomState(0).permutation(len(labels))
        images, labels = (images / 16)[order].astype(np.float32), labels[order].astype(np.int64)
        n = DIGITS_TRAIN
        parts = images[:n], labels[:n], images[n:], labels[n:]
        detail = "scikit-learn's digits: 1,797 scanned digits of 8x8 pixels, 1,200 to train on and 597 to test on"
        x, y, x_test, y_test = (torch.from_numpy(part) for part in parts)
        return x, y, x_test, y_test, 10, fingerprint(*parts), "embedded", detail
    if dataset == "synthetic_logistic":
        raise AssertionError("drawn, not read")
    data = load_images(dataset, root)
    arrays = data.train_images, data.train_labels, data.test_images, data.test_labels
    x, y, x_test, y_test = (torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)
    flat = [v.flatten(1).float() / data.scale for v in (x, x_test)]
    return flat[0], y, flat[1], y_test, data.classes, data.fingerprint, data.kind, data.detail


class Examples(L.LightningDataModule):
    """After `setup`: x, y (training, m of them), x_test, y_test, classes; all resident, flat and centred.

    `fingerprint` names the examples that the bound is on, whatever is done to their pixels: which of which data set,
    and their labels.

    Args:
        dataset: one of those above.
        root: where the data lie (default: the data root).
        m: training examples (default: all), the first ones.
        scale: `unit` ([0, 1]), or `standardised` (each pixel over its deviation + 1e-3). It changes the meaning of a
            Euclidean gradient norm.
        center: which examples' mean is subtracted: `train`, `heldout` (those outside the training set), or `none`.
        label_noise: share of the training labels that are replaced by random ones (1.0: all of them).
        prior_fraction: share of the training examples that a prior is learnt on; the bound is on the rest.
        batch_size: of training.
        seed: of label noise and of synthetic examples (default: the run's, so that every seed of an experiment draws
            its own). The images of a file are the same for every seed.

    Raises:
        UserError: a value out of its range or an unknown name (the known are listed); missing or damaged files.
    """

    x: Float[Tensor, "m d"]
    y: Int64[Tensor, " m"]
    x_test: Float[Tensor, "n d"]
    y_test: Int64[Tensor, " n"]
    x_prior: Float[Tensor, "k d"]
    y_prior: Int64[Tensor, " k"]
    classes: int
    fingerprint: str

    def __init__(
        self,
        dataset: Dataset = "digits",
        root: str | None = None,
        m: int | None = None,
        scale: Scale = "unit",
        center: Center = "train",
        label_noise: float = 0.0,
        prior_fraction: float = 0.0,
        batch_size: int = 100,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        names = (("data set", dataset, Dataset), ("scale", scale, Scale), ("center", center, Center))
        for key, value, choices in names:
            known = get_args(choices)
            if value not in known:
                near = difflib.get_close_matches(str(value), known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise BadData(f"unknown {key} {value!r}: there are {', '.join(known)}{hint}")
        if m is not None and m < 1:
            raise BadData(f"m is {m}: a bound needs at least one example")
        if not 0 <= label_noise <= 1:
            raise BadData(f"label_noise is {label_noise}: it is a share of the labels, in [0, 1]")
        if not 0 <= prior_fraction < 1:
            raise BadData(f"prior_fraction is {prior_fraction}: it is a share of the examples, in [0, 1)")
        if batch_size < 1:
            raise BadData(f"batch_size is {batch_size}: it has to be at least 1")
        self.dataset, self.root, self.limit, self.scale, self.center = dataset, root, m, scale, center
        self.label_noise, self.prior_fraction, self.batch_size, self.seed = (
            label_noise,
            prior_fraction,
            batch_size,
            seed,
        )
        self.epoch = 0

    def setup(self, stage: str = "fit") -> None:
        if hasattr(self, "x"):
            return
        seed = run_seed() if self.seed is None else self.seed
        if self.dataset == "synthetic_logistic":
            recipe = SyntheticLogistic()
            x, y = recipe.sample(self.limit or 1000, seed_for(seed, "examples"))
            x_test, y_test = recipe.sample(10_000, seed_for(seed, "test examples"))
            self.classes, source = 2, f"drawn with seed {seed}"
        else:
            x, y, x_test, y_test, self.classes, source, *_ = read(self.dataset, Path(self.root) if self.root else None)
        check(x, y, self.classes)
        check(x_test, y_test, self.classes)
        if self.limit is not None and self.limit > len(y):
            raise BadData(f"m is {self.limit}: {self.dataset} has {len(y)} training examples")
        x, y = x[: self.limit], y[: self.limit].clone()
        if self.label_noise:
            generator = stream(seed, "labels")
            wrong = torch.rand(len(y), generator=generator) < self.label_noise
            y[wrong] = torch.randint(self.classes, (int(wrong.sum()),), generator=generator)
        if self.scale == "standardised":
            spread = x.std(0) + TINY_STD
            x, x_test = x / spread, x_test / spread
        if self.center != "none":
            mean = (x if self.center == "train" else x_test).mean(0)
            x, x_test = x - mean, x_test - mean
        k = round(self.prior_fraction * len(y))
        if self.prior_fraction and not 0 < k < len(y):
            raise BadData(f"prior_fraction is {self.prior_fraction}: of {len(y)} examples it leaves one part empty")
        self.x_prior, self.y_prior = x[:k], y[:k]
        self.x, self.y, self.x_test, self.y_test = x[k:], y[k:], x_test, y_test
        which = f"{self.dataset}, {source}, {k} to {len(y)}".encode()
        self.fingerprint = hashlib.sha256(which + self.y.numpy().tobytes()).hexdigest()[:16]

    @property
    def m(self) -> int:
        """Examples that the bound is on."""
        return len(self.y)

    @property
    def inputs(self) -> int:
        return self.x.shape[1]

    @property
    def preprocessing_uses_s(self) -> bool:
        """Whether what was done to the examples depends on the training set."""
        return self.center == "train" or self.scale == "standardised"

    def to_device(self, device: torch.device | str) -> None:
        for name in ("x", "y", "x_test", "y_test", "x_prior", "y_prior"):
            setattr(self, name, getattr(self, name).to(device))

    def train_dataloader(self) -> Batches:
        return Batches(self)

    def val_dataloader(self) -> list[int]:
        """One step: the whole of both parts is looked at."""
        return [0]

    test_dataloader = val_dataloader

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch = state_dict["epoch"]


class DigitsDataModule(Examples):
    """`Examples` of the digits, with its settings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("digits", **settings)


class MNISTDataModule(Examples):
    """`Examples` of MNIST under `root`, with its settings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("mnist", **settings)


class FashionMNISTDataModule(Examples):
    """`Examples` of Fashion-MNIST under `root`, with its settings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("fashion_mnist", **settings)


class CIFAR10DataModule(Examples):
    """`Examples` of CIFAR-10 under `root`, with its settings."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("cifar10", **settings)


class Batches:
    """One epoch, every example once, in an order that depends on the run's seed and the epoch only."""

    def __init__(self, data: Examples) -> None:
        self.data = data

    def __len__(self) -> int:
        return -(-self.data.m // self.data.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        data = self.data
        generator = torch.Generator().manual_seed(run_seed() * 1_000_003 + data.epoch)
        data.epoch += 1
        for rows in torch.randperm(data.m, generator=generator).to(data.x.device).split(data.batch_size):
            yield data.x[rows], data.y[rows]


def check(x: Tensor, y: Tensor, classes: int) -> None:
    """Raise `BadData` (a ValueError) for examples that no bound can be computed from."""
    if x.ndim != 2 or len(x) != len(y):
        raise BadData(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}: give [n, d] and [n]")
    if not len(y):
        raise BadData("there are no examples")
    if not x.isfinite().all():
        row = int((~x.isfinite()).any(1).nonzero()[0])
        raise BadData(f"example {row} holds NaN or infinity: mend or drop it")
    if int(y.min()) < 0 or int(y.max()) >= classes:
        row = int(((y < 0) | (y >= classes)).nonzero()[0])
        raise BadData(f"label {int(y[row])} of example {row} is outside 0..{classes - 1}")


def covariance(
    x: Float[Tensor, "n d"], budget: int = BUDGET, rows: Int64[Tensor, " k"] | None = None
) -> Float[Tensor, "d d"]:
    """Of the examples (of those in `rows`), in float64; copies of them are made in chunks of `budget` bytes."""
    rows = torch.arange(len(x), device=x.device) if rows is None else rows
    parts = rows.split(max(1, budget // ((x.element_size() + 8) * x.shape[1])))
    mean = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for part in parts:
        mean += x[part].double().sum(0)
    mean /= len(rows)
    out = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part in parts:
        # Centred before it is squared: a difference of two large squares would lose the digits.
        centred = x[part].double().sub_(mean)
        out.addmm_(centred.T, centred)
    return out / len(rows)


def within_covariance(x: Float[Tensor, "n d"], y: Int64[Tensor, " n"], budget: int = BUDGET) -> Float[Tensor, "d d"]:
    """The mean over classes, by their share, of the covariance within a class."""
    out = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for label in y.unique():
        own = (y == label).nonzero()[:, 0]
        out += covariance(x, budget, own) * (len(own) / len(y))
    return out


def class_covariances(
    x: Float[Tensor, "n d"], y: Int64[Tensor, " n"], budget: int = BUDGET
) -> dict[int, Float[Tensor, "d d"]]:
    """Of every class by itself.

    Raises:
        BadData (a ValueError): a class with fewer than 2 examples.
    """
    out = {}
    for label in y.unique().tolist():
        own = (y == label).nonzero()[:, 0]
        if len(own) < 2:
            raise BadData(f"class {label} has {len(own)} example: its covariance needs at least 2")
        out[label] = covariance(x, budget, own)
    return out
