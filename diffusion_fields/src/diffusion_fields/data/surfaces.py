"""Random fields on a surface, told by intrinsic coordinates (section 9.6).

A point of a mesh has no coordinates (x, y, z) here but the values of the mesh's first Laplace-Beltrami eigenfunctions:
they do not notice a rigid motion, so neither does a network that reads them (`coord_embedding: none`).
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64
from shared.data.root import DamagedData, MissingData

from ..intrinsic import laplace_beltrami
from .fields import FieldSet, Truth, check_at_least
from .gaussian import GaussianSource


def pebble(subdivisions: int = 3) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
    """Vertices and faces of a ball made unlike itself in every direction.

    Without a symmetry eigenvalues are simple and signs can be fixed: eigenfunctions are unique, and intrinsic.
    """
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    x, y, z = np.asarray(ball.vertices).T
    radius = 1 + 0.25 * x + 0.15 * y - 0.1 * z + 0.1 * x * y
    return np.asarray(ball.vertices) * radius[:, None] * (1.0, 0.8, 0.6), np.asarray(ball.faces)


def mesh_grf(
    root: Path | None = None, mesh: str = "pebble", modes: int = 8, features: int = 16, tilt: float = 2.0
) -> FieldSet:
    """Fields f = sum_k z_k phi_k over the vertices of a mesh, of unit variance on average over its area.

    Args:
        root: where a mesh file is looked for (default: `DATA_ROOT`, else `./data`).
        mesh: `pebble` (of 642 vertices, without symmetry), or a file under `root` (.ply, .obj, .stl, .off).
        modes: eigenfunctions phi_1 .. phi_modes that the fields are made of.
        features: eigenfunctions that are the coordinates; at least `modes`.
        tilt: variance of z_k proportional to (1 + k)^-tilt.

    Raises:
        FieldError: fewer features than modes, or more than the mesh has; a mesh that is degenerate or in pieces.
        MissingData, DamagedData: no such file, or no mesh in it.
    """
    check_at_least("modes", modes, 1)
    check_at_least("features", features, modes)
    vertices, faces, kind, detail = _mesh(root, mesh)
    coords = laplace_beltrami(vertices, features, faces).coordinates().astype(np.float64)
    variance = (2.0 + np.arange(modes)) ** -tilt
    variances = np.concatenate([[0.0], variance / variance.sum()])
    truth = Truth(variances, np.arange(modes + 1), variances, partial(eigenfunctions, modes=modes))
    grid = torch.from_numpy(coords).float()
    scaled = (truth.basis(coords) * np.sqrt(variances))[:, 1:]
    source = GaussianSource(grid, torch.from_numpy(scaled.T).float().contiguous())
    recipe = f"mesh_grf {modes} {features} {tilt}".encode()
    return FieldSet(
        name="mesh_grf",
        kind="synthetic",
        detail=f"Gaussian random fields drawn by recipe on {detail}: {modes} eigenfunctions, tilt {tilt:g}",
        fingerprint=hashlib.sha256(recipe + vertices.tobytes() + faces.tobytes() + kind.encode()).hexdigest(),
        num_points=len(coords),
        coord_dim=features,
        signal_dim=1,
        train=source,
        test=source,
        bounded=False,
        shared_coords=grid,
        truth=truth,
    )


def eigenfunctions(points: Float64[np.ndarray, "n features"], modes: int) -> Float64[np.ndarray, "n columns"]:
    """The constant and the eigenfunctions, which are the first coordinates themselves."""
    return np.concatenate([np.ones((len(points), 1)), points[:, :modes]], 1)


def _mesh(root: Path | None, name: str) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"], str, str]:
    """(vertices, faces, kind, what it is)."""
    import trimesh
    from shared.data.root import data_root

    if name == "pebble":
        return *pebble(), "pebble", "a pebble"
    path = (data_root() if root is None else Path(root)) / name
    if not path.is_file():
        raise MissingData(f"{path} is missing: put a mesh there (.ply .obj .stl .off), or choose mesh: pebble")
    try:
        loaded = trimesh.load_mesh(path)
        vertices, faces = np.asarray(loaded.vertices, np.float64), np.asarray(loaded.faces, np.int64)
    except Exception as error:  # trimesh's readers raise whatever their parsers meet
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DamagedData(f"{path} is damaged or no mesh ({reason[:100]})") from None
    return vertices, faces, "file", f"the mesh {path.name}"
