"""Pictures of fields: images, maps and globes of the sphere, surfaces, functions on the circle, and completions.

Nothing is interpolated. A picture of a sphere that a network paints is queried at the picture's own pixels
(`canvas.mollweide_pixels`, `globe_pixels`); fields known at given points are drawn as dots there, at the vertices of a
mesh as the mean over each triangle.
"""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LightSource, Normalize
from matplotlib.figure import Figure
from shared.figures import COLOURS, GRID, INK, use_house_style
from torch import Tensor

from diffusion_fields.canvas import ROOT2, Canvas, mollweide, unit
from diffusion_fields.errors import FieldError

SIGNED, SPREAD = "RdBu_r", "viridis"
UNKNOWN = "#e9e4d8"  # where nothing was observed
SOLID = ("space", "volume", "mesh")  # kinds drawn in three dimensions
LIGHT = LightSource(azdeg=315, altdeg=50)


def scale(values: np.ndarray, bounded: bool) -> Normalize:
    """Colours: [-1, 1] of bounded data; else symmetric about 0, to the 99.5th percentile."""
    if bounded:
        return Normalize(-1, 1)
    finite = np.abs(values[np.isfinite(values)])
    high = float(np.percentile(finite, 99.5)) if finite.size else 1.0
    return Normalize(-(high or 1.0), high or 1.0)


def _colours(canvas: Canvas, bounded: bool) -> str:
    return "gray" if bounded and canvas.kind == "image" else SIGNED


def panel(
    axes: Any, canvas: Canvas, values: Float[Tensor, "n s"], norm: Normalize, cmap: str = SIGNED, title: str = ""
) -> Any:
    """One field. Values that are NaN are left out.

    Args:
        axes: of a subplot; of projection 3d for `space`, `volume` and `mesh` (`new_axes` gives the right ones).
        values: one channel by `norm` and `cmap`; three as red, green and blue in [-1, 1]; of others the first.

    Returns:
        What a colour bar can be made of, or None.
    """
    array = torch.as_tensor(values).detach().cpu().double().numpy()
    if array.ndim != 2 or len(array) != len(canvas.coords):
        raise FieldError(
            f"values of shape {array.shape} for a picture of {len(canvas.coords)} points: (n, s) is expected"
        )
    colours = array if array.shape[1] == 3 else array[:, :1]
    axes.set_title(title, **({"pad": -4} if canvas.kind in SOLID else {}))
    points = canvas.coords.cpu().double().numpy()
    if canvas.kind == "circle":
        return _circle(axes, points, array[:, :1].T)
    if canvas.kind == "volume":
        return _volume(axes, array[:, 0], canvas.positive_inside)
    if canvas.kind in ("image", "map", "globe"):
        return _pixels(axes, canvas, colours, norm, cmap)
    if canvas.kind == "mesh":
        assert canvas.faces is not None
        low, high = points.min(0), points.max(0)
        centred = (points - (low + high) / 2) * 2 / (high - low).max()
        draw_triangles(axes, centred[canvas.faces], rgba(colours[canvas.faces].mean(1), norm, cmap))
        return None if colours.shape[1] == 3 else matplotlib.cm.ScalarMappable(norm, cmap)
    return _dots(axes, canvas.kind, points, colours, norm, cmap)


def new_axes(figure: Figure, canvas: Canvas, rows: int, columns: int, number: int) -> Any:
    """A subplot (from 1) of the projection that the canvas needs."""
    return figure.add_subplot(rows, columns, number, projection="3d" if canvas.kind in SOLID else None)


def rgba(colours: Float[np.ndarray, "n k"], norm: Normalize, cmap: str = SIGNED) -> Float[np.ndarray, "n 4"]:
    if colours.shape[1] == 3:
        shown = np.clip(np.nan_to_num(colours) / 2 + 0.5, 0, 1)
        rgba = np.concatenate([shown, np.ones((len(shown), 1))], 1)
    else:
        rgba = matplotlib.colormaps[cmap](norm(np.nan_to_num(colours[:, 0])))
    rgba[np.isnan(colours).any(1)] = matplotlib.colors.to_rgba(UNKNOWN)
    return rgba


