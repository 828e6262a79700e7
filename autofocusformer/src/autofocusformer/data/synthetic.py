"""Scenes of imbalanced content density: large smooth regions, and a few clumps of small objects (no files).

`scene(seed, index, config)` is a function of its arguments alone. Labels: 0..2 are the regions (top, bottom, band), 3
and up the objects, told apart by colour (easy: one pixel says it) or by shape (hard: it takes the object whole).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from shared.errors import UserError

REGIONS = 3
SHAPES = ("disk", "ring", "square", "frame", "plus", "cross")
REGION_COLOURS = np.array([[0.55, 0.70, 0.85], [0.45, 0.50, 0.38], [0.62, 0.58, 0.55]])
OBJECT_COLOURS = np.array(
    [
        [0.85, 0.20, 0.20],
        [0.15, 0.25, 0.75],
        [0.95, 0.80, 0.20],
        [0.10, 0.55, 0.25],
        [0.55, 0.15, 0.60],
        [0.10, 0.10, 0.10],
    ]
)


@dataclass(frozen=True)
class SceneConfig:
    """What scenes look like.

    Args:
        height, width: pixels.
        regions: fewest and most large regions (2 or 3).
        clumps: fewest and most clumps.
        objects: fewest and most objects of a scene, shared among its clumps.
        sizes: least and largest size of an object, as a fraction of the height.
        object_classes: 3 to 6.
        coding: what makes an object's class: its `colour` or its `shape`.
        texture: amplitude of a fine pattern over the regions, 0 to 1: 0 is smooth.
        noise: standard deviation of the pixels' noise, in [0, 1] units.
        share: objects are added while they cover less than this part of the pixels.

    Raises:
        UserError: a setting out of its range.
    """

    height: int = 128
    width: int = 128
    regions: tuple[int, int] = (2, 3)
    clumps: tuple[int, int] = (1, 3)
    objects: tuple[int, int] = (8, 40)
    sizes: tuple[float, float] = (0.04, 0.10)
    object_classes: int = 4
    coding: Literal["colour", "shape"] = "colour"
    texture: float = 0.0
    noise: float = 0.02
    share: float = 0.10

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 16:
            raise UserError(f"a scene of {self.height} x {self.width} pixels: 16 is the least")
        for name in ("regions", "clumps", "objects", "sizes"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UserError(f"{name} is {low}, {high}: give the least and the largest, both above 0")
        if self.regions[1] > REGIONS or self.regions[0] < 2:
            raise UserError(f"regions is {self.regions}: there are 2 or 3")
        if self.sizes[1] > 0.5:
            raise UserError(f"sizes reach {self.sizes[1]}: an object is at most half as high as the scene")
        if not 3 <= self.object_classes <= len(SHAPES):
            raise UserError(f"object_classes is {self.object_classes}: choose 3 to {len(SHAPES)}")
        if self.coding not in ("colour", "shape"):
            raise UserError(f"coding is {self.coding!r}: choose colour or shape")
        if not 0 <= self.texture <= 1 or self.noise < 0 or not 0 < self.share <= 1:
            raise UserError("texture lies in [0, 1], noise is not negative, share lies in (0, 1]")

    @property
    def classes(self) -> int:
        return REGIONS + self.object_classes

    @property
    def small(self) -> tuple[int, ...]:
        """The objects' classes."""
        return tuple(range(REGIONS, self.classes))


def scene(seed: int, index: int, config: SceneConfig) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """The scene number `index` of `seed`: (RGB image, label of every pixel)."""
    draw = np.random.default_rng([seed, index])
    h, w = config.height, config.width
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    labels = region_map(draw, x, y, config)
    image = np.zeros((h, w, 3))
    for region in range(REGIONS):
        base = REGION_COLOURS[region] + draw.uniform(-0.06, 0.06, 3)
        slope_x, slope_y = draw.uniform(-0.08, 0.08, 2)
        shade = slope_x * (x / w - 0.5) + slope_y * (y / h - 0.5)
        if config.texture:
            shade = shade + config.texture * pattern(draw, x, y)
        image += (labels == region)[..., None] * (base + shade[..., None])
    add_objects(draw, image, labels, x, y, config)
    image += draw.normal(0, config.noise, image.shape)
    return (image.clip(0, 1) * 255).round().astype(np.uint8), labels


