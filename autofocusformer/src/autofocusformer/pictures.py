"""Tokens, clusters and importance drawn over images: for the figures of a tier and for `visualise`."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from matplotlib.axes import Axes
from shared.figures import COLOURS
from torch import Tensor

from autofocusformer.clustering import balanced_clusters
from autofocusformer.positions import canvas_positions
from autofocusformer.sampling import Mode
from autofocusformer.sampling_limited import importance_of, kept_positions

RED = "#d00000"
# Neighbouring clusters get different colours: places along the curve cycle through these.
TILES = [COLOURS[name] for name in ("ours", "orange", "green", "purple", "ours_variant", "vermillion", "baseline_2")]


def show(axes: Axes, image: UInt8[np.ndarray, "h w 3"], title: str = "") -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=8)


def faded(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Lighter, nearer to grey, and in 32 levels: dots stand out on it, and the file stays small."""
    grey = image.astype(np.float64).mean(-1, keepdims=True)
    light = 0.4 * 255 + 0.6 * (0.6 * image + 0.4 * grey)
    return (light.round().astype(np.uint8) // 8) * 8 + 4


def tokens_over(axes: Axes, positions: Int64[Tensor, "n 2"], dot: float, colour: str = RED) -> None:
    """A dot in the middle of each token's 4 x 4 pixels."""
    x, y = (positions.cpu().numpy().T * 4 + 1.5).tolist()
    axes.plot(x, y, ".", color=colour, markersize=dot, markeredgewidth=0)


def kept_tokens(
    image: UInt8[np.ndarray, "h w 3"], labels: UInt8[np.ndarray, "h w"], mode: Mode, seed: int = 0
) -> list[Int64[Tensor, "n 2"]]:
    """Positions kept after each of the three samplings at 1/4, by the training-free importance."""
    generator = torch.Generator().manual_seed(seed)
    return [level[0] for level in kept_positions(importance_of(image, labels, mode), mode, 0.25, 4.0, generator)]


def cluster_map(
    positions: Int64[Tensor, "n 2"], canvas: tuple[int, int], size: int = 8, curve: str = "snake"
) -> np.ndarray:
    """Cluster of each canvas cell that holds a point; NaN where there is none."""
    found = balanced_clusters(positions[None], size, canvas, curve)  # type: ignore[arg-type]
    ordered = positions[found.order[0]].numpy()
    out = np.full(canvas, np.nan)
    out[ordered[:, 1], ordered[:, 0]] = np.arange(len(ordered)) // size
    return out


def tiles(axes: Axes, clusters: np.ndarray, title: str) -> None:
    """Clusters as tiles in the colours of `TILES`, cells without a point white."""
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(colour) for colour in TILES])
    picture = np.ones((*clusters.shape, 3))
    there = ~np.isnan(clusters)
    picture[there] = palette[clusters[there].astype(int) % len(palette)]
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=8)


def full_canvas(h: int, w: int) -> Int64[Tensor, "n 2"]:
    return canvas_positions(h, w)


def colours_of(classes: int) -> UInt8[np.ndarray, "classes 3"]:
    """A colour for each class, evenly spread over hues and two lightnesses."""
    from colorsys import hls_to_rgb

    rows = [hls_to_rgb(i * 0.618 % 1, 0.42 + 0.22 * (i % 2), 0.65) for i in range(classes)]
    return (np.array(rows) * 255).round().astype(np.uint8)


def coloured(labels: np.ndarray, classes: int) -> UInt8[np.ndarray, "h w 3"]:
    """A label map in colours; ignored pixels are black."""
    palette = np.concatenate([colours_of(classes), np.zeros((256 - classes, 3), np.uint8)])
    return palette[np.asarray(labels)]