def _pixels(axes: Axes, canvas: Canvas, colours: np.ndarray, norm: Normalize, cmap: str) -> Any:
    if canvas.shape is not None:
        shape: tuple[int, ...] = canvas.shape
        picture = rgba(colours, norm, cmap).reshape(*shape, 4)
    else:
        assert canvas.inside is not None
        shape = canvas.inside.shape
        picture = np.zeros((*shape, 4))
        picture[canvas.inside] = rgba(colours, norm, cmap)
    if canvas.kind == "globe":
        picture = _shaded(picture, canvas.inside)
    wide = {"map": 2 * ROOT2, "globe": 1.0}.get(canvas.kind)
    high = {"map": ROOT2, "globe": 1.0}.get(canvas.kind)
    extent = None if wide is None or high is None else (-wide, wide, -high, high)
    axes.imshow(picture, interpolation="nearest", extent=extent)
    axes.set_axis_off()
    if canvas.kind == "map":
        _graticule(axes)
    if canvas.kind == "globe":
        axes.add_patch(matplotlib.patches.Circle((0, 0), 1, fill=False, color=INK, linewidth=0.6))
    return None if colours.shape[1] == 3 else matplotlib.cm.ScalarMappable(norm, cmap)


def _shaded(picture: Float[np.ndarray, "h w 4"], inside: Any) -> Float[np.ndarray, "h w 4"]:
    """Lambert's law with the light from above left, over half of ambient light."""
    size = len(picture)
    edge = (2 * np.arange(size) + 1) / size - 1
    x, y = np.meshgrid(edge, -edge)
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, None))
    light = np.array([-0.5, 0.5, ROOT2 / 2])
    lit = 0.5 + 0.5 * np.clip(light[0] * x + light[1] * y + light[2] * z, 0, 1)
    picture[..., :3] *= np.where(inside, lit, 1)[..., None]
    return picture


def _graticule(axes: Axes) -> None:
    """Parallels and meridians every 30 degrees, and the map's edge."""
    degrees = np.deg2rad(np.arange(-180, 181))
    lines = []
    for latitude in np.deg2rad([-60, -30, 0, 30, 60]):
        lines.append(unit(degrees * 0.9999, np.full_like(degrees, latitude)))
    for longitude in np.deg2rad(np.arange(-150, 151, 30)):
        lines.append(unit(np.full_like(degrees, longitude), degrees / 2))
    paths = [np.stack(mollweide(line.double().numpy()), -1) for line in lines]
    axes.add_collection(LineCollection(paths, colors=INK, linewidths=0.3, alpha=0.35))
    edge = matplotlib.patches.Ellipse((0, 0), 4 * ROOT2, 2 * ROOT2, fill=False, color=INK, linewidth=0.6)
    axes.add_patch(edge)


def _dots(axes: Any, kind: str, points: np.ndarray, colours: np.ndarray, norm: Normalize, cmap: str) -> Any:
    known = ~np.isnan(colours).any(1)
    shown = rgba(colours[known], norm, cmap)
    size = (
        float(np.clip(12000 / max(int(known.sum()), 1), 2, 60))
        if kind == "space"
        else (float(np.clip(12000 / len(points), 1, 60)))
    )
    if kind == "space":
        axes.scatter(*points[known].T, c=shown, s=size / 3, linewidths=0)
        _cube(axes)
        axes.grid(False)
    else:
        x, y = mollweide(points[known]) if kind == "sphere" else points[known].T
        axes.set_aspect("equal")
        axes.scatter(x, y, c=shown, s=size, linewidths=0.15, edgecolors=INK)
        if kind == "sphere":
            axes.set_axis_off()
            axes.set_xlim(-2.9, 2.9)
            axes.set_ylim(-1.5, 1.5)
            _graticule(axes)
    return None if colours.shape[1] == 3 else matplotlib.cm.ScalarMappable(norm, cmap)


def _circle(axes: Axes, points: np.ndarray, fields: Float[np.ndarray, "k n"], **style: Any) -> None:
    angle = np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)
    order = np.argsort(angle)
    for values in fields:
        axes.plot(angle[order], values[order], **style)
    _angles(axes)


