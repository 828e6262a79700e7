"""The yardsticks against golden numbers and closed forms, of NumPy arrays and of tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusion_fields.data import gaussian
from diffusion_fields.errors import FieldError
from diffusion_fields.metrics import (
    SpectrumRatio,
    chamfer_allpairs,
    frechet,
    grf_metrics,
    knn_metrics,
    mmd_cov,
    w2_sq_second_moments,
)
from diffusion_fields.oracle import w2_sq_gaussian
from shared.errors import UserError

torch.set_num_threads(1)
GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz", allow_pickle=False)


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_golden(form: Callable[[np.ndarray], Any]) -> None:
    real, fake = form(GOLDEN["real"]), form(GOLDEN["fake"])
    assert frechet(real, fake) == pytest.approx(float(GOLDEN["frechet"]), abs=1e-8)
    found = knn_metrics(real, fake, int(GOLDEN["k"]))
    assert found == {
        n: pytest.approx(float(GOLDEN[n]), abs=1e-8) for n in ("precision", "recall", "density", "coverage")
    }
    chamfer = chamfer_allpairs(form(GOLDEN["clouds_gen"]), form(GOLDEN["clouds_real"]))
    assert np.abs(chamfer.numpy() - GOLDEN["chamfer"]).max() < 1e-8
    assert mmd_cov(form(GOLDEN["chamfer"])) == pytest.approx((float(GOLDEN["mmd"]), float(GOLDEN["cov"])), abs=1e-8)


def test_frechet_where_covariances_are_singular() -> None:
    """Fewer samples than features, and a feature that is always 0: the distance of a set to itself is 0 to rounding."""
    rng = np.random.default_rng(0)
    few = rng.normal(size=(20, 32))
    few[:, 3] = 0
    assert frechet(few, few) < 1e-10
    assert frechet(few, few + 2) == pytest.approx(32 * 4, abs=1e-8)
    # diag(1, 0) against diag(4, 9): (1 - 2)^2 + 9, means equal.
    corners = np.array([[1.0, 0], [-1, 0]]) / 2**0.5, np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]) * 3**0.5 / 2
    assert frechet(corners[0], corners[1] * [2, 3]) == pytest.approx(1 + 9, abs=1e-9)


def test_neighbours_on_the_edge_of_a_ball_lie_in_it() -> None:
    """Of a set against itself every ball holds its centre and k others, whatever rounding says."""
    points = np.random.default_rng(1).normal(size=(200, 32))
    itself = {"precision": 1, "recall": 1, "density": pytest.approx(4 / 3), "coverage": 1}
    assert knn_metrics(points, points, 3) == itself
    assert knn_metrics(points, points[::-1].copy(), 3) == itself
    apart = knn_metrics(points, points + 1000, 3)
    assert apart == dict.fromkeys(("precision", "recall", "density", "coverage"), 0.0)
    assert knn_metrics(np.array([[0.0], [1], [2], [10]]), np.array([[1.5], [30], [31], [32]]), 2) == {
        "precision": 0.25, "recall": 1.0, "density": 0.5, "coverage": 1.0,
    }  # fmt: skip


def test_chamfer_of_known_clouds() -> None:
    cloud = torch.rand(3, 10, 3)
    assert chamfer_allpairs(cloud, cloud.double()).diagonal().abs().max() < 1e-12
    assert chamfer_allpairs(torch.zeros(1, 4, 3), torch.tensor([[[3.0, 0, 0], [0, 4, 0]]])).item() == pytest.approx(
        21.5
    )
    mmd, cov = mmd_cov(np.array([[1.0, 5, 5], [2, 6, 6]]))  # both generated are nearest to the first
    assert (mmd, cov) == (pytest.approx((1 + 5 + 5) / 3), pytest.approx(1 / 3))


def test_what_is_known_of_a_gaussian_random_field() -> None:
    fields = gaussian.circle_grf(modes=3, points=48)
    truth = fields.truth
    assert truth is not None
    assert fields.shared_coords is not None
    basis = truth.basis(fields.shared_coords.numpy())
    samples = fields.test(torch.arange(4000), torch.Generator().manual_seed(0)).signal[..., 0]
    found = grf_metrics(samples, basis, truth.variances, truth.degree)
    assert sorted(found.spectrum_ratio) == [1, 2, 3]
    assert list(found.spectrum_ratio.values()) == pytest.approx([1, 1, 1], abs=0.08)
    assert found.grain < 1e-10
    assert found.kurtosis == pytest.approx(3, abs=0.3)
    assert found.w2_sq < 3 * found.w2_sq_noise < 0.02
    # The same functions at half of the height with pointwise noise: ratios of a quarter, and the noise off the band.
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(1))
    grainy = grf_metrics(samples / 2 + 0.3 * noise, basis, truth.variances, truth.degree)
    assert grainy.grain == pytest.approx(0.09 * (48 - 7) / 48, rel=0.02)
    per_mode = 0.09 * 2 * np.pi / 48 / truth.spectrum[1:]
    assert list(grainy.spectrum_ratio.values()) == pytest.approx(0.25 + per_mode, abs=0.03)
    metric = SpectrumRatio(basis, truth.variances, truth.degree)
    for part in samples.split(1500):
        metric.update(part)
    assert metric.compute().tolist() == pytest.approx(list(found.spectrum_ratio.values()), rel=1e-9)


def test_wasserstein_of_second_moments_is_the_oracles() -> None:
    rng = np.random.default_rng(2)
    coefficients, variances = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)), np.array([0, 0.5, 1, 1, 2, 3])
    ours = w2_sq_second_moments(torch.from_numpy(coefficients), torch.from_numpy(variances))
    exact = w2_sq_gaussian(coefficients.T @ coefficients / 50, np.diag(variances))
    assert ours == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet(np.zeros((3, 2)), np.zeros((3, 4))), r"features of shape \(3, 4\): \(any, 2\) is expected"),
        (lambda: frechet(np.zeros((1, 2)), np.zeros((3, 2))), "1 and 3 samples: a covariance needs at least 2"),
        (lambda: frechet(np.full((3, 2), np.nan), np.zeros((3, 2))), "features holds NaN or infinity"),
        (lambda: frechet(np.zeros((0, 2)), np.zeros((3, 2))), r"features of shape \(0, 2\) is empty"),
        (lambda: knn_metrics(np.zeros((3, 2)), np.zeros((5, 2)), 3), "k is 3 for 3 real and 5 generated"),
        (lambda: mmd_cov(np.zeros(4)), r"\[generated, real\] of shape \(4,\): \(any, any\) is expected"),
        (lambda: grf_metrics(np.ones((2, 3)), np.ones((3, 5)), np.ones(5), np.ones(5)), "5 modes from 3 points"),
        (lambda: grf_metrics(np.ones((2, 4)), np.ones((3, 2)), np.ones(2), np.ones(2)), r"\(any, 3\) is expected"),
        (lambda: grf_metrics(np.ones((2, 3)), np.ones((3, 2)), np.ones(3), np.ones(2)), r"variances of shape \(3,\)"),
    ],
)  # fmt: skip
def test_input_that_cannot_be_measured(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(FieldError, match=message) as caught:
        call()
    assert isinstance(caught.value, (UserError, ValueError))
