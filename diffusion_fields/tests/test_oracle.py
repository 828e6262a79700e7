"""The exact oracle: golden values, brute force, simulation, and the table of section 6."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusion_fields.sampling import step_list
from diffusion_fields.schedules import Schedule, make_schedule
from scipy.special import gammaln, lpmv

from diffusion_fields import oracle

GOLDEN = np.load(Path(__file__).parent / "golden" / "grf_sphere.npz", allow_pickle=False)
ENDS = {"linear": (1e-3, 0.2), "cosine": ()}
COSINE, LINEAR = make_schedule("cosine", 1000), make_schedule("linear", 1000)


def short(kind: str, T: int = 100) -> Schedule:
    return make_schedule(kind, T, *ENDS[kind])


def test_golden_sphere() -> None:
    points = oracle.fibonacci_sphere(40)
    np.testing.assert_allclose(points, GOLDEN["points"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(oracle.real_sph_harm(points, 4), GOLDEN["real_sph_harm"], rtol=0, atol=1e-9)
    K = oracle.grf_cov(points, points, GOLDEN["C_l"])
    np.testing.assert_allclose(K, GOLDEN["cov"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(oracle.sphere_band(points, GOLDEN["C_l"]).covariance, GOLDEN["cov"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", [50, 400, 800])
@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_golden_denoiser(schedule: Schedule, t: int) -> None:
    name = "linear" if schedule is LINEAR else "cosine"
    K, ctx, abar = GOLDEN["cov"], GOLDEN["context_idx"], float(schedule.alphas_cumprod[t])
    gain, mse = GOLDEN[f"bayes_gain_{name}_t{t}"], GOLDEN[f"bayes_mse_{name}_t{t}"]
    np.testing.assert_allclose(oracle.bayes_gain(K, ctx, abar), gain, rtol=0, atol=1e-8)
    np.testing.assert_allclose(oracle.bayes_mse(K, ctx, abar), mse, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_golden_sampler(kind: str) -> None:
    K, ctx, schedule = GOLDEN["cov"], GOLDEN["context_idx"], short(kind)
    expected = GOLDEN[f"sampler_cov_{kind}_T100"]
    np.testing.assert_allclose(oracle.sampler_covariance(K, ctx, schedule), expected, rtol=0, atol=1e-7)
    # DDIM with eta = 1 through every step is the ancestral sampler
    through = oracle.sampler_covariance(K, ctx, schedule, steps=range(100)[::-1], eta=1.0)
    np.testing.assert_allclose(through, expected, rtol=0, atol=1e-7)


def test_golden_w2() -> None:
    degrees = np.repeat(np.arange(5), 2 * np.arange(5) + 1)
    a, b = np.diag(GOLDEN["C_l"][degrees]), np.diag(GOLDEN["C_l_alt"][degrees])
    assert oracle.w2_sq_gaussian(a, b) == pytest.approx(float(GOLDEN["w2_sq_spectra"]), abs=1e-10)
    assert oracle.w2_sq_gaussian(b, a) == pytest.approx(float(GOLDEN["w2_sq_spectra"]), abs=1e-10)


def test_w2_of_matrices_that_do_not_commute() -> None:
    """Against the definition by coupling: a rotation of the plane of diag(1, 4) has a closed form."""
    c = np.cos(0.7)
    rotation = np.array([[c, -np.sin(0.7)], [np.sin(0.7), c]])
    a = np.diag([1.0, 4.0])
    b = rotation @ a @ rotation.T
    # tr (A^1/2 B A^1/2)^1/2 of 2 x 2 matrices is sqrt(tr AB + 2 sqrt det AB)
    expected = 10 - 2 * np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    assert oracle.w2_sq_gaussian(a, b) == pytest.approx(expected, abs=1e-12)
    assert oracle.w2_sq_gaussian(a, a) == pytest.approx(0, abs=1e-12)


def test_harmonics_of_a_high_degree() -> None:
    """Orthonormal by Gauss-Legendre quadrature, SciPy's values, unit variance, and no sign of Condon and Shortley."""
    L, (z, w) = 12, np.polynomial.legendre.leggauss(13)
    phi = 2 * np.pi * np.arange(25) / 25
    r = np.sqrt(1 - z * z)
    points = np.stack([np.outer(r, np.cos(phi)), np.outer(r, np.sin(phi)), np.outer(z, np.ones(25))], -1).reshape(-1, 3)
    Y = oracle.real_sph_harm(points, L)
    weights = np.repeat(w, 25) * 2 * np.pi / 25
    np.testing.assert_allclose(Y.T * weights @ Y, np.eye(169), rtol=0, atol=1e-12)
    l, m = 11, 7
    norm = np.exp(0.5 * (np.log((2 * l + 1) / (4 * np.pi)) + gammaln(l - m + 1) - gammaln(l + m + 1)))
    angle = np.arctan2(points[:, 1], points[:, 0])
    legendre = (-1) ** m * norm * np.sqrt(2) * lpmv(m, l, points[:, 2])
    np.testing.assert_allclose(Y[:, l * l + l + m], legendre * np.cos(m * angle), rtol=0, atol=1e-11)
    np.testing.assert_allclose(Y[:, l * l + l - m], legendre * np.sin(m * angle), rtol=0, atol=1e-11)
    np.testing.assert_allclose(Y[:, 1:4], points[:, [1, 2, 0]] * np.sqrt(3 / (4 * np.pi)), rtol=0, atol=1e-12)
    assert np.isfinite(oracle.real_sph_harm(points[:5], 200)).all()
    C_l = oracle.sphere_spectrum(5, 2.0)
    assert C_l[0] == 0
    assert C_l[1] / C_l[3] == pytest.approx(4)
    np.testing.assert_allclose(np.diag(oracle.grf_cov(points, points, C_l)), 1, rtol=0, atol=1e-12)