def _angles(axes: Axes) -> None:
    axes.set_xlim(0, 2 * np.pi)
    axes.set_xticks([0, np.pi, 2 * np.pi], ["0", "π", "2π"])
    axes.set_xlabel("angle")


def _cube(axes: Any) -> None:
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1), xticks=(-1, 1), yticks=(-1, 1), zticks=(-1, 1))
    axes.set_box_aspect((1, 1, 1), zoom=1.15)


def draw_triangles(axes: Any, triangles: Float[np.ndarray, "f 3 3"], colours: Any = COLOURS["ours_variant"]) -> None:
    """Triangles in the cube [-1, 1]^3, of one colour or one each, lit from above left."""
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    collection = Poly3DCollection(
        triangles, shade=True, facecolors=colours, lightsource=LIGHT, linewidths=0, antialiased=False
    )
    axes.add_collection3d(collection)
    _cube(axes)
    axes.grid(False)


def _volume(axes: Any, values: np.ndarray, positive_inside: bool) -> None:
    from diffusion_fields.surfaces import surface

    try:
        mesh = surface(values, inside="positive" if positive_inside else "negative")
    except FieldError:
        axes.text2D(0.5, 0.5, "no surface", transform=axes.transAxes, ha="center", color=INK)
        _cube(axes)
        return
    draw_triangles(axes, np.asarray(mesh.triangles))


