"""Pictures: where a pixel of a map or a globe lies on the sphere, what colour a value gets, what is said beside it."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import trimesh
from diffusion_fields.canvas import VIEWS, Canvas, Kind, globe_pixels, mollweide, mollweide_pixels
from diffusion_fields.data.fields import pixel_grid, space_grid
from diffusion_fields.data.gaussian import circle_grf
from diffusion_fields.errors import FieldError
from diffusion_fields.oracle import fibonacci_sphere
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from diffusion_fields import draw

torch.set_num_threads(1)
NAN = float("nan")
ICOSPHERE = trimesh.creation.icosphere(1)
BALL = torch.from_numpy(np.asarray(ICOSPHERE.vertices)).float()


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def titles(figure: Figure) -> list[str]:
    return [axes.get_title("left") or axes.get_title() for axes in figure.axes if axes.get_label() != "<colorbar>"]


def painted(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=50)
    return np.asarray(Image.open(buffer).convert("RGB")).astype(int)


def test_pixels_of_a_map_cover_the_sphere_evenly() -> None:
    canvas = mollweide_pixels(64)
    points = canvas.coords.double().numpy()
    assert canvas.inside is not None
    assert canvas.inside.shape == (64, 128)
    assert len(points) == canvas.inside.sum()
    assert np.abs(np.linalg.norm(points, axis=1) - 1).max() < 1e-6
    # Equal areas: second moments of a uniform sphere.
    assert np.abs(points.T @ points / len(points) - np.eye(3) / 3).max() < 5e-3
    # And the way back: a point is drawn at the centre of its pixel.
    rows, columns = canvas.inside.nonzero()
    x, y = mollweide(points)
    assert np.abs(x - ((2 * columns + 1) / 128 - 1) * 2 * 2**0.5).max() < 1e-3
    assert np.abs(y - (1 - (2 * rows + 1) / 64) * 2**0.5).max() < 1e-3


def test_north_is_up_and_east_is_right() -> None:
    canvas = mollweide_pixels(32)
    assert canvas.inside is not None
    z, y = np.full(canvas.inside.shape, NAN), np.full(canvas.inside.shape, NAN)
    z[canvas.inside], y[canvas.inside] = canvas.coords[:, 2], canvas.coords[:, 1]
    assert z[1, 32] > 0.8 > -0.8 > z[-2, 32]
    assert y[16, 48] > 0.9 > -0.9 > y[16, 16]  # longitude 90 degrees lies to the right
    globe = globe_pixels(64, (90.0, 0.0))
    assert globe.coords[:, 1].min() > 0  # the half around +y
    assert np.abs(globe.coords.norm(dim=1).numpy() - 1).max() < 1e-6
    assert globe.inside is not None
    x = np.full(globe.inside.shape, NAN)
    x[globe.inside] = globe.coords[:, 0]
    assert x[32, 2] > 0.9  # longitude 0 lies to the left of 90 degrees
    up = np.full(globe.inside.shape, NAN)
    up[globe.inside] = globe.coords[:, 2]
    assert up[2, 32] > 0.9


def test_an_image_keeps_its_rows_and_shows_what_is_unknown() -> None:
    canvas = Canvas("image", pixel_grid(2, 3), (2, 3))
    values = torch.tensor([[1.0], [-1], [-1], [-1], [-1], [NAN]])
    figure = plt.figure()
    axes = draw.new_axes(figure, canvas, 1, 1, 1)
    draw.panel(axes, canvas, values, Normalize(-1, 1), "gray")
    shown = np.asarray(axes.images[0].get_array())
    assert shown[0, 0, :3].tolist() == [1, 1, 1]
    assert shown[1, 0, :3].tolist() == [0, 0, 0]
    assert shown[1, 2, :3] == pytest.approx(plt.matplotlib.colors.to_rgb(draw.UNKNOWN))
    colours = torch.tensor([[1.0, -1, -1]]).expand(6, 3)
    draw.panel(axes, canvas, colours, Normalize(-1, 1))
    assert np.asarray(axes.images[1].get_array())[0, 0, :3].tolist() == [1, 0, 0]
    with pytest.raises(FieldError, match=r"values of shape \(5, 1\) for a picture of 6 points"):
        draw.panel(axes, canvas, values[:5], Normalize(-1, 1))


@pytest.mark.parametrize("kind", ["image", "circle", "sphere", "map", "globe", "plane", "space", "volume", "mesh"])
def test_every_kind_is_drawn_and_says_what_it_shows(kind: Kind) -> None:
    canvas = {
        "image": lambda: Canvas("image", pixel_grid(4, 4), (4, 4)),
        "circle": lambda: Canvas("circle", circle_grf(points=20).shared_coords),
        "sphere": lambda: Canvas("sphere", torch.from_numpy(fibonacci_sphere(30)).float()),
        "map": lambda: mollweide_pixels(16),
        "globe": lambda: globe_pixels(16),
        "plane": lambda: Canvas("plane", torch.rand(30, 2)),
        "space": lambda: Canvas("space", torch.rand(30, 3)),
        "volume": lambda: Canvas("volume", space_grid(6)),
        "mesh": lambda: Canvas("mesh", BALL, faces=np.asarray(ICOSPHERE.faces)),
    }[kind]()
    values = (canvas.coords.norm(dim=1, keepdim=True) - 0.6) * torch.tensor([[[1.0]], [[2.0]]]) + canvas.coords[:, :1]
    figure = draw.fields(canvas, values, bounded=False, title="two fields")
    assert np.ptp(painted(figure)) > 100
    heading = figure.axes[0].get_title("left") if kind == "circle" else figure.get_suptitle()
    assert heading == "two fields"
    observed = values[0].clone()
    observed[::2] = NAN
    figure = draw.completion(canvas, observed, values, values[0], bounded=False, title="a completion")
    assert np.ptp(painted(figure)) > 100
    if kind == "circle":
        names = [text.get_text() for text in figure.legends[0].get_texts()]
        assert names == ["mean ± 2 s.d.", "mean of 2 completions", "truth", "observed"]
        assert figure.axes[0].get_xlabel() == "angle"
    else:
        assert titles(figure) == ["observed", "mean of 2 completions", "their standard deviation", "truth"]
        assert len(titles(draw.completion(canvas, observed, values, None, bounded=False))) == 3


def test_one_completion_has_no_spread_and_an_empty_field_no_surface() -> None:
    canvas = Canvas("image", pixel_grid(2, 2), (2, 2))
    figure = draw.completion(canvas, torch.zeros(4, 1), torch.ones(1, 4, 1), None, bounded=True)
    assert titles(figure)[1] == "mean of 1 completions"
    figure = draw.fields(Canvas("volume", space_grid(3)), torch.ones(1, 27, 1), bounded=True)
    assert [text.get_text() for text in figure.axes[0].texts] == ["no surface"]


def test_globes_from_both_sides() -> None:
    canvases = [globe_pixels(24, view) for view in VIEWS]
    figure = draw.globes([[c.coords[:, 2:] for c in canvases]] * 2, canvases, bounded=True, title="north")
    assert len([axes for axes in figure.axes if axes.images]) == 4
    assert painted(figure).std() > 10


def test_a_mesh_is_painted_where_its_values_lie() -> None:
    """In the colours of its triangles, whatever its size and place."""
    canvas = Canvas("mesh", 30 * BALL + 7, faces=np.asarray(ICOSPHERE.faces))
    figure = plt.figure()
    axes = draw.new_axes(figure, canvas, 1, 1, 1)
    draw.panel(axes, canvas, BALL[:, 2:].sign(), Normalize(-1, 1), "gray")
    (drawn,) = axes.collections
    corners = np.asarray(drawn._faces)
    assert np.abs(corners).max() == pytest.approx(1, abs=1e-5)
    grey = np.asarray(drawn._facecolor3d)[:, 0]
    north, south = (corners[..., 2] > 0.01).all(1), (corners[..., 2] < -0.01).all(1)
    assert min(north.sum(), south.sum()) > 10
    assert grey[north].min() > 0.2 > 0.01 > grey[south].max()


def test_colours_are_symmetric_about_zero_unless_bounded() -> None:
    assert (draw.scale(np.array([3.0, 9]), True).vmin, draw.scale(np.array([3.0, 9]), True).vmax) == (-1, 1)
    norm = draw.scale(np.array([1.0, -2, NAN]), False)
    assert norm.vmin == -norm.vmax
    assert norm.vmax == pytest.approx(2, abs=0.01)
    assert draw.scale(np.zeros(3), False).vmax == 1
