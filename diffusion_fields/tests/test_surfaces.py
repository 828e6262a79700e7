"""Surfaces of fields whose surface is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from diffusion_fields.data.fields import space_grid
from diffusion_fields.errors import FieldError
from diffusion_fields.metrics import chamfer_allpairs
from diffusion_fields.surfaces import point_clouds, surface, surface_points

torch.set_num_threads(1)
GRID = space_grid(32)
CENTRE = torch.tensor([0.2, -0.1, 0.05])
BALL = (GRID - CENTRE).norm(dim=1) - 0.6


def test_a_ball_has_its_radius_its_place_and_its_volume() -> None:
    mesh = surface(BALL)
    distance = np.linalg.norm(mesh.vertices - CENTRE.numpy(), axis=1)
    assert np.abs(distance - 0.6).max() < 2e-3  # of voxels of 0.0625
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.01)  # positive: triangles face outwards
    same = surface(-BALL[:, None], inside="positive")
    assert same.volume == pytest.approx(mesh.volume)
    shifted = surface((1 - (BALL / 0.3).clamp(-1, 1)) / 2, level=0.5, inside="positive")
    assert shifted.volume == pytest.approx(mesh.volume, rel=1e-3)


def test_axes_are_not_exchanged() -> None:
    slab = torch.maximum((GRID / torch.tensor([0.8, 0.5, 0.2])).abs().amax(1) - 1, torch.tensor(-0.5))
    assert surface(slab).extents == pytest.approx([1.6, 1.0, 0.4], abs=0.05)


def test_points_lie_on_the_surface_everywhere() -> None:
    points, normals = surface_points(surface(BALL), 3000, seed=1)
    away = points - CENTRE.numpy()
    assert points.shape == normals.shape == (3000, 3)
    assert np.abs(np.linalg.norm(away, axis=1) - 0.6).max() < 5e-3
    assert ((away / 0.6 * normals).sum(1) > 0.95).all()
    assert np.abs(away.mean(0)).max() < 0.03
    assert np.array_equal(points, surface_points(surface(BALL), 3000, seed=1)[0])
    assert not np.array_equal(points, surface_points(surface(BALL), 3000, seed=2)[0])


def test_clouds_of_fields_leave_out_those_without_a_surface() -> None:
    larger = GRID.norm(dim=1) - 0.8
    clouds, empty = point_clouds(torch.stack([BALL, torch.ones_like(BALL), larger])[..., None], 400)
    assert clouds.shape == (2, 400, 3)
    assert empty == 1
    chamfer = chamfer_allpairs(clouds, clouds)
    assert chamfer.diagonal().abs().max() < 1e-12
    assert chamfer[0, 1] > 0.02
    with pytest.raises(FieldError, match="none of 1 fields crosses 0"):
        point_clouds(torch.ones(1, 8))


def test_fields_without_a_surface() -> None:
    with pytest.raises(FieldError, match=r"no surface: the field lies in 1..1 on this grid and does not cross 0"):
        surface(torch.ones(27))
    with pytest.raises(FieldError, match=r"does not cross 0.9; train longer"):
        surface(torch.linspace(-0.5, 0.5, 27), level=0.9)
    for count in (10, 1):
        with pytest.raises(FieldError, match=f"{count} values are no cube"):
            surface(torch.zeros(count))
    for wrong in (math.nan, math.inf):
        values = BALL.clone()
        values[5] = wrong
        with pytest.raises(FieldError, match="NaN or infinity: it has no surface"):
            surface(values)
    with pytest.raises(FieldError, match="NaN or infinity"):
        point_clouds(values[None])
    with pytest.raises(FieldError, match="0 points of a surface"):
        surface_points(surface(BALL), 0)
    with pytest.raises(FieldError, match="of a surface of area 0"):
        surface_points(trimesh.Trimesh(np.zeros((3, 3)), [[0, 1, 2]], process=False))
