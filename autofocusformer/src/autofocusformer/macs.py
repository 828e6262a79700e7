"""Multiply-adds of a forward pass, counted from the settings alone, in both usual ways.

module-only: convolutions and every Linear (queries, keys, values, projections, MLPs, importance, merging, head), with
the two layers on relative positions counted once on the table of all offsets; no biases, norms or activations. That is
what the published figures count. all: the attention and the merging themselves as well, on which they are silent.
"""

from __future__ import annotations

from typing import NamedTuple

from autofocusformer.clustering import Canvas
from autofocusformer.positions import FEATURES
from autofocusformer.sampling import budget
from autofocusformer.variants import STAGES, STRIDES, BackboneConfig

INNER = 4  # channels of the merging's weights


class Macs(NamedTuple):
    """Multiply-adds of one image: of the modules (what papers publish), and with attention and merging."""

    modules: int
    all: int


def points_by_stage(config: BackboneConfig, canvas: Canvas) -> list[int]:
    """Number of points at the start of each stage."""
    points = [canvas[0] * canvas[1]]
    for stride in STRIDES:
        points.append(budget(points[-1], canvas, stride, config.rate, config.sampling).kept)
    return points


def neighbours(config: BackboneConfig, stage: int, n: int) -> int:
    """M, the neighbours of a point: whole clusters, the blank slots of the last one among them."""
    return config.clusters_seen(stage, n) * config.cluster[stage] or n


def count_macs(config: BackboneConfig, height: int, width: int, classes: int | None = None) -> Macs:
    """Of one image of height x width pixels; with `classes`, the classifier's head is counted too."""
    h, w = -(-height // 4), -(-width // 4)
    points, offsets = points_by_stage(config, (h, w)), (2 * h - 1) * (2 * w - 1)
    first = config.widths[0]
    modules = 4 * h * w * 9 * config.in_channels * (first // 2) + h * w * 9 * (first // 2) * first
    unseen = 0
    for i in range(STAGES):
        n, c, seen = points[i], config.widths[i], neighbours(config, i, points[i])
        block = n * (4 * c * c + 2 * c * config.hidden(i)) + offsets * FEATURES * config.heads[i]
        modules += config.depths[i] * block
        unseen += config.depths[i] * 2 * n * seen * c  # q.k and a.v
        if i + 1 < STAGES:
            kept = points[i + 1]
            modules += n * c + offsets * FEATURES * INNER + kept * INNER * c * config.widths[i + 1]
            unseen += INNER * kept * seen * c
    if classes is not None:
        modules += config.widths[-1] * classes
    return Macs(modules, modules + unseen)
