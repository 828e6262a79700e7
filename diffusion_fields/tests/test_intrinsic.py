"""Laplace-Beltrami coordinates: the sphere's known spectrum, and indifference to where the mesh stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from diffusion_fields.errors import FieldError
from diffusion_fields.intrinsic import cotangent_laplacian, laplace_beltrami
from diffusion_fields.models import ScoreNetwork
from scipy.spatial.transform import Rotation


@pytest.fixture(scope="module")
def lump() -> Any:
    """A closed surface without symmetry: all its eigenvalues are simple."""
    mesh = trimesh.creation.icosphere(3)
    x, y, z = mesh.vertices.T
    mesh.vertices = mesh.vertices * np.array([1.0, 1.4, 0.7]) * (1 + 0.2 * x + 0.15 * y * z + 0.1 * z)[:, None]
    return mesh


def test_the_spheres_eigenvalues_are_l_times_l_plus_1() -> None:
    spectrum = laplace_beltrami(trimesh.creation.icosphere(4), 15)
    expected = np.repeat([l * (l + 1.0) for l in (1, 2, 3)], [3, 5, 7])
    assert np.allclose(spectrum.eigenvalues, expected, rtol=1e-2)
    assert np.isclose(spectrum.mass.sum(), 4 * np.pi, rtol=5e-3)


def test_the_spheres_first_eigenspace_is_the_coordinates() -> None:
    mesh = trimesh.creation.icosphere(3)
    spectrum = laplace_beltrami(mesh, 3)
    fit = spectrum.functions @ (spectrum.functions.T @ (spectrum.mass[:, None] * mesh.vertices))
    assert np.abs(fit - mesh.vertices).max() < 1e-2


def test_functions_are_orthonormal_and_coordinates_have_unit_mean_square(lump: Any) -> None:
    spectrum = laplace_beltrami(lump, 8)
    gram = spectrum.functions.T @ (spectrum.mass[:, None] * spectrum.functions)
    assert np.allclose(gram, np.eye(8), atol=1e-8)
    assert np.allclose(spectrum.mass @ spectrum.functions, 0, atol=1e-8)  # the constant is not among them
    assert np.allclose(np.average(spectrum.coordinates() ** 2, axis=0, weights=spectrum.mass), 1, atol=1e-5)


def test_a_rigid_motion_changes_nothing(lump: Any) -> None:
    rotation = Rotation.from_euler("xyz", [0.7, -1.1, 2.3]).as_matrix()
    here = laplace_beltrami(lump, 6)
    there = laplace_beltrami(lump.vertices @ rotation.T + np.array([3.0, -2.0, 0.5]), 6, lump.faces)
    assert np.allclose(here.eigenvalues, there.eigenvalues, rtol=1e-8)
    assert np.abs(here.coordinates() - there.coordinates()).max() < 1e-5


def test_the_order_of_the_vertices_changes_no_sign(lump: Any) -> None:
    order = np.random.default_rng(1).permutation(len(lump.vertices))
    inverse = np.argsort(order)
    here = laplace_beltrami(lump, 6)
    there = laplace_beltrami(lump.vertices[order], 6, inverse[lump.faces])
    assert np.abs(here.coordinates()[order] - there.coordinates()).max() < 1e-5


def test_scaling_the_mesh_scales_the_eigenvalues_only(lump: Any) -> None:
    here, there = laplace_beltrami(lump, 6), laplace_beltrami(10.0 * lump.vertices, 6, lump.faces)
    assert np.allclose(here.eigenvalues, 100 * there.eigenvalues, rtol=1e-8)
    assert np.abs(here.coordinates() - there.coordinates()).max() < 1e-5


def test_the_laplacian_of_one_triangle_by_hand() -> None:
    stiffness, mass = cotangent_laplacian(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    assert np.allclose(stiffness.toarray(), [[1, -0.5, -0.5], [-0.5, 0.5, 0], [-0.5, 0, 0.5]])
    assert np.allclose(mass, 1 / 6)


def test_samples_do_not_notice_a_rigid_motion(lump: Any) -> None:
    """The network with intrinsic coordinates gives the same output on a moved mesh."""
    moved = lump.copy()
    moved.apply_transform(trimesh.transformations.random_rotation_matrix(np.array([0.2, 0.5, 0.8])))
    torch.manual_seed(0)
    net = ScoreNetwork(6, 1, 0, 16, 4, 16, 1, 1, 2, coord_embedding="none").eval()
    here, there = (torch.from_numpy(laplace_beltrami(mesh, 6).coordinates()) for mesh in (lump, moved))
    y, t = torch.randn(2, len(here), 1), torch.tensor([10, 700])
    with torch.no_grad():
        a = net(here[::9], y[:, ::9], t, here, y)
        b = net(there[::9], y[:, ::9], t, there, y)
    assert (a - b).abs().max() < 1e-4


TRIANGLE = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


@pytest.mark.parametrize(
    ("vertices", "faces", "modes", "message"),
    [
        (TRIANGLE[:, :2], TETRAHEDRON, 1, r"vertices have shape \(4, 2\): expected \(vertices, 3\)"),
        (TRIANGLE, TETRAHEDRON[:, :2], 1, r"faces have shape \(4, 2\).*expected integers \(triangles, 3\)"),
        (TRIANGLE, TETRAHEDRON + 1, 1, r"faces name vertices 1\.\.4: expected 0\.\.3"),
        (TRIANGLE * np.nan, TETRAHEDRON, 1, "vertices hold NaN"),
        (TRIANGLE * [1, 1, 0], np.array([[0, 1, 1]]), 1, "face 0 of the mesh has no area"),
        (TRIANGLE, TETRAHEDRON[:1], 1, "vertex 3 of the mesh belongs to no face"),
        (TRIANGLE, TETRAHEDRON, 3, r"num_modes is 3: a mesh of 4 vertices has 1\.\.2 modes"),
        (TRIANGLE, None, 1, "faces are missing"),
        (np.vstack((TRIANGLE, TRIANGLE + 5)), np.vstack((TETRAHEDRON, TETRAHEDRON + 4)), 1, "2 separate pieces"),
    ],
)
def test_a_mesh_that_cannot_be_used_is_named(vertices: Any, faces: Any, modes: int, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        laplace_beltrami(vertices, modes, faces)
