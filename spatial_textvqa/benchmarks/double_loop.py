"""Relations by a Python loop over pairs, with arc sines: the form in which the paper's code builds its graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = Sequence[float]


def iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union > 0 else 0.0


def contains(a: Box, b: Box) -> bool:
    return a[0] < b[0] and a[2] > b[2] and a[1] < b[1] and a[3] > b[3]


def sectors(dx: float, dy: float, distance: float) -> tuple[int, int]:
    """Labels of the pair and of its mirror."""
    if distance == 0:
        return 4, 4
    s, k = dy / distance, dx / distance
    if k >= 0:
        angle = math.asin(s) if s >= 0 else math.asin(s) + 2 * math.pi
    else:
        angle = math.acos(k) if s >= 0 else 2 * math.pi - math.acos(k)
    mirror = angle + math.pi if s >= 0 else angle - math.pi
    return math.ceil(angle / (math.pi / 4)) + 3, math.ceil(mirror / (math.pi / 4)) + 3


def relations(boxes: Sequence[Box], thr: float = 0.5) -> list[list[int]]:
    """The official mode; a row of zeros is padding."""
    n = len(boxes)
    out = [[0] * n for _ in range(n)]
    for i, a in enumerate(boxes):
        if sum(a) == 0:
            continue
        out[i][i] = 12
        for j in range(i + 1, n):
            b = boxes[j]
            if sum(b) == 0:
                continue
            if contains(a, b):
                out[i][j], out[j][i] = 1, 2
            elif contains(b, a):
                out[i][j], out[j][i] = 2, 1
            elif iou(a, b) >= 0.5:
                out[i][j] = out[j][i] = 3
            else:
                dx = (a[0] + a[2]) / 2 - (b[0] + b[2]) / 2
                dy = (a[1] + a[3]) / 2 - (b[1] + b[3]) / 2
                distance = math.sqrt(dx * dx + dy * dy)
                if distance < thr * math.sqrt(2.0):
                    out[i][j], out[j][i] = sectors(dx, dy, distance)
    return out
