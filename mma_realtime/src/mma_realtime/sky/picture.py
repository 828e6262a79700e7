"""Pictures of a sky map: all of the sky, and its densest place enlarged, with the regions of 50 and 90 %."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from shared.figures import COLOURS, INK

from mma_realtime.gw.units import Radian
from mma_realtime.sky import healpix
from mma_realtime.sky.skymap import SQUARE_DEGREE, SkyMap
from mma_realtime.times import utc_iso

LEVELS: tuple[tuple[float, Literal["-", "--"]], ...] = ((0.5, "-"), (0.9, "--"))
TRUTH, HOST = ("*", COLOURS["ours"]), ("+", COLOURS["green"])
LARGEST_RADIUS = 40.0  # degrees that are shown enlarged: beyond, the plane bends too much
Place = tuple[Radian, Radian]


def mollweide(skymap: SkyMap, truth: Place | None = None, host: Place | None = None) -> Figure:
    """The whole sky in equal areas, right ascension to the left.

    Args:
        truth: right ascension and declination (rad) of an injection.
        host: of a galaxy or a counterpart.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot(projection="mollweide")
    x, dec = np.meshgrid(np.linspace(-math.pi, math.pi, 1441), np.linspace(-math.pi / 2, math.pi / 2, 721))
    drawn(axes, skymap, x, dec, math.pi - x, dec)
    marked(axes, truth, host, lambda place: (math.pi - place[0] % (2 * math.pi), place[1]))
    hours = range(2, 24, 4)
    axes.set_xticks([math.pi - hour * math.pi / 12 for hour in hours], [f"{hour} h" for hour in hours], fontsize=7)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    labelled(figure, axes, skymap, truth, host)
    return figure


def enlarged(skymap: SkyMap, truth: Place | None = None, host: Place | None = None) -> Figure:
    """The surroundings of the densest place, as wide as the 90 % region up to 40 degrees, in the tangent plane there.

    Args:
        truth, host: as in `mollweide`.
    """
    ra0, dec0 = skymap.peak
    ra, dec = healpix.centre_of_uniq(skymap.uniq[skymap.pixel_levels() <= 0.9])
    cosine = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    reach = math.degrees(math.acos(np.clip(cosine.min(initial=1.0), -1, 1)))
    radius = min(max(1.3 * reach, 0.2), LARGEST_RADIUS)
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    x, y = np.meshgrid(*2 * (np.linspace(-radius, radius, 601),))
    drawn(axes, skymap, x, y, *from_plane(np.radians(x), np.radians(y), ra0, dec0))
    marked(axes, truth, host, lambda place: to_plane(place, ra0, dec0))
    axes.set(xlim=(radius, -radius), ylim=(-radius, radius))
    axes.set_xlabel(f"degrees east of right ascension {math.degrees(ra0):.2f}°")
    axes.set_ylabel(f"degrees north of declination {math.degrees(dec0):.2f}°")
    labelled(figure, axes, skymap, truth, host)
    return figure


def from_plane(
    x: Float64[np.ndarray, "*n"], y: Float64[np.ndarray, "*n"], ra0: Radian, dec0: Radian
) -> tuple[Float64[np.ndarray, "*n"], Float64[np.ndarray, "*n"]]:
    """Directions of points of the tangent plane: x to the east, y to the north (rad of arc near its middle)."""
    north = math.cos(dec0) - y * math.sin(dec0)
    ra = ra0 + np.arctan2(x, north)
    return ra, np.arctan2(math.sin(dec0) + y * math.cos(dec0), np.hypot(x, north))


def to_plane(place: Place, ra0: Radian, dec0: Radian) -> tuple[float, float]:
    """Where a direction is in the tangent plane (degrees); not a number on the sky's other half."""
    ra, dec = place[0] - ra0, place[1]
    depth = math.sin(dec0) * math.sin(dec) + math.cos(dec0) * math.cos(dec) * math.cos(ra)
    if depth <= 0:
        return math.nan, math.nan
    x = math.cos(dec) * math.sin(ra)
    y = math.cos(dec0) * math.sin(dec) - math.sin(dec0) * math.cos(dec) * math.cos(ra)
    return math.degrees(x / depth), math.degrees(y / depth)


def drawn(axes: Axes, skymap: SkyMap, x: np.ndarray, y: np.ndarray, ra: np.ndarray, dec: np.ndarray) -> None:
    """Density in colour and the regions' outlines, on a grid of points x, y that lie in directions ra, dec."""
    row = skymap.row_at(ra, dec)
    density = skymap.probdensity[row] * SQUARE_DEGREE
    axes.pcolormesh(x, y, density, cmap="Oranges", shading="nearest", vmin=0, rasterized=True)
    levels = skymap.pixel_levels()[row]
    for level, style in LEVELS:
        if levels.min() < level < levels.max():
            axes.contour(x, y, levels, [level], colors=INK, linestyles=style, linewidths=0.9)


def marked(
    axes: Axes, truth: Place | None, host: Place | None, place_of: Callable[[Place], tuple[float, float]]
) -> None:
    """Marks at the places that are given; `place_of` says where on the axes a direction is."""
    for place, marker, colour in ((truth, *TRUTH), (host, *HOST)):
        if place is not None:
            axes.plot(*place_of(place), marker, color=colour, markersize=9, markeredgewidth=1.5, linestyle="none")


def labelled(figure: Figure, axes: Axes, skymap: SkyMap, truth: Place | None, host: Place | None) -> None:
    """A legend with the areas and the marks' credible levels, and a title."""
    handles = [
        Line2D([], [], color=INK, linestyle=style, linewidth=0.9, label=f"{level:.0%}: {degrees(skymap.area(level))}")
        for level, style in LEVELS
    ]
    for place, marker, colour, label in ((truth, *TRUTH, "injected"), (host, *HOST, "host")):
        if place is not None:
            text = f"{label}, at {float(skymap.credible_level(*place)):.0%}"
            handles.append(Line2D([], [], marker=marker, color=colour, linestyle="none", markersize=8, label=text))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=4 if figure.get_figwidth() > 6 else 2,
        frameon=False,
        fontsize=8,
    )
    gps, name = skymap.meta.get("gps"), skymap.meta.get("object")
    title = [str(name)] if name else []
    title += [utc_iso(gps)] if gps is not None else []
    title += [", ".join(skymap.meta["instruments"])] if skymap.meta.get("instruments") else []
    axes.set_title("   ".join(title), fontsize=9)


def degrees(area: float) -> str:
    return f"{area:,.0f} deg²" if area >= 100 else f"{area:.3g} deg²"


def caption(skymap: SkyMap) -> str:
    """One sentence that says what to see."""
    words = (
        f"Probability per area on the sky (darker: more) with the smallest regions that hold the source with 50 % "
        f"({degrees(skymap.area(0.5))}) and 90 % ({degrees(skymap.area(0.9))})"
    )
    if skymap.distmu is not None:
        mean, std = skymap.distance_mean_std
        words += f"; its distance is {mean:,.0f} ± {std:,.0f} Mpc"
    return words + "."