def circle_cov(n: int, variances: tuple[float, ...] = (0.5, 0.3, 0.2)) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    angle = angle[:, None] - angle
    return sum(v * np.cos((m + 1) * angle) for m, v in enumerate(variances))


@pytest.mark.parametrize("ctx", [[], [4], [0, 3, 7], list(range(9))])
def test_denoiser_is_its_definition(ctx: list[int]) -> None:
    """The inverse over C and q, taken for every query on its own; a covariance whose diagonal is not 1."""
    K = 1.7 * circle_cov(9)
    for abar in (1e-9, 0.3, 0.97):
        S = abar * K + (1 - abar) * np.eye(9)
        gain, mse = oracle.bayes_gain(K, ctx, abar), oracle.bayes_mse(K, ctx, abar)
        for q in range(9):
            joint = sorted({*ctx, q})
            inverse = np.linalg.inv(S[np.ix_(joint, joint)])[joint.index(q)]
            row = np.zeros(9)
            row[joint] = np.sqrt(1 - abar) * inverse
            np.testing.assert_allclose(gain[q], row, rtol=0, atol=1e-10)
            assert mse[q] == pytest.approx(1 - (1 - abar) * inverse[joint.index(q)], abs=1e-10)


def test_gain_is_the_best_estimate_and_mse_its_error() -> None:
    """Fields and noise drawn: the error of the gain's estimate is the floor, and no regression does better."""
    rng, K, ctx, abar = np.random.default_rng(0), circle_cov(8), np.array([1, 4]), 0.6
    eps = rng.standard_normal((200_000, 8))
    field = rng.multivariate_normal(np.zeros(8), K, len(eps), method="svd")
    y = np.sqrt(abar) * field + np.sqrt(1 - abar) * eps
    error = (eps - y @ oracle.bayes_gain(K, ctx, abar).T) ** 2
    np.testing.assert_allclose(
        error.mean(0), oracle.bayes_mse(K, ctx, abar), atol=5 * error.std() / np.sqrt(len(eps)), rtol=0
    )
    seen = y[:, [1, 4, 6]]
    fit = np.linalg.lstsq(seen, eps[:, 6], rcond=None)[0]
    assert ((eps[:, 6] - seen @ fit) ** 2).mean() == pytest.approx(oracle.bayes_mse(K, ctx, abar)[6], abs=5e-3)


