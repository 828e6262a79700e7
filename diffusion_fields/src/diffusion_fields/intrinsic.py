"""Intrinsic coordinates of a surface: eigenfunctions of its Laplace-Beltrami operator (section 9, item 6).

On a triangle mesh the operator is the cotangent matrix S against the lumped mass matrix M,

    S phi = lambda M phi,   S_ij = -(cot a_ij + cot b_ij) / 2,   M_ii = a third of the area around vertex i,

both made of edge lengths alone: the columns phi(x) that stand in for gamma(x) (``coord_embedding="none"`` or
``"trainable"``) do not notice a rigid motion of the mesh, and so neither do the samples (Manifold Diffusion Fields).

What an eigenfunction leaves open: its sign, fixed here by making the sum of M phi^3 positive (an intrinsic quantity;
where it vanishes, the entry of largest magnitude is positive), and the basis of an eigenspace of more than one
dimension (a sphere's, a cube's), which no rule fixes intrinsically: it is the solver's choice there, and coordinates of
such a mesh are to be computed once and kept with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Int
from scipy.sparse.linalg import eigsh

from diffusion_fields.errors import FieldError

Array = np.ndarray[Any, Any]


class Spectrum(NamedTuple):
    """The lowest part of a mesh's Laplace-Beltrami spectrum."""

    eigenvalues: Float[Array, " mode"]
    #: phi, one column a mode, orthonormal in M
    functions: Float[Array, "vertex mode"]
    #: diagonal of M: the area that each vertex stands for
    mass: Float[Array, " vertex"]

    def coordinates(self) -> Float[Array, "vertex mode"]:
        """phi times the root of the total area: mean square 1 per column, whatever the size of the mesh (float32)."""
        return (self.functions * np.sqrt(self.mass.sum())).astype(np.float32)


def cotangent_laplacian(
    vertices: Float[Array, "vertex 3"], faces: Int[Array, "face 3"]
) -> tuple[sparse.csr_matrix, Float[Array, " vertex"]]:
    """S (positive semi-definite) and the diagonal of M, in float64.

    Raises:
        FieldError: wrong shapes, a face that names no vertex, a vertex without a face, a face without area, NaN.
    """
    vertices, faces = _checked(vertices, faces)
    n, corners = len(vertices), vertices[faces]  # (face, 3 corners, 3)
    edges = np.roll(corners, -1, 1) - np.roll(corners, 1, 1)  # edge k lies opposite corner k
    # (lengths, not coordinates, decide: the two edges that meet in corner k point along -e_{k+1} and e_{k+2})
    dots = -np.einsum("fki,fki->fk", np.roll(edges, -1, 1), np.roll(edges, 1, 1))
    double_area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    longest = np.square(edges).sum(-1).max(1)
    if (flat := np.flatnonzero(double_area <= 1e-12 * longest)).size:
        raise FieldError(f"face {flat[0]} of the mesh has no area: remove degenerate faces first")
    half_cot = dots / double_area[:, None] / 2
    i, j = np.roll(faces, -1, 1).ravel(), np.roll(faces, 1, 1).ravel()
    off = sparse.coo_matrix((-half_cot.ravel(), (i, j)), (n, n)).tocsr()
    off = off + off.T
    stiffness = (off - sparse.diags_array(np.asarray(off.sum(1)).ravel())).tocsr()
    mass = np.bincount(faces.ravel(), np.repeat(double_area / 6, 3), n)
    if (lost := np.flatnonzero(mass == 0)).size:
        raise FieldError(f"vertex {lost[0]} of the mesh belongs to no face: remove unreferenced vertices first")
    return stiffness, mass


def laplace_beltrami(mesh: Any, num_modes: int, faces: Int[Array, "face 3"] | None = None) -> Spectrum:
    """The ``num_modes`` lowest eigenpairs above the constant (which carries no coordinate and is left out).

    Args:
        mesh: a ``trimesh.Trimesh``, or its vertices (n, 3) with ``faces`` beside.
        num_modes: how many eigenfunctions; less than the number of vertices minus one.
        faces: triangles (m, 3) as vertex indices, when ``mesh`` is an array.

    Raises:
        FieldError: see :func:`cotangent_laplacian`; too many modes; a mesh of several pieces.
    """
    vertices, faces = (mesh.vertices, mesh.faces) if faces is None and hasattr(mesh, "faces") else (mesh, faces)
    if faces is None:
        raise FieldError("faces are missing: pass a trimesh mesh, or vertices together with faces")
    stiffness, mass = cotangent_laplacian(np.asarray(vertices), np.asarray(faces))
    n = len(mass)
    if not 1 <= num_modes < n - 1:
        raise FieldError(f"num_modes is {num_modes}: a mesh of {n} vertices has 1..{n - 2} modes to use")
    pieces = sparse.csgraph.connected_components(stiffness, directed=False)[0]
    if pieces > 1:
        raise FieldError(f"the mesh has {pieces} separate pieces: Laplace-Beltrami coordinates need a connected one")
    # M^-1/2 S M^-1/2 u = lambda u, phi = M^-1/2 u; shifted a little below zero, where the matrix is definite
    root = 1 / np.sqrt(mass)
    symmetric = sparse.diags_array(root) @ stiffness @ sparse.diags_array(root)
    shift = -1e-3 * 4 * np.pi / mass.sum()
    start = np.random.default_rng(0).standard_normal(n)
    values, vectors = eigsh(symmetric.tocsc(), k=num_modes + 1, sigma=shift, which="LM", v0=start)
    order = np.argsort(values)[1:]
    return Spectrum(values[order], _signed(root[:, None] * vectors[:, order], mass), mass)


def _signed(phi: Array, mass: Array) -> Array:
    """Each column with positive third moment; where that is nil, with a positive entry of largest magnitude."""
    skew = mass @ phi**3
    scale = mass @ np.abs(phi) ** 3
    peak = phi[np.abs(phi).argmax(0), np.arange(phi.shape[1])]
    return phi * np.where(np.abs(skew) > 1e-6 * scale, np.sign(skew), np.sign(peak))


def _checked(vertices: Array, faces: Array) -> tuple[Array, Array]:
    if vertices.ndim != 2 or vertices.shape[1] != 3 or len(vertices) == 0:
        raise FieldError(f"vertices have shape {vertices.shape}: expected (vertices, 3)")
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0 or faces.dtype.kind not in "iu":
        raise FieldError(f"faces have shape {faces.shape} and type {faces.dtype}: expected integers (triangles, 3)")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise FieldError(f"faces name vertices {faces.min()}..{faces.max()}: expected 0..{len(vertices) - 1}")
    if not np.isfinite(vertices).all():
        raise FieldError("vertices hold NaN or infinite coordinates: expected finite numbers")
    return vertices.astype(np.float64), faces.astype(np.int64)
