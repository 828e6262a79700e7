"""Gaussian random fields on the circle and the sphere: the data with an exact truth (sections 4 and 6).

Coefficients are drawn, one matrix product with the basis gives the fields: f = sum_k sqrt(variance_k) z_k basis_k.

circle  modes 1..M; variance of mode m proportional to (1 + m)^-tilt, total variance 1; coordinates (cos, sin).
        Orthonormal columns: 1/sqrt(2 pi), then cos(m a)/sqrt(pi), sin(m a)/sqrt(pi) for m = 1..M.
sphere  real harmonics l = 1..L, no monopole; C_l proportional to (1 + l)^-tilt, sum_l (2l + 1) C_l / 4 pi = 1, on the
        Fibonacci grid. Columns as in `oracle.real_sph_harm`: l^2 + l + m.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..oracle import fibonacci_sphere, real_sph_harm, sphere_spectrum
from .fields import FieldBatch, FieldSet, Source, Truth, check_at_least, recipe_fingerprint


@dataclass(frozen=True)
class GaussianSource(Source):
    """Fields drawn without end: z times the basis, each column scaled by its standard deviation [columns, N]."""

    coords: Float[Tensor, "n c"]
    scaled_basis: Float[Tensor, "columns n"]

    def __call__(self, index: Int64[Tensor, " batch"], generator: torch.Generator) -> FieldBatch:
        z = torch.randn(len(index), len(self.scaled_basis), generator=generator, device=generator.device)
        return FieldBatch(self.coords, (z.to(self.coords.device) @ self.scaled_basis)[..., None])


def circle_grf(modes: int = 3, tilt: float = 2.0, points: int = 48) -> FieldSet:
    """Fields S^1 -> R at `points` equal steps of the angle, from 0.

    Args:
        modes: M, the highest mode.
        tilt: of the spectrum: variance of mode m proportional to (1 + m)^-tilt.
        points: N, of a field.

    Raises:
        FieldError: modes or points below 1.
    """
    check_at_least("modes", modes, 1)
    check_at_least("points", points, 1)
    mode = np.arange(1, modes + 1)
    variance = (1.0 + mode) ** -tilt
    spectrum = np.concatenate([[0.0], np.pi * variance / variance.sum()])
    angle = 2 * np.pi * np.arange(points) / points
    coords = np.stack([np.cos(angle), np.sin(angle)], -1)
    degree = np.concatenate([[0], np.repeat(mode, 2)])
    truth = Truth(spectrum[degree], degree, spectrum, partial(circle_basis, modes=modes))
    detail = f"Gaussian random fields on the circle drawn by recipe: modes 1..{modes}, tilt {tilt:g}"
    return _field_set("circle_grf", detail, coords, truth, modes=modes, tilt=tilt, points=points)


def sphere_grf(degree: int = 5, tilt: float = 2.0, points: int = 192) -> FieldSet:
    """Fields S^2 -> R on the Fibonacci grid of `points`.

    Args:
        degree: L, the highest degree.
        tilt: of the spectrum: C_l proportional to (1 + l)^-tilt.
        points: N, of a field.

    Raises:
        FieldError: degree or points below 1.
    """
    check_at_least("degree", degree, 1)
    check_at_least("points", points, 1)
    truth = sphere_truth(sphere_spectrum(degree, tilt))
    detail = f"Gaussian random fields on the sphere drawn by recipe: degrees 1..{degree}, tilt {tilt:g}"
    coords = fibonacci_sphere(points)
    return _field_set("sphere_grf", detail, coords, truth, degree=degree, tilt=tilt, points=points)


def sphere_truth(spectrum: Float64[np.ndarray, " degrees"], gaussian: bool = True) -> Truth:
    """The law of an isotropic field with these C_l (l = 0..L)."""
    band = len(spectrum) - 1
    degree = np.repeat(np.arange(band + 1), 2 * np.arange(band + 1) + 1)
    return Truth(spectrum[degree], degree, spectrum, partial(real_sph_harm, L=band), gaussian)


def circle_basis(points: Float64[np.ndarray, "n 2"], modes: int) -> Float64[np.ndarray, "n columns"]:
    """1/sqrt(2 pi), cos(m a)/sqrt(pi), sin(m a)/sqrt(pi) for m = 1..M at points (cos a, sin a): columns 0, 2m-1, 2m."""
    angle = np.arctan2(points[:, 1], points[:, 0])[:, None] * np.arange(1, modes + 1)
    waves = np.stack([np.cos(angle), np.sin(angle)], -1).reshape(len(points), -1)
    return np.concatenate([np.full((len(points), 1), 1 / np.sqrt(2 * np.pi)), waves / np.sqrt(np.pi)], 1)


def _field_set(name: str, detail: str, coords: np.ndarray, truth: Truth, **recipe: float) -> FieldSet:
    scaled = truth.basis(coords) * np.sqrt(truth.variances)
    grid = torch.from_numpy(coords).float()
    source = GaussianSource(grid, torch.from_numpy(scaled.T[truth.variances > 0]).float().contiguous())
    return FieldSet(
        name=name,
        kind="synthetic",
        detail=detail,
        fingerprint=recipe_fingerprint(name, **recipe),
        num_points=len(coords),
        coord_dim=coords.shape[1],
        signal_dim=1,
        train=source,
        test=source,
        bounded=False,
        shared_coords=grid,
        truth=truth,
    )