def test_recursion_is_the_covariance_of_simulated_chains() -> None:
    """2e4 linear ancestral chains, entry by entry within 5 standard errors (specification, section 12)."""
    schedule, K, ctx = short("cosine", 50), GOLDEN["cov"], GOLDEN["context_idx"]
    rng, n = np.random.default_rng(1), 20_000
    y = rng.standard_normal((n, 40))
    for t in range(50)[::-1]:
        beta, abar = float(schedule.betas[t]), float(schedule.alphas_cumprod[t])
        y = (y - beta / np.sqrt(1 - abar) * y @ oracle.bayes_gain(K, ctx, abar).T) / np.sqrt(1 - beta)
        y += np.sqrt(float(schedule.posterior_variance[t])) * rng.standard_normal((n, 40))
    Sigma = oracle.sampler_covariance(K, ctx, schedule)
    error = np.sqrt((np.outer(np.diag(Sigma), np.diag(Sigma)) + Sigma**2) / n)
    assert (np.abs(y.T @ y / n - Sigma) / error).max() < 5
    assert np.abs(Sigma - K).max() > 0.1  # it is not simply K


def test_the_table_of_section_6() -> None:
    """Three of its rows at the stated tolerances."""
    expected = {
        9: (0.4684, 0.679, [0.40, 0.36, 0.41, 0.53, 0.69], 0.444),
        36: (0.3891, 0.293, [0.83, 0.76, 0.70, 0.68, 0.66], 0.090),
        70: (0.2678, 0.013, [0.99, 0.99, 0.99, 0.99, 0.99], 0.0001),
    }
    for row in oracle.context_rate_table(COSINE, tuple(expected)):
        floor, error, ratio, grain = expected[row.num_context]
        assert row.floor == pytest.approx(floor, abs=2e-4)
        assert row.error == pytest.approx(error, abs=1e-3)
        assert row.reading.grain == pytest.approx(grain, abs=1e-3)
        np.testing.assert_allclose(row.reading.ratio, ratio, rtol=0, atol=0.01)


def test_full_context_and_no_context() -> None:
    """The ends of the table from 100 steps, and the 5 % of variance that so few steps cost."""
    none, full = oracle.context_rate_table(short("cosine"), (0, 100))
    assert full.error == pytest.approx(0.047, abs=1e-3)
    assert full.reading.grain == pytest.approx(0, abs=1e-12)
    assert none.floor == pytest.approx(oracle.own_only_floor(short("cosine").alphas_cumprod.numpy()), abs=1e-12)
    assert none.reading.grain > 0.6


def test_floors_of_the_loss() -> None:
    assert oracle.own_only_floor(COSINE.alphas_cumprod.numpy()) == pytest.approx(0.4956, abs=5e-5)
    assert oracle.own_only_floor(LINEAR.alphas_cumprod.numpy()) == pytest.approx(0.2755, abs=5e-5)
    levels = np.array([0.1, 0.5, 0.9])
    assert oracle.own_only_floor(levels, 2.0) == pytest.approx(
        np.mean([oracle.bayes_mse(np.array([[2.0]]), [], a)[0] for a in levels]), abs=1e-12
    )
    K = circle_cov(12)
    together = oracle.bayes_mse(K, [0, 5], levels)
    assert together.shape == (3, 12)
    np.testing.assert_allclose(together, [oracle.bayes_mse(K, [0, 5], a) for a in levels], rtol=0, atol=1e-14)
    assert oracle.bayes_floor(K, [0, 5], levels) == pytest.approx(together.mean(), abs=1e-14)
    assert oracle.context_efficiency(0.5, 0.5, 0.2) == 0
    assert oracle.context_efficiency(0.5, 0.2, 0.2) == 1
    assert oracle.context_efficiency(0.5, 0.35, 0.2) == pytest.approx(0.5)


