"""Where the values of a field stand in a picture: of any field, and the pixels of maps and globes of the sphere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Kind = Literal["image", "circle", "sphere", "plane", "space", "volume", "mesh", "map", "globe"]
ROOT2 = 2**0.5
VIEWS = ((0.0, 20.0), (180.0, -20.0))  # (longitude, latitude) in degrees at the centre of a globe


@dataclass(frozen=True)
class Canvas:
    """Where the values of a field stand in a picture.

    Args:
        kind: `image` (shape rows, columns), `circle`, `sphere` (dots on a map), `plane` and `space` (dots), `volume`
            (side^3 values, drawn as a surface), `mesh` (at its vertices), `map` and `globe` (pixels of one, `inside`
            says which).
        coords: of the values [n, c].
        shape: of an image.
        inside: pixels of the picture that a value belongs to, rows from the top.
        positive_inside: of a volume: occupancy, not a signed distance.
        faces: of a mesh: its triangles.
    """

    kind: Kind
    coords: Float[Tensor, "n c"]
    shape: tuple[int, int] | None = None
    inside: Bool[np.ndarray, "h w"] | None = field(default=None, repr=False)
    positive_inside: bool = False
    faces: Int[np.ndarray, "f 3"] | None = field(default=None, repr=False)


def mollweide_pixels(height: int = 96) -> Canvas:
    """The pixels of a map of equal areas, centred on longitude 0, as points of the sphere."""
    y = (1 - (2 * np.arange(height) + 1) / height) * ROOT2
    x = ((2 * np.arange(2 * height) + 1) / (2 * height) - 1) * 2 * ROOT2
    x, y = np.meshgrid(x, y)
    theta = np.arcsin(y / ROOT2)
    longitude = np.pi * x / (2 * ROOT2 * np.cos(theta))
    inside = np.abs(longitude) <= np.pi
    latitude = np.arcsin((2 * theta + np.sin(2 * theta)) / np.pi)
    return Canvas("map", unit(longitude[inside], latitude[inside]), inside=inside)


def globe_pixels(size: int = 128, view: tuple[float, float] = VIEWS[0]) -> Canvas:
    """The pixels of the half of the sphere that is seen from afar above `view` (degrees), north up."""
    edge = (2 * np.arange(size) + 1) / size - 1
    x, y = np.meshgrid(edge, -edge)
    inside = x * x + y * y < 1
    across, up = x[inside], y[inside]
    towards = np.sqrt(1 - across**2 - up**2)
    east, north, out = _frame(view)
    points = across[:, None] * east + up[:, None] * north + towards[:, None] * out
    return Canvas("globe", torch.from_numpy(points).float(), inside=inside)


def unit(longitude: np.ndarray, latitude: np.ndarray) -> Float[Tensor, "n 3"]:
    points = [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
    return torch.from_numpy(np.stack(points, -1)).float()


def _frame(view: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """East, north and outward at a place of the sphere."""
    a, b = np.deg2rad(view)
    out = np.array([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)])
    east = np.array([-np.sin(a), np.cos(a), 0.0])
    return east, np.cross(out, east), out


def mollweide(points: Float[np.ndarray, "n 3"]) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) on the map, x in +-2 sqrt 2; 2 theta + sin 2 theta = pi sin(latitude), by Newton's method."""
    sine = np.clip(points[:, 2] / np.linalg.norm(points, axis=1), -1, 1)
    theta = np.arcsin(sine)
    for _ in range(50):
        slope = np.maximum(2 + 2 * np.cos(2 * theta), 1e-9)
        theta = np.clip(theta - (2 * theta + np.sin(2 * theta) - np.pi * sine) / slope, -np.pi / 2, np.pi / 2)
    longitude = np.arctan2(points[:, 1], points[:, 0])
    return 2 * ROOT2 / np.pi * longitude * np.cos(theta), ROOT2 * np.sin(theta)
