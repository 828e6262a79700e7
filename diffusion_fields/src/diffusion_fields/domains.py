"""Where fields live, by their coordinates, and how they are drawn there."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from diffusion_fields.canvas import Canvas
from diffusion_fields.data.fields import FieldSet

Domain = Literal["circle", "sphere", "plane", "space", "other"]


def domain_of(points: Float[Tensor, "n c"]) -> Domain:
    """By the width of the coordinates, and whether they are unit vectors."""
    unit = bool(((points.norm(dim=1) - 1).abs() < 1e-3).all())
    names: dict[int, Domain] = {2: "circle" if unit else "plane", 3: "sphere" if unit else "space"}
    return names.get(points.shape[1], "other")


def is_intrinsic(fields: FieldSet) -> bool:
    """Whether the coordinates are eigenfunctions of a surface, which say nothing of where it lies."""
    return fields.name == "mesh_grf"


def is_occupancy(fields: FieldSet) -> bool:
    """Whether the signal is +1 inside of a body and -1 outside (a signed distance is negative inside)."""
    return fields.unit.startswith("occupancy")


def canvas_of(
    fields: FieldSet,
    points: Float[Tensor, "n c"],
    coords: Float[Tensor, "m c"],
    shape: tuple[int, ...] | None = None,
) -> Canvas | None:
    """How fields are drawn at `coords`; None where there is no picture of them.

    Args:
        points: those that the fields were trained on.
        shape: of a grid of pixels or voxels.
    """
    domain = domain_of(points)
    if domain == "other" or is_intrinsic(fields):
        return None
    if shape is None and coords is points:
        side = round(len(coords) ** (1 / 3))
        regular = domain == "space" and fields.shared_coords is not None and side**3 == len(coords)
        shape = (side,) * 3 if regular else fields.size if domain == "plane" else None
    if domain == "space" and shape is not None:
        return Canvas("volume", coords, positive_inside=is_occupancy(fields))
    if domain == "plane" and shape is not None:
        return Canvas("image", coords, (shape[0], shape[1]))
    return Canvas(domain, coords)
