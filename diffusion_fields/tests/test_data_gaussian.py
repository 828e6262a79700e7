"""Gaussian fields against their closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_fields.data import FieldSet, load
from diffusion_fields.data.gaussian import circle_basis, sphere_truth
from diffusion_fields.errors import FieldError
from diffusion_fields.oracle import fibonacci_sphere, grf_cov

GOLDEN = Path(__file__).parent / "golden"
SETS = [("circle_grf", {"modes": 3, "points": 24}), ("sphere_grf", {"degree": 4, "tilt": 1.5, "points": 40})]


def fields(data: FieldSet, n: int, seed: int = 0) -> np.ndarray:
    return data.train(torch.arange(n), torch.Generator().manual_seed(seed)).signal[..., 0].double().numpy()


@pytest.mark.parametrize(("name", "options"), SETS)
def test_samples_have_the_exact_covariance(name: str, options: dict) -> None:
    data = load(name, **options)
    assert data.truth is not None
    assert data.shared_coords is not None
    exact = data.truth.covariance(data.shared_coords.numpy())
    assert np.abs(exact.diagonal() - 1).max() < 1e-5  # unit variance
    n = 20_000
    drawn = fields(data, n)
    error = np.sqrt((exact.diagonal()[:, None] * exact.diagonal() + exact**2) / n)
    assert (np.abs(drawn.T @ drawn / n - exact) / error).max() < 5
    assert abs((drawn**4).mean() / (drawn**2).mean() ** 2 - 3) < 0.1  # Gaussian


def test_circle_covariance_is_a_sum_of_cosines() -> None:
    data = load("circle_grf", modes=3, tilt=2, points=16)
    v = np.array([1 / 4, 1 / 9, 1 / 16])
    v /= v.sum()
    angle = 2 * np.pi * np.arange(16) / 16
    expected = sum(v[m - 1] * np.cos(m * (angle[:, None] - angle)) for m in (1, 2, 3))
    coords = np.stack([np.cos(angle), np.sin(angle)], -1)
    assert data.truth is not None
    assert data.shared_coords is not None
    assert np.allclose(data.shared_coords.numpy(), coords, atol=1e-6)
    assert np.abs(data.truth.covariance(coords) - expected).max() < 1e-12
    assert np.isclose(data.truth.variances.sum(), 2 * np.pi)
    assert np.allclose(data.truth.spectrum, [0, *(np.pi * v)])


def test_circle_basis_is_orthonormal() -> None:
    angle = 2 * np.pi * np.arange(64) / 64
    basis = circle_basis(np.stack([np.cos(angle), np.sin(angle)], -1), 5)
    assert np.abs(basis.T @ basis * 2 * np.pi / 64 - np.eye(11)).max() < 1e-12
    assert np.allclose(basis[:, 4], np.sin(2 * angle) / np.sqrt(np.pi))


def test_sphere_truth_is_the_golden_one() -> None:
    golden = np.load(GOLDEN / "grf_sphere.npz")
    truth = sphere_truth(golden["C_l"])
    assert np.abs(truth.covariance(golden["points"]) - golden["cov"]).max() < 1e-9
    assert np.abs(truth.basis(golden["points"]) - golden["real_sph_harm"]).max() < 1e-9


def test_sphere_spectrum_and_grid() -> None:
    data = load("sphere_grf", degree=5, tilt=2.0, points=100)
    assert data.truth is not None
    assert data.shared_coords is not None
    c = data.truth.spectrum
    assert c[0] == 0
    assert np.allclose(c[1:] / c[1], [((1 + l) / 2) ** -2.0 for l in range(1, 6)])
    assert np.isclose(data.truth.variances.sum(), 4 * np.pi)
    points = fibonacci_sphere(100)
    assert np.allclose(data.shared_coords.numpy(), points, atol=1e-6)
    assert np.allclose(data.truth.covariance(points, points[:7]), grf_cov(points, points[:7], c), atol=1e-9)


def test_truth_samples_anywhere() -> None:
    data = load("circle_grf", modes=2, points=8)
    assert data.truth is not None
    fine = np.stack([np.cos(t := np.linspace(0, 6, 30)), np.sin(t)], -1)
    drawn = data.truth.sample(20_000, fine, torch.Generator().manual_seed(0))
    assert drawn.shape == (20_000, 30, 1)
    cov = (drawn[..., 0].T @ drawn[..., 0] / 20_000).numpy()
    assert np.abs(cov - data.truth.covariance(fine)).max() < 5 * np.sqrt(2 / 20_000)


def test_draws_depend_on_the_generator_only() -> None:
    data = load("sphere_grf", points=30)
    assert (fields(data, 5) == fields(data, 5)).all()
    assert (fields(data, 5) != fields(data, 5, seed=1)).any()
    assert data.kind == "synthetic"
    assert data.fingerprint == load("sphere_grf", points=30).fingerprint != load("sphere_grf", points=31).fingerprint
    assert data.train.size is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("circle_grf", {"modes": 0}, "modes is 0: it has to be at least 1"),
        ("sphere_grf", {"degree": 0}, "degree is 0: it has to be at least 1"),
        ("sphere_grf", {"points": 0}, "points is 0: it has to be at least 1"),
        ("circle_grf", {"tlt": 1}, "unknown option 'tlt' of circle_grf: .*did you mean tilt"),
        ("circle_gfr", {}, "unknown data set 'circle_gfr': .*did you mean circle_grf"),
    ],
)
def test_what_cannot_be_is_said(name: str, options: dict, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        load(name, **options)
