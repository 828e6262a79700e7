"""Balanced clustering of points by a space-filling curve (AutoFocusFormer, "balanced clustering").

positions -> anchors on a coarse grid -> order of the anchors along a curve -> order of the points -> equal chunks.
Every cluster but the last has exactly `size` members; nothing here is learned, nothing is remembered between calls.

Positions are integers (x, y) on a canvas of h rows and w columns; a canvas is the pair (h, w).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from shared.errors import UserError
from torch import Tensor

from autofocusformer.curves import hilbert_index, peano_index

Canvas = tuple[int, int]
Curve = Literal["snake", "hilbert", "peano", "hilbert-direct", "peano-direct", "scan-line"]

# Ratios within 2^-30 of one another tie: what is equal in geometry must not differ by the rounding of a division.
RATIO_STEPS = 2**30


@dataclass(frozen=True)
class Clusters:
    """Equal clusters of one stage: cluster j is the rows [j*size, (j+1)*size) of the points put in `order`.

    Attributes:
        order: row of the input that comes at each place.
        centres: mean (x, y) of each cluster's members, float64.
        size: members of a cluster (m); the last cluster alone may have fewer.
        count: number of clusters (k = ceil(n / m)).
    """

    order: Int[Tensor, "batch n"]
    centres: Float[Tensor, "batch count 2"]
    size: int
    count: int


class Anchors(NamedTuple):
    """A coarse grid of rows x columns, walked along a curve.

    Attributes:
        rank: place of each cell along the curve.
        centres: (x, y) of the cells' centres in the curve's order, float64.
    """

    rank: Int[Tensor, "rows columns"]
    centres: Float[Tensor, "cells 2"]


def anchor_grid(canvas: Canvas, count: int, curve: Curve = "snake", device: torch.device | None = None) -> Anchors:
    """About `count` anchors at equal distances L = sqrt(h w / k) in both directions.

    Hilbert's and Peano's curves need a number of rows that is a power of B (2 or 3), and columns in whole B-ths of it.
    """
    h, w = canvas
    length = math.sqrt(h * w / count)
    rows, columns = max(1, round(h / length)), max(1, round(w / length))
    if curve in ("hilbert", "peano"):
        base = 2 if curve == "hilbert" else 3
        rows = max(base, base ** round(math.log(rows, base)))
        columns = max(1, round(base * w / h)) * rows // base
    r, q = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )  # row and column of each cell
    if curve == "hilbert":
        along = hilbert_index(q, r, rows)
    elif curve == "peano":
        along = peano_index(q, r, rows)
    else:  # boustrophedon: even rows from left to right, odd rows from right to left
        along = r * columns + torch.where(r % 2 == 0, q, columns - 1 - q)
    order = along.flatten().argsort()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=device)
    cell_h, cell_w = h / rows, w / columns
    x = q.flatten().double() * cell_w + (cell_w / 2 - 0.5)
    y = r.flatten().double() * cell_h + (cell_h / 2 - 0.5)
    return Anchors(rank.view(rows, columns), torch.stack([x, y], -1)[order])


def _shifted(along: Float[Tensor, " cells"], step: int) -> Float[Tensor, " cells"]:
    """Each anchor's coordinate one step back or on along the curve; the ends are extrapolated linearly."""
    if step < 0:
        return torch.cat([2 * along[:1] - along[1:2], along[:-1]])
    return torch.cat([along[1:], 2 * along[-1:] - along[-2:-1]])


