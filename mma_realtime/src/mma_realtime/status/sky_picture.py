"""A sky map as a small SVG: the 50 and 90 % regions in Mollweide's projection, for light and dark pages.

Right ascension grows to the left, as on the sky.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import contourpy
import numpy as np
from jaxtyping import Bool, Float64

from mma_realtime.sky.skymap import SkyMap

WIDTH, HEIGHT = 720, 360
STEP = 2  # of the grid, in units of the picture: a degree on the equator
STYLE = """
.sphere { fill: #f3f5f7; stroke: #5b6770 } .grid { fill: none; stroke: #aab4bc; stroke-width: .7 }
.p90 { fill: #56b4e9 } .p50 { fill: #0072b2 } .peak { fill: none; stroke: #d55e00; stroke-width: 2 }
text { font: 13px system-ui, sans-serif; fill: #39434b }
@media (max-width: 450px) { text { font-size: 24px } }
@media (prefers-color-scheme: dark) {
.sphere { fill: #1d242a; stroke: #94a3ad } .grid { stroke: #46525b } text { fill: #d4dde3 }
.p90 { fill: #2f7ea8 } .p50 { fill: #8fd3ff } .peak { stroke: #ff9f5a }
}"""


def sky_picture(sky: SkyMap, title: str) -> str:
    """The SVG's text.

    Args:
        sky: the map.
        title: for those who do not see it.
    """
    x, y = np.meshgrid(np.arange(0, WIDTH + 1, STEP), np.arange(0, HEIGHT + 1, STEP))
    ra, dec, inside = _from_picture(x, y)
    level = np.full(x.shape, 1.0)
    level[inside] = sky.credible_level(ra[inside], dec[inside])
    # A map may be finer than the grid: its densest pixel is always drawn, by the ring around it.
    lines = contourpy.contour_generator(x, y, level, fill_type="OuterOffset")
    regions = [_path(lines.filled(-1.0, p), name) for p, name in ((0.9, "p90"), (0.5, "p50"))]
    peak_x, peak_y = _to_picture(np.array([sky.peak[0]]), np.array([sky.peak[1]]))
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -8 {WIDTH + 16} {HEIGHT + 16}" role="img">',
            f"<title>{_escaped(title)}</title><style>{STYLE}</style>",
            f'<ellipse class="sphere" cx="{WIDTH / 2}" cy="{HEIGHT / 2}" rx="{WIDTH / 2}" ry="{HEIGHT / 2}"/>',
            *regions,
            *_graticule(),
            f'<circle class="peak" cx="{peak_x[0]:.1f}" cy="{peak_y[0]:.1f}" r="9"/></svg>',
        ]
    )


def _from_picture(
    x: Float64[np.ndarray, "*n"], y: Float64[np.ndarray, "*n"]
) -> tuple[Float64[np.ndarray, "*n"], Float64[np.ndarray, "*n"], Bool[np.ndarray, "*n"]]:
    """Right ascension, declination (rad), and whether a place of the picture is on the sphere."""
    sine = 1 - 2 * y / HEIGHT
    theta = np.arcsin(sine.clip(-1, 1))
    across = (1 - 2 * x / WIDTH) * np.pi  # 0 in the middle, RA grows to the left
    dec = np.arcsin(((2 * theta + np.sin(2 * theta)) / np.pi).clip(-1, 1))
    ra = np.divide(across, np.cos(theta), out=np.full(x.shape, 9.0), where=np.cos(theta) > 1e-6)
    return (ra + np.pi) % (2 * np.pi), dec, np.abs(ra) <= np.pi


def _to_picture(
    ra: Float64[np.ndarray, " n"], dec: Float64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    theta = np.array(dec, dtype=np.float64)
    for _ in range(50):  # Newton: 2 theta + sin(2 theta) = pi sin(dec)
        slope = np.maximum(2 + 2 * np.cos(2 * theta), 1e-6)
        theta = (theta - (2 * theta + np.sin(2 * theta) - np.pi * np.sin(dec)) / slope).clip(-np.pi / 2, np.pi / 2)
    across = ra - np.pi  # RA 180 in the middle
    return (1 - across * np.cos(theta) / np.pi) * WIDTH / 2, (1 - np.sin(theta)) * HEIGHT / 2


def _path(filled: Any, name: str) -> str:
    """A path of contourpy's polygons with holes: points, and where each ring of them begins."""
    parts = []
    for points, offsets in zip(*filled, strict=True):
        for begin, end in pairwise(offsets):
            parts.append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points[begin:end]) + "Z")
    return f'<path class="{name}" fill-rule="evenodd" d="{"".join(parts)}"/>'


def _graticule() -> list[str]:
    """Parallels every 30 degrees and meridians every 60, with a few labels."""
    out = []
    for dec in (-60, -30, 0, 30, 60):
        (a, b), (y, _) = _to_picture(np.radians([0.0, 360.0]), np.radians([dec, dec]))
        out.append(f'<path class="grid" d="M{a:.1f} {y:.1f}H{b:.1f}"/>')
    decs = np.radians(np.linspace(-90, 90, 61))
    for ra in (60, 120, 180, 240, 300):
        x, y = _to_picture(np.full(len(decs), np.radians(ra)), decs)
        line = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
        out.append(f'<path class="grid" d="M{line}"/>')
        (label_x,), (label_y,) = _to_picture(np.radians([ra]), np.radians([0.0]))
        out.append(f'<text x="{label_x + 4:.1f}" y="{label_y - 5:.1f}">{ra // 15} h</text>')
    return out


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