def fields(
    canvas: Canvas,
    values: Float[Tensor, "k n s"],
    bounded: bool,
    title: str = "",
    columns: int = 8,
    label: str = "value",
) -> Figure:
    """Several fields side by side; functions on the circle in one panel."""
    import matplotlib.pyplot as plt

    use_house_style()
    array = torch.as_tensor(values).detach().cpu()
    norm, cmap = scale(array.numpy(), bounded), _colours(canvas, bounded)
    if canvas.kind == "circle":
        figure, axes = plt.subplots(figsize=(5, 2.6))
        _circle(axes, canvas.coords.cpu().double().numpy(), array[..., 0].double().numpy(), linestyle="-", linewidth=1)
        axes.set_ylabel(label)
        axes.set_title(title)
        return figure
    columns = min(
        columns, {"map": 3, "sphere": 3, "globe": 6, "volume": 4, "space": 4, "mesh": 4}.get(canvas.kind, 8), len(array)
    )
    rows = -(-len(array) // columns)
    width, height = _panel_size(canvas, len(array))
    figure = plt.figure(figsize=(max(columns * width, 2.5) + 0.5, rows * height + 0.4))
    shown, made = None, []
    for number, each in enumerate(array):
        made.append(new_axes(figure, canvas, rows, columns, number + 1))
        shown = panel(made[-1], canvas, each, norm, cmap)
    _bar(figure, shown, made, label)
    figure.suptitle(title, fontsize=9, x=0.02, ha="left")
    return figure


def globes(samples: list[list[Float[Tensor, "n s"]]], canvases: list[Canvas], bounded: bool, title: str = "") -> Figure:
    """One row a field, one column a view; `samples[field][view]` are the values at the pixels of `canvases[view]`."""
    import matplotlib.pyplot as plt

    use_house_style()
    norm = scale(np.concatenate([each.cpu().numpy().reshape(-1) for row in samples for each in row]), bounded)
    rows, columns = len(samples), len(canvases)
    figure = plt.figure(figsize=(2 * columns + 0.6, 2 * rows + 0.4))
    made, shown = [], None
    for row, views in enumerate(samples):
        for column, values in enumerate(views):
            made.append(new_axes(figure, canvases[column], rows, columns, row * columns + column + 1))
            shown = panel(made[-1], canvases[column], values, norm)
    _bar(figure, shown, made, "value")
    figure.suptitle(title, fontsize=9, x=0.02, ha="left")
    return figure


def completion(
    canvas: Canvas,
    observed: Float[Tensor, "n s"],
    draws: Float[Tensor, "k n s"],
    truth: Float[Tensor, "n s"] | None,
    bounded: bool,
    title: str = "",
) -> Figure:
    """Observed | mean of the completions | their standard deviation | truth; on the circle all in one panel.

    Args:
        observed: NaN where nothing was observed.
        truth: None where it is not known.
    """
    import matplotlib.pyplot as plt

    use_house_style()
    mean, spread = draws.mean(0), draws.std(0, correction=min(1, len(draws) - 1))
    if canvas.kind == "circle":
        return _circle_completion(canvas, observed, draws, truth, title)
    known = [each.cpu().numpy() for each in (mean, observed, *(() if truth is None else (truth,)))]
    norm = scale(np.concatenate([each.reshape(-1) for each in known]), bounded)
    cmap = _colours(canvas, bounded)
    sd = spread.mean(1, keepdim=True)
    sd_norm = Normalize(0, float(sd.max()) or 1.0)
    panels = [
        ("observed", observed, norm, cmap),
        (f"mean of {len(draws)} completions", mean, norm, cmap),
        ("their standard deviation", sd, sd_norm, SPREAD),
        *(() if truth is None else (("truth", truth, norm, cmap),)),
    ]
    width, height = _panel_size(canvas, len(panels), large=True)
    figure = plt.figure(figsize=(len(panels) * width, height + 0.9))
    for number, (name, values, colours, chosen) in enumerate(panels):
        as_dots = canvas.kind == "volume" and name not in ("truth", panels[1][0])
        place = Canvas("space", canvas.coords) if as_dots else canvas
        axes = new_axes(figure, place, 1, len(panels), number + 1)
        shown = panel(axes, place, _thinned(values, sd_norm) if as_dots else values, colours, chosen, name)
        _bar(figure, shown, [axes], "standard deviation" if chosen == SPREAD else "value", below=True)
    figure.suptitle(title, fontsize=9, x=0.02, ha="left")
    return figure


def _thinned(values: Float[Tensor, "n s"], norm: Normalize) -> Float[Tensor, "n s"]:
    """Of dots that fill a cube those below half of the scale are left out: they would hide the others."""
    if bool(values.isnan().any()):
        return values
    assert norm.vmax is not None
    return values.masked_fill(values < norm.vmax / 2, float("nan"))


def _circle_completion(canvas: Canvas, observed: Tensor, draws: Tensor, truth: Tensor | None, title: str) -> Figure:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.5, 2.8))
    points = canvas.coords.cpu().double().numpy()
    angle = np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)
    order = np.argsort(angle)
    values = draws[..., 0].cpu().double().numpy()
    mean, spread = values.mean(0), values.std(0, ddof=min(1, len(values) - 1))
    band = (mean - 2 * spread)[order], (mean + 2 * spread)[order]
    axes.fill_between(angle[order], *band, color=COLOURS["ours"], alpha=0.15, linewidth=0, label="mean ± 2 s.d.")
    _circle(axes, points, values[:8], color=COLOURS["ours_variant"], linewidth=0.5, linestyle="-")
    _circle(axes, points, mean[None], color=COLOURS["ours"], linestyle="-", label=f"mean of {len(draws)} completions")
    if truth is not None:
        _circle(axes, points, truth.cpu().double().numpy()[:, :1].T, color=INK, linestyle="--", label="truth")
    known = ~observed[:, 0].isnan().cpu().numpy()
    dots = observed[:, 0].cpu().numpy()[known]
    axes.plot(angle[known], dots, "o", color=COLOURS["vermillion"], linestyle="none", label="observed")
    axes.set_ylabel("value")
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _panel_size(canvas: Canvas, count: int, large: bool = False) -> tuple[float, float]:
    if canvas.kind == "image":
        assert canvas.shape is not None
        side = 1.8 if large or count < 5 else 0.9
        return side, side * canvas.shape[0] / canvas.shape[1]
    return {"map": (2.9, 1.5), "sphere": (2.9, 1.5), "globe": (1.7, 1.7)}.get(canvas.kind, (2.2, 2.1))


def _bar(figure: Figure, shown: Any, axes: list[Any], label: str, below: bool = False) -> None:
    if shown is None:
        return
    place = "bottom" if below else "right"
    bar = figure.colorbar(shown, ax=axes, location=place, shrink=0.8, aspect=25, pad=0.03)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_edgecolor(GRID)
