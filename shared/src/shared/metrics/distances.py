"""Distances between two sets of features, and the inception score (torchmetrics' forms, fed with features)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from shared.errors import UserError

M = TypeVar("M", bound=Metric)


def _quietly(make: Callable[[], M]) -> M:
    """Without torchmetrics' warning that all features are kept."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric .* will save all extracted features")
        metric = make()
    metric.set_dtype(torch.float64)
    return metric


class _Given(nn.Module):
    """Stands where torchmetrics expects a network: what is passed are features already."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        return features


def _check(real: Tensor, fake: Tensor, least: int) -> None:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise UserError(
            f"features of shapes {tuple(real.shape)} and {tuple(fake.shape)}: give [samples, features] of one extractor"
        )
    if min(len(real), len(fake)) < least:
        raise UserError(f"{len(real)} real and {len(fake)} generated samples: at least {least} of each are needed")
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise UserError("features hold NaN or infinity: the samples, or the extractor, have diverged")


def frechet_distance(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"]) -> float:
    """|mu - mu'|^2 + tr(C + C' - 2 (C C')^1/2) of two Gaussians fitted to the features, in float64.

    With features of Inception this is the FID (Heusel et al. 2017); with any others it is not comparable to one.
    Finite for any number of samples: C C' has the eigenvalues of C^1/2 C' C^1/2, which is symmetric and has none below
    zero but for rounding, where a general decomposition of C C' gives complex ones as soon as C is singular.

    Raises:
        UserError: fewer than 2 samples, features of unequal width or not finite.
    """
    _check(real, fake, 2)
    (mean, cov), (other_mean, other_cov) = ((x.mean(0), _covariance(x)) for x in (real.double(), fake.double()))
    values, vectors = torch.linalg.eigh(cov)
    root = vectors * values.clamp(min=0).sqrt()  # C^1/2 up to a rotation, which changes no eigenvalue below
    cross = torch.linalg.eigvalsh(root.T @ other_cov @ root).clamp(min=0).sqrt().sum()
    return float((mean - other_mean).square().sum() + cov.trace() + other_cov.trace() - 2 * cross)


def _covariance(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Unbiased; a matrix for a single feature too."""
    return torch.atleast_2d(x.T.cov())


def kernel_distance(real: Float[Tensor, "n d"], fake: Float[Tensor, "n d"]) -> float:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3 over all samples: KID (Binkowski et al. 2018).

    Sets of unequal size are cut to the smaller.

    Raises:
        UserError: fewer than 2 samples, features of unequal width or not finite.
    """
    _check(real, fake, 2)
    n = min(len(real), len(fake))
    metric = _quietly(lambda: KernelInceptionDistance(feature=_Given(real.shape[1]), subsets=1, subset_size=n))
    metric.update(real[:n].double(), real=True)
    metric.update(fake[:n].double(), real=False)
    return float(metric.compute()[0])


def inception_score(logits: Float[Tensor, "n classes"], splits: int = 10) -> tuple[float, float]:
    """(mean, standard deviation over two or more splits) of exp E KL(p(y|x) || p(y)) (Salimans et al. 2016).

    Raises:
        UserError: fewer samples than splits.
    """
    if not 2 <= splits <= len(logits):
        raise UserError(f"{len(logits)} samples in {splits} splits: at least two, and one sample in each, are needed")
    metric = _quietly(lambda: InceptionScore(feature=_Given(logits.shape[1]), splits=splits))
    metric.update(logits.double())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # it shuffles
        mean, deviation = metric.compute()
    return float(mean), float(deviation)
