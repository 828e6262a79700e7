"""Surfaces of generated fields: the level set on a grid, and points on it for Chamfer, COV and MMD (section 7).

field on `data.fields.space_grid(side)` -> marching cubes (scikit-image) -> mesh (trimesh) -> points on its triangles.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from skimage.measure import marching_cubes
from torch import Tensor

from diffusion_fields.errors import FieldError

Inside = Literal["negative", "positive"]
POINTS = 2048  # of a cloud


def surface(values: Tensor | np.ndarray, level: float = 0.0, inside: Inside = "negative") -> trimesh.Trimesh:
    """The level set of a field on `space_grid(side)`, in the coordinates of [-1, 1]^3; open where it leaves the grid.

    Args:
        values: side^3 of them in the grid's order, flat, with a channel, or as [x, y, z].
        level: 0 for a signed distance and for occupancy of +-1; 0.5 for occupancy of 0 and 1.
        inside: the sign of what is inside: `negative` for a signed distance, `positive` for occupancy. The triangles
            face outwards.

    Raises:
        FieldError: the number of values is no cube, not all are finite, or the field never crosses the level.
    """
    flat = torch.as_tensor(values).detach().cpu().double().numpy().reshape(-1)
    side = round(len(flat) ** (1 / 3))
    if side**3 != len(flat) or side < 2:
        raise FieldError(
            f"{len(flat)} values are no cube: a surface needs the field on a grid of side^3 points, side > 1"
        )
    if not np.isfinite(flat).all():
        raise FieldError("the field holds NaN or infinity: it has no surface; the sampler has diverged")
    low, high = float(flat.min()), float(flat.max())
    if not low < level < high:
        raise FieldError(
            f"no surface: the field lies in {low:.3g}..{high:.3g} on this grid and does not cross {level:g}; "
            "train longer, choose another level, or a finer grid for a small shape"
        )
    # scikit-image winds its triangles the other way round: with `ascent` those of a ball of small values face inwards.
    direction = "descent" if inside == "negative" else "ascent"
    vertices, faces, _, _ = marching_cubes(
        flat.reshape(side, side, side), level, spacing=(2 / side,) * 3, gradient_direction=direction
    )
    return trimesh.Trimesh(vertices + 1 / side - 1, faces, process=False)


def surface_points(
    mesh: trimesh.Trimesh, count: int = POINTS, seed: int = 0
) -> tuple[Float[np.ndarray, "count 3"], Float[np.ndarray, "count 3"]]:
    """(points, their triangles' normals), uniform over the area.

    Raises:
        FieldError: fewer than one point, or a mesh without area.
    """
    if count < 1 or not mesh.area > 0:
        raise FieldError(f"{count} points of a surface of area {mesh.area:.3g}: at least one, and an area, are needed")
    points, face = trimesh.sample.sample_surface(mesh, count, seed=seed)[:2]
    return np.asarray(points), np.asarray(mesh.face_normals[face])


def point_clouds(
    fields: Float[Tensor, "k points ..."],
    count: int = POINTS,
    level: float = 0.0,
    inside: Inside = "negative",
    seed: int = 0,
) -> tuple[Float[Tensor, "clouds count 3"], int]:
    """(clouds of the fields that have a surface, how many have none): a network's field may be empty.

    Raises:
        FieldError: no field has a surface; or as `surface` does.
    """
    clouds = []
    for number, field in enumerate(fields):
        if bool((field > level).any() and (field < level).any()) or not bool(torch.as_tensor(field).isfinite().all()):
            mesh = surface(field, level, inside)
            clouds.append(torch.from_numpy(surface_points(mesh, count, seed + number)[0]).float())
    if not clouds:
        raise FieldError(f"none of {len(fields)} fields crosses {level:g}: there is no surface to compare")
    return torch.stack(clouds), len(fields) - len(clouds)