def test_deterministic_ddim_with_full_context() -> None:
    """With everything known eta = 0 transports the noise: more steps come closer to K."""
    K, ctx = circle_cov(12), np.arange(12)
    errors = [
        np.abs(oracle.sampler_covariance(K, ctx, COSINE, step_list(1000, n), 0.0) - K).max() for n in (10, 50, 500)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


def test_posterior_of_a_completion() -> None:
    """Against conditioning by regression on drawn fields; observed points have no variance; singular K_oo is fine."""
    K, rng = circle_cov(10), np.random.default_rng(2)
    observed, values = np.array([0, 2, 3]), np.array([1.0, -0.5, 0.2])
    mean, covariance = oracle.gaussian_posterior(K, observed, values)
    np.testing.assert_allclose(mean[observed], values, rtol=0, atol=1e-8)
    np.testing.assert_allclose(covariance[observed], 0, rtol=0, atol=1e-8)
    fields = rng.multivariate_normal(np.zeros(10), K, 200_000, method="svd")
    weights = np.linalg.lstsq(fields[:, observed], fields, rcond=None)[0]
    np.testing.assert_allclose(values @ weights, mean, rtol=0, atol=0.02)
    np.testing.assert_allclose(np.cov((fields - fields[:, observed] @ weights).T), covariance, rtol=0, atol=0.02)
    exact, left = oracle.gaussian_posterior(K, np.arange(9), fields[:4, :9])  # rank 6, observed 9 times
    np.testing.assert_allclose(exact, fields[:4], rtol=0, atol=1e-6)
    np.testing.assert_allclose(left, 0, rtol=0, atol=1e-8)


def test_calibration_of_completions() -> None:
    K, rng = circle_cov(10), np.random.default_rng(3)
    mean, covariance = oracle.gaussian_posterior(K, [0, 2, 3], np.array([1.0, -0.5, 0.2]))
    draws = rng.multivariate_normal(mean, covariance, 20_000, method="svd")
    scores = oracle.completion_scores(draws, mean, covariance)
    assert scores["rmse"] < 0.02
    assert scores["z_mean"] == pytest.approx(0, abs=0.03)
    assert scores["z_std"] == pytest.approx(1, abs=0.02)
    assert scores["z_within_90"] == pytest.approx(0.9, abs=0.01)
    wide = oracle.completion_scores(mean + 1.5 * (draws - mean), mean, covariance)
    assert wide["z_std"] == pytest.approx(1.5, abs=0.03)
    assert wide["z_within_90"] < 0.76
    assert oracle.completion_scores(draws + 0.3, mean, covariance)["rmse"] == pytest.approx(0.3, abs=0.02)
    with pytest.raises(ValueError, match="determine the whole field"):
        oracle.completion_scores(draws, *oracle.gaussian_posterior(K, np.arange(8), np.zeros(8)))


def test_reading_of_a_known_covariance() -> None:
    points, C_l = oracle.fibonacci_sphere(80), oracle.sphere_spectrum(3, 2.0)
    band = oracle.sphere_band(points, C_l)
    truth = oracle.read_covariance(band.covariance, band)
    np.testing.assert_allclose(truth.ratio, 1, rtol=0, atol=1e-10)
    assert truth.grain == pytest.approx(0, abs=1e-12)
    assert truth.w2_sq == pytest.approx(0, abs=1e-8)
    # grain of variance 0.1 at each point: 64 of 80 dimensions lie off the band of 16
    noisy = oracle.read_covariance(band.covariance + 0.1 * np.eye(80), band)
    assert noisy.grain == pytest.approx(0.1 * 64 / 80, abs=1e-12)
    # the constant counts in the distance: sqrt(variance)^2 of its coefficient
    shifted = oracle.read_covariance(
        band.covariance + 0.04 * 4 * np.pi * np.outer(band.basis[:, 0], band.basis[:, 0]), band
    )
    assert shifted.w2_sq == pytest.approx(0.04 * 4 * np.pi, abs=1e-7)
    assert band.variances.sum() == pytest.approx(4 * np.pi)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: oracle.fibonacci_sphere(0), "at least 1"),
        (lambda: oracle.real_sph_harm(np.ones((4, 3)), 2), "unit vectors"),
        (lambda: oracle.grf_cov(np.ones((4, 2)), np.ones((4, 2)), [0, 1.0]), r"shape \(4, 2\)"),
        (lambda: oracle.bayes_gain(np.ones((2, 3)), [0], 0.5), r"shape \(2, 3\): expected a symmetric"),
        (lambda: oracle.bayes_mse(np.eye(3), [0, 0], 0.5), r"distinct indices in 0\.\.2"),
        (lambda: oracle.bayes_mse(np.eye(3), [3], 0.5), r"distinct indices in 0\.\.2"),
        (lambda: oracle.bayes_mse(np.eye(3), [1], 1.0), r"in \[0, 1\)"),
        (lambda: oracle.context_efficiency(0.2, 0.3, 0.2), "not above the Bayes floor"),
        (lambda: oracle.w2_sq_gaussian(np.eye(2), np.eye(3)), "two square ones"),
        (lambda: oracle.gaussian_posterior(np.eye(3), [0, 1], np.zeros(3)), "3 observed values at 2 points"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
