"""How a synthetic scene looks: each object's shape in its colour, to lie below boxes and words."""

from __future__ import annotations

import math

from spatial_textvqa.picture import Box, Picture

FILL = {
    "red": "#d62f2f", "green": "#1f9d55", "blue": "#2b6fd6", "yellow": "#f0d722", "orange": "#f08a24",
    "purple": "#8e44ad", "black": "#222222", "white": "#ffffff",
}  # fmt: skip
OPACITY = 0.45  # the words lie on top


def backdrop(picture: Picture) -> str:
    """SVG in the picture's pixels; nothing for objects that are not called "<colour> <shape>"."""
    parts = []
    for thing in picture.objects:
        colour, _, shape = thing.label.partition(" ")
        if colour in FILL and shape in ("square", "circle", "triangle", "star"):
            parts.append(
                f'<g fill="{FILL[colour]}" fill-opacity="{OPACITY}" stroke="#777777" stroke-width="1">'
                f"{_shape(shape, thing.box)}</g>"
            )
    return "".join(parts)


def _shape(shape: str, box: Box) -> str:
    x0, y0, x1, y1 = box
    cx, cy, rx, ry = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2
    if shape == "square":
        return f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{2 * rx:.1f}" height="{2 * ry:.1f}"/>'
    if shape == "circle":
        return f'<ellipse cx="{cx:.1f}" cy="{cy:.1f}" rx="{rx:.1f}" ry="{ry:.1f}"/>'
    corners = [(0.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
    if shape == "star":  # ten corners, from the top on
        radii = ((1.0 if i % 2 == 0 else 0.45, math.pi * (i / 5 - 0.5)) for i in range(10))
        corners = [(r * math.cos(angle), r * math.sin(angle)) for r, angle in radii]
    points = " ".join(f"{cx + rx * x:.1f},{cy + ry * y:.1f}" for x, y in corners)
    return f'<polygon points="{points}"/>'
