"""What sampling alone allows: segmentation by true labels of the kept tokens (training-free, the figure of the claim).

label of a token = majority of its 4 x 4 pixels -> the real sampling rule at S = 2, 4, 8 -> every pixel takes the label
of the nearest kept token -> IoU of small and of large classes, and the share of object tokens that were kept.

Nothing is learned: importance is the rank of the mean gradient (`adaptive`), or of the label edges (`oracle`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from autofocusformer.metrics import Coverage, SegmentationScore
from autofocusformer.sampling import Mode, keep
from autofocusformer.tokens_of_images import gradient_magnitude, label_edges, rank, token_labels

STRIDES = (2, 4, 8)
MODES: tuple[Mode, ...] = ("adaptive", "oracle", "grid", "random")
IGNORE = 255


def kept_positions(
    importance: np.ndarray, mode: Mode, rate: float, alpha: float, generator: torch.Generator
) -> list[Int64[Tensor, "1 n 2"]]:
    """Positions (x, y) kept after each of the three samplings of a full canvas; `importance` is [h, w]."""
    h, w = importance.shape
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    positions = torch.stack([x, y], -1).view(1, -1, 2)
    values = torch.from_numpy(importance).float().view(1, -1)
    out = []
    for stride in STRIDES:
        rows = keep(values, positions, stride, (h, w), rate, alpha, mode, generator)
        positions = positions.gather(1, rows[..., None].expand(-1, -1, 2))
        values = values.gather(1, rows)
        out.append(positions)
    return out


def nearest_label(
    positions: Int64[Tensor, "1 n 2"], labels: np.ndarray, shape: tuple[int, int]
) -> Int64[np.ndarray, "h4 w4"]:
    """Every pixel's label: that of the nearest kept token, whose place is the middle of its 4 x 4 pixels."""
    from scipy.spatial import cKDTree

    x, y = positions[0].numpy().T
    own = labels[y, x]
    votes = own != IGNORE  # a token that saw only ignored pixels says nothing
    places = np.stack([x, y], 1)[votes] * 4 + 1.5
    if not votes.any():
        return np.full(shape, IGNORE, labels.dtype)
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    nearest = cKDTree(places).query(np.stack([columns.ravel(), rows.ravel()], 1))[1]
    return own[votes][nearest].reshape(shape)


def importance_of(image: UInt8[np.ndarray, "h4 w4 3"], labels: UInt8[np.ndarray, "h4 w4"], mode: Mode) -> np.ndarray:
    """The training-free importance of a mode: rank of gradients, or for the oracle of label edges."""
    return rank(label_edges(labels) if mode == "oracle" else gradient_magnitude(image))


def measure(
    images: Sequence[tuple[np.ndarray, np.ndarray]],
    classes: int,
    small: tuple[int, ...],
    mode: Mode,
    rate: float = 0.25,
    alpha: float = 4.0,
    seed: int = 0,
) -> dict[str, float]:
    """IoU of small and large classes, coverage and budget at every level.

    Args:
        images: (RGB image, labels) pairs of any sizes.
        small: the classes of small objects.
        mode, rate, alpha: of the sampling rule.
        seed: of `random`.

    Returns:
        `small/L`, `large/L`, `coverage/L`, `budget/L` for L = 2, 3, 4: the stage whose tokens these are;
        `objects/pixels`, `objects/tokens`: share of labelled pixels, and of the canvas's tokens, of small classes.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = [SegmentationScore(classes, small) for _ in STRIDES]
    coverage = Coverage(len(STRIDES))
    pixels = np.zeros(2, dtype=np.int64)  # of small classes, labelled
    there = np.zeros(2, dtype=np.int64)  # tokens of small classes, all
    for image, labels in images:
        tokens = token_labels(labels, classes)
        kept = kept_positions(importance_of(image, labels, mode), mode, rate, alpha, generator)
        objects = np.isin(tokens, small)
        pixels += np.isin(labels, small).sum(), (labels != IGNORE).sum()
        there += objects.sum(), objects.size
        coverage.update(torch.from_numpy(objects)[None], kept)
        for score, positions in zip(scores, kept):
            prediction = nearest_label(positions, tokens, labels.shape)
            score.update(torch.from_numpy(prediction)[None], torch.from_numpy(labels.astype(np.int64))[None])
    out = {name: value.item() for name, value in coverage.compute().items()}
    out |= {"objects/pixels": float(pixels[0] / pixels[1]), "objects/tokens": float(there[0] / there[1])}
    for level, score in enumerate(scores, start=2):
        found = score.compute()
        out |= {f"small/{level}": found["miou_small"].item(), f"large/{level}": found["miou_large"].item()}
    return out
