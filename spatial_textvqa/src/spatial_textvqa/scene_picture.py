"""How a synthetic scene looks: each object's shape in its colour, below boxes and words (SVG) or as a picture (PNG)."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

from spatial_textvqa.data.scenes import SHAPES
from spatial_textvqa.picture import Box, Picture

FILL = {
    "red": "#d62f2f", "green": "#1f9d55", "blue": "#2b6fd6", "yellow": "#f0d722", "orange": "#f08a24",
    "purple": "#8e44ad", "black": "#222222", "white": "#ffffff",
}  # fmt: skip
EDGE = "#777777"
OPACITY = 0.45  # the words lie on top


def backdrop(picture: Picture) -> str:
    """SVG in the picture's pixels; nothing for objects that are not called "<colour> <shape>"."""
    parts = []
    for thing in picture.objects:
        colour, _, shape = thing.label.partition(" ")
        if colour in FILL and shape in SHAPES:
            parts.append(
                f'<g fill="{FILL[colour]}" fill-opacity="{OPACITY}" stroke="{EDGE}" stroke-width="1">'
                f"{_shape(shape, thing.box)}</g>"
            )
    return "".join(parts)


def drawn(picture: Picture) -> Image.Image:
    """The scene as a camera would have it: shapes, and the words where their boxes are."""
    image = Image.new("RGB", (round(picture.width), round(picture.height)), "#ffffff")
    draw = ImageDraw.Draw(image)
    for thing in picture.objects:
        colour, _, shape = thing.label.partition(" ")
        form = draw.ellipse if shape == "circle" else draw.polygon
        form(thing.box if shape == "circle" else _corners(shape, thing.box), fill=FILL[colour], outline=EDGE)
    for word in picture.words:
        x0, y0, x1, y1 = word.box
        font = ImageFont.load_default(0.6 * (y1 - y0))
        middle = (x0 + x1) / 2, (y0 + y1) / 2
        draw.text(middle, word.text, "#000000", font, "mm", stroke_width=2, stroke_fill="#ffffff")
    return image


def _shape(shape: str, box: Box) -> str:
    x0, y0, x1, y1 = box
    if shape == "square":
        return f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"/>'
    if shape == "circle":
        cx, cy, rx, ry = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2
        return f'<ellipse cx="{cx:.1f}" cy="{cy:.1f}" rx="{rx:.1f}" ry="{ry:.1f}"/>'
    return f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in _corners(shape, box))}"/>'


def _corners(shape: str, box: Box) -> list[tuple[float, float]]:
    """Of a square, a triangle or a star in this box."""
    x0, y0, x1, y1 = box
    corners = {"square": [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
               "triangle": [(0.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]}.get(shape)  # fmt: skip
    if corners is None:  # a star: ten, from the top on
        radii = ((1.0 if i % 2 == 0 else 0.45, math.pi * (i / 5 - 0.5)) for i in range(10))
        corners = [(r * math.cos(angle), r * math.sin(angle)) for r, angle in radii]
    return [((x0 + x1 + (x1 - x0) * x) / 2, (y0 + y1 + (y1 - y0) * y) / 2) for x, y in corners]