def _anchored_key(positions: Int[Tensor, "batch n 2"], canvas: Canvas, anchors: Anchors) -> Int[Tensor, "batch n"]:
    """The pair (i, r) as one integer: rank i of the point's cell, then r = |p - prev(i)|^2 / |p - next(i)|^2.

    r is ordered as r / (1 + r), which lies in [0, 1).
    """
    rows, columns = anchors.rank.shape
    x, y = positions.unbind(-1)
    rank = anchors.rank[y * rows // canvas[0], x * columns // canvas[1]]
    ax, ay = anchors.centres.T
    squared = []  # distances from prev(i) and next(i), ends extrapolated
    for along_x, along_y in ((_shifted(ax, -1), _shifted(ay, -1)), (_shifted(ax, 1), _shifted(ay, 1))):
        squared.append((x - along_x[rank]).square_().add_((y - along_y[rank]).square_()))
    from_previous, from_next = squared[0], squared[1].add_(1e-5)
    progress = from_previous / (from_previous + from_next)
    return rank * (2 * RATIO_STEPS) + (progress * RATIO_STEPS).round().long()


def curve_key(
    positions: Int[Tensor, "batch n 2"], canvas: Canvas, count: int, curve: Curve = "snake"
) -> Int[Tensor, "batch n"]:
    """Where each point lies along the curve: integers to sort by, equal ones in the order of their rows.

    `snake`, `hilbert`, `peano` order anchors, and the points of one anchor by how far they are from the anchor before
    to the anchor after it. `*-direct` orders the points themselves on the curve; `scan-line` by (y, x). A single
    anchor has none before nor after it: its points go by (y, +-x), to and fro.
    """
    h, w = canvas
    x, y = positions.unbind(-1)
    if curve == "scan-line":
        return y * w + x
    if curve == "hilbert-direct":
        return hilbert_index(x, y, 1 << max(0, h - 1).bit_length())
    if curve == "peano-direct":
        side = 1
        while side < h:
            side *= 3
        return peano_index(x, y, side)
    anchors = anchor_grid(canvas, count, curve, positions.device)
    if len(anchors.centres) == 1:
        return y * w + torch.where(y % 2 == 0, x, w - 1 - x)
    return _anchored_key(positions, canvas, anchors)


def balanced_clusters(
    positions: Int[Tensor, "batch n 2"], size: int, canvas: Canvas, curve: Curve = "snake"
) -> Clusters:
    """Cuts the points of each image, in their order along the curve, into clusters of `size`.

    Args:
        positions: integer (x, y), 0 <= x < w and 0 <= y < h.
        size: members of a cluster.
        canvas: (h, w).
        curve: how points are ordered; `snake` is the paper's.

    Raises:
        UserError: an unknown curve, no points, or a size below 1.
    """
    if curve not in get_args(Curve):
        raise UserError(f"unknown curve {curve!r}: choose among {', '.join(get_args(Curve))}")
    n = positions.shape[1]
    if size < 1 or n < 1:
        raise UserError(f"{n} points cannot be cut into clusters of {size}: both must be at least 1")
    count = -(-n // size)
    order = curve_key(positions, canvas, count, curve).argsort(dim=-1, stable=True)
    ordered = positions.gather(1, order[..., None].expand(-1, -1, 2))
    return Clusters(order, cluster_centres(ordered, size), size, count)


def cluster_centres(ordered: Int[Tensor, "batch n 2"], size: int) -> Float[Tensor, "batch count 2"]:
    """Mean of each cluster's real members; `ordered` are the positions in the clusters' order."""
    batch, n, _ = ordered.shape
    count = -(-n // size)
    padded = torch.nn.functional.pad(ordered, (0, 0, 0, count * size - n))
    members = torch.full((count, 1), size, device=ordered.device, dtype=torch.float64)
    members[-1] = n - (count - 1) * size
    return padded.view(batch, count, size, 2).sum(2).double() / members


def cluster_of_point(clusters: Clusters) -> Int[Tensor, "batch n"]:
    """Index of the cluster that each point of the input (before reordering) belongs to."""
    order = clusters.order
    place = torch.arange(order.shape[1], device=order.device) // clusters.size
    return torch.empty_like(order).scatter_(1, order, place.expand_as(order))


def kmeans_clusters(
    positions: Int[Tensor, "n 2"], count: int, iterations: int = 10, seed: int = 0
) -> Int[Tensor, " n"]:
    """Lloyd's k-means, for comparison: `count` clusters of one image's points, whatever their sizes."""
    from sklearn.cluster import KMeans  # what it takes a second to import, only a comparison needs

    fit = KMeans(count, init="random", n_init=1, max_iter=iterations, tol=0.0, algorithm="lloyd", random_state=seed)
    return torch.from_numpy(fit.fit_predict(positions.double().cpu().numpy())).long()


class Balance(NamedTuple):
    """How good a clustering is: sizes of its smallest and largest cluster, members' mean distance to their centre."""

    smallest: int
    largest: int
    distance: float


def balance(positions: Int[Tensor, "n 2"], label: Int[Tensor, " n"], count: int) -> Balance:
    """Sizes, and the mean Euclidean distance (canvas cells) of a point from the mean of its cluster."""
    sizes = torch.bincount(label, minlength=count)
    centres = torch.zeros(count, 2, dtype=torch.float64, device=positions.device)
    centres.index_add_(0, label, positions.double())
    centres /= sizes.clamp(min=1)[:, None]
    distance = (positions.double() - centres[label]).norm(dim=-1).mean()
    return Balance(int(sizes.min()), int(sizes.max()), float(distance))