def region_map(
    draw: np.random.Generator, x: np.ndarray, y: np.ndarray, config: SceneConfig
) -> UInt8[np.ndarray, "h w"]:
    """Top and bottom of a slanted horizon, and sometimes a band below it."""
    h, w = x.shape
    horizon = h * draw.uniform(0.3, 0.6) + draw.uniform(-0.3, 0.3) * (x - w / 2)
    labels = (y > horizon).astype(np.uint8)
    if draw.integers(config.regions[0], config.regions[1] + 1) == 3:
        top = horizon + h * draw.uniform(0.1, 0.25) + draw.uniform(-0.2, 0.2) * (x - w / 2)
        labels[(y > top) & (y < top + h * draw.uniform(0.2, 0.35))] = 2
    return labels


def pattern(draw: np.random.Generator, x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, "h w"]:
    """Waves of 3 to 8 pixels in random directions, of amplitude about 0.3 in all."""
    out = np.zeros_like(x)
    for _ in range(4):
        angle, wave, phase = draw.uniform(0, np.pi), draw.uniform(3, 8), draw.uniform(0, 2 * np.pi)
        out += np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / wave + phase)
    return 0.1 * out


def silhouette(shape: str, dx: np.ndarray, dy: np.ndarray, radius: float) -> Bool[np.ndarray, "h w"]:
    """Pixels of a shape of half-size `radius` at offsets (dx, dy) from its centre; strokes are never below a pixel."""
    far, disk = np.maximum(abs(dx), abs(dy)), np.hypot(dx, dy)
    stroke = max(0.3 * radius, 0.6)
    match shape:
        case "disk":
            return disk <= radius
        case "ring":
            return (disk <= radius) & (disk > radius - 1.6 * stroke)
        case "square":
            return far <= radius
        case "frame":
            return (far <= radius) & (far > radius - 1.6 * stroke)
        case "plus":
            return (far <= radius) & (np.minimum(abs(dx), abs(dy)) <= stroke)
        case "cross":
            return (far <= radius) & (np.minimum(abs(dx - dy), abs(dx + dy)) <= 1.4 * stroke)
    raise UserError(f"no shape {shape!r}: there are {', '.join(SHAPES)}")


def add_objects(
    draw: np.random.Generator, image: np.ndarray, labels: np.ndarray, x: np.ndarray, y: np.ndarray, config: SceneConfig
) -> None:
    """Put clumps of objects into image and labels, in place."""
    h, w = x.shape
    clumps = int(draw.integers(config.clumps[0], config.clumps[1] + 1))
    centres = draw.uniform([0.15 * w, 0.15 * h], [0.85 * w, 0.85 * h], (clumps, 2))
    count = int(draw.integers(config.objects[0], config.objects[1] + 1))
    for number in range(count):
        size = h * draw.uniform(*config.sizes)
        spread = 0.55 * size * np.sqrt(count / clumps)  # so that a clump is compact, but its objects can be seen
        centre = centres[number % clumps] + draw.normal(0, spread, 2)
        kind = int(draw.integers(config.object_classes))
        colour = int(draw.integers(len(OBJECT_COLOURS))) if config.coding == "shape" else kind
        shape = SHAPES[kind] if config.coding == "shape" else "disk"
        tint = OBJECT_COLOURS[colour] + draw.uniform(-0.08, 0.08, 3)
        mask = silhouette(shape, x - centre[0], y - centre[1], size / 2)
        # A coloured object may be covered by the next; of a shape that is half covered nobody could say the class.
        if config.coding == "shape" and (labels[mask] >= REGIONS).any():
            continue
        if ((labels >= REGIONS) | mask).mean() > config.share:
            break
        image[mask], labels[mask] = tint, REGIONS + kind
