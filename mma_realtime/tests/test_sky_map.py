"""Multi-order maps: areas, credible levels and distances against closed forms and flat maps (section 8)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.errors import SkyMapError
from mma_realtime.sky import distance, healpix, moc
from mma_realtime.sky.skymap import SQUARE_DEGREE, SkyMap

SKY = 4 * math.pi / SQUARE_DEGREE


def random_partition(seed: int, splits: int = 30, deepest: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixels = list(moc.whole_sphere(0))
    for _ in range(splits):
        chosen = pixels.pop(rng.integers(len(pixels)))
        pixels += [chosen] if moc.level_ipix(chosen)[0] == deepest else list(moc.children(chosen))
    return rng.permutation(np.array(pixels))


def random_map(seed: int, distances: bool = False) -> SkyMap:
    uniq, rng = random_partition(seed), np.random.default_rng(seed + 1)
    prob = rng.dirichlet(np.ones(len(uniq)))
    mean = rng.uniform(50, 500, len(uniq))
    columns = distance.parameters(mean, mean * rng.uniform(0.05, 0.5, len(uniq))) if distances else ()
    return SkyMap(uniq, prob / moc.pixel_area(uniq), *columns)


def spot(kappa: float, ra: float, dec: float, nside: int = 32) -> np.ndarray:
    """A von Mises-Fisher density at the centres of nested pixels."""
    lon, lat = healpix.centre(nside, np.arange(12 * nside**2))
    cosine = np.sin(dec) * np.sin(lat) + np.cos(dec) * np.cos(lat) * np.cos(lon - ra)
    return np.exp(kappa * (cosine - 1))


def test_isotropic_map_says_nothing() -> None:
    m = SkyMap.isotropic()
    assert m.prob.sum() == pytest.approx(1)
    assert m.area(0.9) == pytest.approx(0.9 * SKY)
    assert m.area(1.0) == pytest.approx(SKY)
    assert m.credible_level(1.0, 0.3) == pytest.approx(0.5)
    assert m.density_at(1.0, 0.3) == pytest.approx(1 / (4 * math.pi))


def test_areas_and_levels_of_a_round_spot_are_the_closed_form() -> None:
    """p(< angle) = 1 - exp(-kappa (1 - cos angle)), to the size of the pixels."""
    kappa, ra, dec = 200.0, 2.0, -0.4
    m = SkyMap.from_flat(spot(kappa, ra, dec, 256))
    for level in (0.5, 0.9):
        expected = 2 * math.pi * -math.log(1 - level) / kappa / SQUARE_DEGREE
        assert m.area(level) == pytest.approx(expected, rel=1e-3)
    lon, lat = healpix.centre_of_uniq(m.uniq[m.pixel_levels() < 0.99][::50])
    fall = 1 - np.sin(dec) * np.sin(lat) - np.cos(dec) * np.cos(lat) * np.cos(lon - ra)  # 1 - cos angle
    np.testing.assert_allclose(m.credible_level(lon, lat), 1 - np.exp(-kappa * fall), atol=2e-3)
    on_the_edge = 2 * math.pi * np.sqrt(2 * fall) / math.sqrt(m.pixel_area[0])  # pixels: half of them are counted
    np.testing.assert_allclose(
        m.searched_area(lon, lat) / m.pixel_area[0] * SQUARE_DEGREE, 2 * math.pi * fall / m.pixel_area[0],
        atol=2 * math.sqrt(on_the_edge.max()),
    )  # fmt: skip
    for one_lon, one_lat in zip(lon[:5], lat[:5]):
        assert m.area(float(m.credible_level(one_lon, one_lat))) == pytest.approx(m.searched_area(one_lon, one_lat))
    assert m.peak == pytest.approx((ra, dec), abs=0.01)


def test_density_is_the_pixel_s_that_holds_the_place_whatever_the_order_of_rows() -> None:
    m = random_map(3)
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 2 * np.pi, 200), np.arcsin(rng.uniform(-1, 1, 200))
    level, ipix = moc.level_ipix(m.uniq)
    for one_ra, one_dec, found in zip(ra, dec, m.density_at(ra, dec)):
        holds = [healpix.pixel_at(2**a, one_ra, one_dec) == b for a, b in zip(level.tolist(), ipix.tolist())]
        assert found == m.probdensity[holds].item()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 4, 64, 256]))
def test_rasters_keep_the_probability_of_every_region(seed: int, nside: int) -> None:
    m = random_map(seed)
    flat = m.rasterise(nside)
    assert flat.sum() == pytest.approx(1)
    back = SkyMap.from_flat(flat)
    coarse = m.rasterise(1)
    np.testing.assert_allclose(back.rasterise(1), coarse)
    np.testing.assert_allclose(coarse, [m.prob[moc.ranges(m.uniq)[0] >> 58 == base].sum() for base in range(12)])
    ring = m.rasterise(nside, "ring")
    np.testing.assert_array_equal(ring[healpix.ring_of(nside, np.arange(len(flat)))], flat)
    np.testing.assert_allclose(SkyMap.from_flat(ring, "ring").prob, flat)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_refinement_changes_nothing_but_pixels(seed: int, other: int) -> None:
    m, grid = random_map(seed, distances=True), random_partition(other)
    fine = m.refined(grid)
    lon, lat = healpix.centre_of_uniq(fine.uniq)
    np.testing.assert_array_equal(fine.probdensity, m.density_at(lon, lat))
    assert fine.prob.sum() == pytest.approx(m.prob.sum())
    assert fine.area(0.7) == pytest.approx(m.area(0.7))
    assert fine.distance_mean_std == pytest.approx(m.distance_mean_std)
    level = moc.level_ipix(fine.uniq)[0]
    own, given_level = moc.level_ipix(m.uniq)[0][m.row_at(lon, lat)], SkyMap(grid, np.full(len(grid), 1 / (4 * np.pi)))
    np.testing.assert_array_equal(
        level, np.maximum(own, moc.level_ipix(given_level.uniq)[0][given_level.row_at(lon, lat)])
    )


def test_levels_of_draws_from_a_map_are_uniform() -> None:
    """Sources drawn from the map itself lie in the 90 % region nine times of ten; pixels as large as the region too."""
    m = random_map(7)
    flat = m.rasterise(256)
    pixel = np.random.default_rng(0).choice(len(flat), 20000, p=flat)
    level = m.credible_level(*healpix.centre(256, pixel))
    assert level.mean() == pytest.approx(0.5, abs=0.01)
    assert (level <= 0.9).mean() == pytest.approx(0.9, abs=m.prob.max())


def test_pixel_levels_are_those_of_their_centres() -> None:
    m = random_map(5)
    np.testing.assert_allclose(m.pixel_levels(), m.credible_level(*healpix.centre_of_uniq(m.uniq)))


@settings(max_examples=50, deadline=None)
@given(st.floats(1, 1e4), st.floats(1.8, 5000))
def test_distance_ansatz_keeps_mean_and_standard_deviation(mean: float, ratio: float) -> None:
    mu, sigma, norm = distance.parameters(np.array([mean]), np.array([mean / ratio]))
    back = distance.moments(mu, sigma)
    assert back[0] == pytest.approx(mean, rel=1e-7)
    assert back[1] == pytest.approx(mean / ratio, rel=1e-6)
    r = np.linspace(max(0, mean - 12 * mean / ratio), mean + 20 * mean / ratio, 200001)
    p = norm * r**2 * np.exp(-((r - mu) ** 2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
    assert np.trapezoid(p, r) == pytest.approx(1, rel=1e-5)
    assert np.trapezoid(p * r, r) == pytest.approx(mean, rel=1e-5)


def test_pixels_without_a_distance_are_marked_as_the_standard_does() -> None:
    for mean, std in [(np.nan, 1.0), (1.0, np.nan), (1.0, 1.0), (1.0, 0.0)]:
        assert [float(x[0]) for x in distance.parameters(np.array([mean]), np.array([std]))] == [np.inf, 1, 0]


def test_distance_of_the_whole_sky_is_the_mixture_s() -> None:
    uniq = moc.whole_sphere(0)
    mean, std = np.linspace(100, 200, 12), np.full(12, 10.0)
    m = SkyMap(uniq, np.full(12, 1 / (4 * np.pi)), *distance.parameters(mean, std))
    assert m.distance_mean_std == pytest.approx((mean.mean(), math.hypot(10, mean.std())), rel=1e-6)


@pytest.mark.parametrize(
    ("uniq", "density", "says"),
    [
        (moc.whole_sphere(0)[1:], 1 / (4 * np.pi), "cover the sphere"),
        (np.append(moc.whole_sphere(0), 16), 1 / (4 * np.pi), "overlap"),
        (np.array([], dtype=np.int64), 1.0, "cover the sphere"),
        (moc.whole_sphere(0), np.nan, "no numbers"),
        (moc.whole_sphere(0), -1.0, "below zero"),
        (moc.whole_sphere(1), 1 / 48, "adds up to"),
    ],
)
def test_maps_that_are_none_are_refused(uniq: np.ndarray, density: float, says: str) -> None:
    with pytest.raises(SkyMapError, match=says):
        SkyMap(uniq, np.full(len(uniq), density))


def test_columns_must_fit_and_come_together() -> None:
    uniq, density = moc.whole_sphere(0), np.full(12, 1 / (4 * np.pi))
    with pytest.raises(SkyMapError, match="12 pixels, but DISTMU"):
        SkyMap(uniq, density, np.ones(11), np.ones(12), np.ones(12))
    with pytest.raises(SkyMapError, match="or none of them"):
        SkyMap(uniq, density, distmu=np.ones(12))


@pytest.mark.parametrize("pixels", [0, 1, 11, 13, 24, 12 * 4 + 1, 12 * 9])
def test_flat_maps_have_the_pixels_of_a_level(pixels: int) -> None:
    with pytest.raises(SkyMapError, match=r"12 \* 4\^level"):
        SkyMap.from_flat(np.ones(pixels))


def test_other_questions_are_refused() -> None:
    m = SkyMap.isotropic()
    with pytest.raises(SkyMapError, match="no distances"):
        _ = m.distance_mean_std
    with pytest.raises(SkyMapError, match="90 %"):
        m.area(90)
    with pytest.raises(SkyMapError, match="nested or ring"):
        m.rasterise(2, "spiral")
    with pytest.raises(SkyMapError, match="no probabilities"):
        SkyMap.from_flat(np.zeros(12))
