"""Joint false-alarm rates against the reference numbers, closed forms and sums by brute force."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy_healpix import HEALPix
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.crossmatch import joint
from mma_realtime.errors import CrossMatchError

CASES = json.loads((Path(__file__).parent / "golden" / "joint_far.json").read_text())["cases"]


@dataclass(frozen=True)
class Pixels:
    uniq: np.ndarray
    probdensity: np.ndarray


def flat(level: int, density: np.ndarray) -> Pixels:
    """Every pixel of one level, in nested order."""
    return Pixels(4 * 4**level + np.arange(12 * 4**level), density)


def fisher(case: dict[str, float], who: str, order: str) -> np.ndarray:
    """Normalised exp(kappa (cos d - 1)) at the centres of nside 32."""
    grid = HEALPix(32, order=order)
    lon, lat = (angle.rad for angle in grid.healpix_to_lonlat(np.arange(grid.npix)))
    lon0, lat0 = case[f"{who}_lon"], case[f"{who}_lat"]
    cosine = np.sin(lat) * np.sin(lat0) + np.cos(lat) * np.cos(lat0) * np.cos(lon - lon0)
    p = np.exp(case[f"{who}_kappa"] * (cosine - 1))
    return p / p.sum()


@pytest.mark.parametrize("case", CASES)
def test_the_reference_numbers(case: dict[str, float]) -> None:
    npix = 12 * 32**2
    gw, external = (flat(5, fisher(case, who, "nested") * npix / (4 * math.pi)) for who in ("gw", "ext"))
    overlap = joint.overlap(gw, external)
    assert overlap == pytest.approx(case["overlap_map_map"], rel=1e-6)
    ring = HEALPix(32, order="ring")
    from astropy import units

    at = ring.lonlat_to_healpix(case["ext_lon"] * units.rad, case["ext_lat"] * units.rad)
    density = fisher(case, "gw", "ring")[at] * npix / (4 * math.pi)
    assert joint.point_overlap(density) == pytest.approx(case["overlap_map_point"], rel=1e-6)
    window = joint.Window(case["tl"], case["th"])
    temporal = joint.temporal_far(window, case["rate_em"], case["far_gw"])
    assert temporal == pytest.approx(case["temporal_far"], rel=1e-6)
    assert joint.spatial_far(temporal, overlap) == pytest.approx(case["spatiotemporal_far"], rel=1e-6)
    thresholds = joint.Thresholds(case["far_gw_thresh"], case["far_grb_thresh"])
    targeted = joint.targeted_far(window, case["far_grb"], case["far_gw_used"], thresholds)
    assert targeted == pytest.approx(case["targeted_temporal_far"], rel=1e-6)
    assert targeted is not None
    assert joint.spatial_far(targeted, overlap) == pytest.approx(case["targeted_spatiotemporal_far"], rel=1e-6)


def test_the_rates_and_thresholds_of_the_specification() -> None:
    assert pytest.approx(CASES[0]["rate_em"], rel=1e-12) == joint.RATE_GRB
    assert pytest.approx(375) == joint.RATE_SUBTHRESHOLD_GRB * joint.YEAR
    assert joint.TARGETED["Fermi"].gw * 86400 == pytest.approx(1)
    assert joint.TARGETED["Swift"].external == 1e-3


def test_an_isotropic_map_says_nothing_of_a_spot_however_fine_the_spot_and_coarse_the_map() -> None:
    isotropic = flat(0, np.full(12, 1 / (4 * math.pi)))
    density = np.zeros(12 * 4**9)
    density[[1_000_000, 1_000_001]] = 12 * 4**9 / (4 * math.pi) / 2  # two pixels of seven arc minutes
    assert joint.overlap(isotropic, flat(9, density)) == pytest.approx(1, abs=1e-12)


def sphere(rng: np.random.Generator, depth: int) -> np.ndarray:
    """UNIQ of a random partition of the sphere, in random order."""
    out, todo = [], [(0, i) for i in range(12)]
    while todo:
        level, pixel = todo.pop()
        if level < depth and rng.random() < 0.4:
            todo += [(level + 1, 4 * pixel + child) for child in range(4)]
        else:
            out.append(4 * 4**level + pixel)
    return rng.permutation(np.array(out, dtype=np.int64))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_the_overlap_is_the_sum_over_the_finest_pixels(seed: int) -> None:
    rng, depth = np.random.default_rng(seed), 4
    maps, fine = [], []
    for _ in range(2):
        uniq = sphere(rng, depth)
        level = [(int(u).bit_length() - 3) // 2 for u in uniq]
        area = np.array([4 * math.pi / (12 * 4**one) for one in level])
        weight = rng.exponential(size=len(uniq))
        density = weight / (weight * area).sum()
        maps.append(Pixels(uniq, density))
        rastered = np.full(12 * 4**depth, np.nan)
        for u, one, d in zip(uniq, level, density, strict=True):
            n = 4 ** (depth - one)
            pixel = int(u) - 4 * 4**one
            rastered[pixel * n : (pixel + 1) * n] = d
        fine.append(rastered)
    expected = 4 * math.pi * (fine[0] * fine[1]).sum() * 4 * math.pi / len(fine[0])
    assert joint.overlap(*maps) == pytest.approx(expected, rel=1e-12)
    assert joint.overlap(*maps[::-1]) == pytest.approx(expected, rel=1e-12)


def test_pixels_that_a_map_leaves_out_are_empty() -> None:
    half = Pixels(np.array([4, 9], dtype=np.int64), np.full(2, 12 / (2 * 4 * math.pi)))
    other = Pixels(np.array([5, 9, 15], dtype=np.int64), np.full(3, 12 / (3 * 4 * math.pi)))
    assert joint.overlap(half, half) == pytest.approx(6)
    assert joint.overlap(half, other) == pytest.approx(2)
    assert (
        joint.spatial_far(1e-9, joint.overlap(half, Pixels(np.array([5]), np.array([12 / (4 * math.pi)])))) == math.inf
    )


def test_the_deepest_pixels_have_their_place() -> None:
    first, end = joint.ranges(np.array([4 * 4**29, 4 * 4**29 + 12 * 4**29 - 1, 15], dtype=np.int64))
    assert first.tolist() == [0, joint.N_DEEPEST - 1, 11 * 4**29]
    assert end.tolist() == [1, joint.N_DEEPEST, joint.N_DEEPEST]


@pytest.mark.parametrize("level", range(30))
def test_every_level_is_read_from_its_first_and_last_pixel(level: int) -> None:
    uniq = np.array([4 * 4**level, 16 * 4**level - 1], dtype=np.int64)
    first, end = joint.ranges(uniq)
    assert (end - first).tolist() == [4 ** (29 - level)] * 2
    assert (int(first[0]), int(end[1])) == (0, joint.N_DEEPEST)


def test_what_is_no_map_is_refused() -> None:
    good = np.full(12, 1 / (4 * math.pi))
    with pytest.raises(CrossMatchError, match="no numbers"):
        joint.overlap(flat(0, np.where(np.arange(12) == 3, np.nan, good)), flat(0, good))
    with pytest.raises(CrossMatchError, match="pixels that overlap"):
        joint.overlap(Pixels(np.append(4 + np.arange(12), 16), np.append(good, 0.0)), flat(0, good))
    with pytest.raises(CrossMatchError, match="instead of densities"):
        joint.overlap(flat(2, np.full(192, 1 / 192)), flat(0, good))


@pytest.mark.parametrize("bad", [0.0, -1e-9, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(CrossMatchError, match="above zero"):
        joint.temporal_far(joint.GRB, joint.RATE_GRB, bad)
    with pytest.raises(CrossMatchError, match="above zero"):
        joint.targeted_far(joint.GRB, bad, 1e-6, joint.TARGETED["Fermi"])


def test_above_a_threshold_a_notice_takes_no_part() -> None:
    fermi = joint.TARGETED["Fermi"]
    assert joint.targeted_far(joint.GRB, 1e-4, 1 / 86400, fermi) == pytest.approx(6e-4 / 86400)  # z = z_max
    assert joint.targeted_far(joint.GRB, 1.01e-4, 1e-6, fermi) is None
    assert joint.targeted_far(joint.GRB, 1e-5, 2 / 86400, fermi) is None


def test_the_targeted_rate_is_the_rate_of_pairs_as_loud() -> None:
    """Both rates uniform below their thresholds: pairs with a product below z, counted."""
    rng = np.random.default_rng(3)
    n, thresholds = 2_000_000, joint.Thresholds(1e-5, 1e-4)
    gw, external = rng.uniform(0, thresholds.gw, n), rng.uniform(0, thresholds.external, n)
    z_max = joint.GRB.length * thresholds.gw * thresholds.external
    for share in (0.01, 0.1, 0.5):
        found = joint.targeted_far(joint.GRB, thresholds.external * share, thresholds.gw, thresholds)
        louder = (gw * external <= share * thresholds.gw * thresholds.external).mean()
        assert found is not None
        assert found / z_max == pytest.approx(louder, rel=0.01)


def test_windows_are_seconds_of_the_external_event_after_the_gravitational_wave() -> None:
    gw = 1187008882.43
    assert joint.GRB.holds(gw, gw + 1.7)
    assert joint.GRB.holds(gw, gw + 5.0)
    assert not joint.GRB.holds(gw, gw - 1.7)
    assert joint.SUBTHRESHOLD_GRB.holds(gw, gw + 599)
    assert not joint.OPTICAL.holds(gw, gw - 1)
