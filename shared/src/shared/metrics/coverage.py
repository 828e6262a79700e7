"""How much of the data samples cover, and how many of them are like data: nearest neighbours, clusters, classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from shared.errors import UserError

CHUNK = 2000  # rows of a distance matrix that are held at a time


@dataclass(frozen=True)
class Coverage:
    """Args:
    precision: share of the samples within the reach of a real point (Kynkaanniemi et al. 2019).
    recall: share of the real points within the reach of a sample.
    density: real points that reach a sample, over k (Naeem et al. 2020); may exceed 1.
    coverage: share of the real points that have a sample within their reach.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def nearest_neighbours(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], k: int = 3) -> Coverage:
    """The reach of a point is the distance to the k-th nearest other point of its own set.

    Raises:
        UserError: k is not below the number of points of either set.
    """
    if not 1 <= k < min(len(real), len(fake)):
        raise UserError(f"k is {k} for {len(real)} real and {len(fake)} generated samples: 1 <= k < both is needed")
    real, fake = real.double(), fake.double()
    real_reach, fake_reach = _reach(real, k), _reach(fake, k)
    precise, reached, recalled, covered = 0, 0, 0, 0
    for rows in torch.arange(len(real)).split(CHUNK):
        distance = _distance(real[rows], fake)
        recalled += int((distance <= fake_reach).any(1).sum())
        covered += int((distance.amin(1) <= real_reach[rows]).sum())
    for rows in torch.arange(len(fake)).split(CHUNK):
        within = _distance(fake[rows], real) <= real_reach
        precise += int(within.any(1).sum())
        reached += int(within.sum())
    return Coverage(precise / len(fake), recalled / len(real), reached / (k * len(fake)), covered / len(real))


def _distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Of differences: |a|^2 + |b|^2 - 2ab rounds points off the edge of a reach, which belongs to it."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _reach(points: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    parts = [
        _distance(points[rows], points).kthvalue(k + 1, dim=1).values  # the nearest is the point itself
        for rows in torch.arange(len(points)).split(CHUNK)
    ]
    return torch.cat(parts)


@dataclass(frozen=True)
class Curve:
    """Precision and recall for distributions (Sajjadi et al. 2018): the curve, and its F8 (recall) and F1/8."""

    precision: Float[np.ndarray, " angles"]
    recall: Float[np.ndarray, " angles"]
    f8: float
    f1_8: float


def precision_recall_curve(
    real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], clusters: int = 20, runs: int = 10, angles: int = 1001
) -> Curve:
    """PRD of the histograms over k-means clusters of both sets together, averaged over runs of k-means.

    Of the larger set as many samples are used as the smaller has.

    Raises:
        UserError: fewer samples than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    n = min(len(real), len(fake))
    if n < clusters:
        raise UserError(f"{n} samples in {clusters} clusters: at least one for each is needed")
    both = torch.cat([real[:n], fake[:n]]).numpy()
    curves = []
    for run in range(runs):
        labels = MiniBatchKMeans(clusters, n_init=10, random_state=run).fit_predict(both)
        p, q = (np.bincount(part, minlength=clusters) / n for part in (labels[:n], labels[n:]))
        curves.append(prd(p, q, angles))
    precision, recall = np.mean(curves, axis=0)
    return Curve(precision, recall, f_beta(precision, recall, 8.0), f_beta(precision, recall, 1 / 8))


def prd(
    real: Float[np.ndarray, " bins"], fake: Float[np.ndarray, " bins"], angles: int = 1001
) -> tuple[Float[np.ndarray, " angles"], Float[np.ndarray, " angles"]]:
    """(precision, recall) over slopes lambda = tan of equal angles: sum min(lambda p, q), sum min(p, q / lambda)."""
    slopes = np.tan(np.linspace(1e-6, np.pi / 2 - 1e-6, angles))
    precision = np.minimum(slopes[:, None] * real, fake).sum(1)
    return np.clip(precision, 0, 1), np.clip(precision / slopes, 0, 1)


def f_beta(precision: np.ndarray, recall: np.ndarray, beta: float) -> float:
    """The largest F_beta on the curve."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
    return float(np.nan_to_num(values).max())


def modes_and_kl(labels: Int[Tensor, " n"], modes: int) -> tuple[int, float]:
    """(modes with at least one sample, KL divergence of the samples' histogram from the uniform one, in nats)."""
    share = torch.bincount(labels, minlength=modes).double() / len(labels)
    present = share[share > 0]
    return len(present), float((present * (present * modes).log()).sum())


def class_shares(labels: Int[Tensor, " n"], classes: Sequence[int]) -> list[float]:
    """Share of the samples in each of `classes`."""
    return [float((labels == label).double().mean()) for label in classes]
