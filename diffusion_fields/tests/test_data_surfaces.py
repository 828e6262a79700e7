"""Fields on a mesh by intrinsic coordinates: their law, and that rigid motions change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from diffusion_fields.data import load
from diffusion_fields.data.surfaces import pebble
from diffusion_fields.errors import FieldError
from diffusion_fields.intrinsic import laplace_beltrami
from shared.data.root import DamagedData, MissingData


def write(path: Path, move: bool) -> None:
    mesh = trimesh.Trimesh(*pebble(2), process=False)
    if move:
        angle, axis = 1.1, np.array([1.0, 2.0, -0.5])
        turn = trimesh.transformations.rotation_matrix(angle, axis)[:3, :3]
        mesh.vertices = mesh.vertices @ turn.T + (3, -2, 7)
    mesh.export(path)


def test_fields_have_their_covariance_and_unit_variance_over_the_area() -> None:
    fields = load("mesh_grf", modes=5, features=7)
    assert (fields.num_points, fields.coord_dim, fields.kind) == (642, 7, "synthetic")
    assert fields.shared_coords is not None
    assert fields.truth is not None
    K = fields.truth.covariance(fields.shared_coords.double().numpy())
    drawn = fields.train(torch.arange(20_000), torch.Generator().manual_seed(0)).signal[..., 0].double().numpy()
    found = drawn[:, :60].T @ drawn[:, :60] / len(drawn)
    error = np.sqrt((np.outer(K.diagonal()[:60], K.diagonal()[:60]) + K[:60, :60] ** 2) / len(drawn))
    assert (np.abs(found - K[:60, :60]) < 5 * error).all()
    vertices, faces = pebble()
    area = laplace_beltrami(vertices, 5, faces).mass
    assert np.average(K.diagonal(), weights=area) == pytest.approx(1, abs=1e-5)
    assert K.diagonal().std() > 0.1  # but not at every point


def test_a_rigid_motion_changes_no_coordinate(tmp_path: Path) -> None:
    for name, move in (("here.ply", False), ("there.ply", True)):
        write(tmp_path / name, move)
    here, there = (load("mesh_grf", tmp_path, mesh=name, modes=4, features=8) for name in ("here.ply", "there.ply"))
    assert here.shared_coords is not None
    assert there.shared_coords is not None
    assert torch.allclose(here.shared_coords, there.shared_coords, atol=2e-3)
    assert not np.allclose(
        trimesh.load_mesh(tmp_path / "here.ply").vertices, trimesh.load_mesh(tmp_path / "there.ply").vertices, atol=0.5
    )


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.ply").write_bytes(b"nothing")
    with pytest.raises(MissingData, match=r"none.ply is missing: put a mesh there"):
        load("mesh_grf", tmp_path, mesh="none.ply")
    with pytest.raises(DamagedData, match=r"bad.ply is damaged or no mesh"):
        load("mesh_grf", tmp_path, mesh="bad.ply")
    with pytest.raises(FieldError, match="features is 4: it has to be at least 8"):
        load("mesh_grf", features=4)
