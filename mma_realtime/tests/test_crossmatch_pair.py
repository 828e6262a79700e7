"""Pairs of a candidate and an external event: windows, rates, and which sky term belongs to which notice."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mma_realtime.crossmatch.external import ExternalEvent, spot
from mma_realtime.crossmatch.joint import RATE_GRB, TARGETED, overlap, temporal_far
from mma_realtime.crossmatch.pair import Candidate, compare
from mma_realtime.sky.skymap import SkyMap

GPS = 1187008882.43
BURST = ExternalEvent(
    "Fermi 1", "Fermi", "GBM", "GRB", GPS + 1.7, GPS + 20, "initial", "current", None, 176.8, -39.8, 12.2
)


def sky(ra: float, dec: float, sigma: float) -> SkyMap:
    found = spot(ra, dec, sigma)
    return SkyMap(found.uniq, found.probdensity)


@pytest.fixture
def candidate() -> Candidate:
    return Candidate("S170817a", GPS, 1e-9, sky(197.45, -23.38, 3.0))


def test_a_burst_after_a_merger(candidate: Candidate) -> None:
    found = compare(candidate, BURST)
    assert found is not None
    assert (found.method, found.time_difference) == ("rate", pytest.approx(-1.7))
    assert found.temporal == pytest.approx(6 * RATE_GRB * 1e-9)
    assert candidate.sky_map is not None
    expected = overlap(candidate.sky_map, spot(176.8, -39.8, 12.2))
    assert found.overlap == pytest.approx(expected)
    assert found.spatiotemporal == pytest.approx(6 * RATE_GRB * 1e-9 / expected)
    assert found.best == found.spatiotemporal


def test_outside_the_window_or_retracted_there_is_nothing(candidate: Candidate) -> None:
    assert compare(candidate, replace(BURST, gps=GPS + 5.1)) is None
    assert compare(candidate, replace(BURST, gps=GPS - 1.1)) is None
    assert compare(candidate, replace(BURST, alert_type="retraction")) is None


def test_two_searches_below_threshold(candidate: Candidate) -> None:
    event = replace(BURST, subthreshold=True, far=5e-5, gps=GPS + 300)
    found = compare(candidate, event)
    assert found is not None
    z, z_max = 660 * 5e-5 * 1e-9, 660 * 1e-4 / 86400
    assert (found.method, found.temporal) == ("targeted", pytest.approx(z * (1 - math.log(z / z_max))))
    assert compare(candidate, replace(event, far=2e-4)) is None  # above Fermi's threshold
    assert compare(candidate, replace(event, mission="Swift", far=2e-4)) is not None
    assert compare(replace(candidate, far=2 * TARGETED["Fermi"].gw), event) is None


def test_below_threshold_without_a_rate_counts_as_one_of_so_many(candidate: Candidate) -> None:
    found = compare(candidate, replace(BURST, subthreshold=True))
    assert found is not None
    assert found.temporal == pytest.approx(660 * 375 / (365 * 86400) * 1e-9)


def test_neutrinos_have_the_rate_that_they_say_or_none(candidate: Candidate) -> None:
    event = replace(BURST, kind="neutrino", mission="IceCube", gps=GPS - 400, sigma=0.3)
    found = compare(candidate, replace(event, far=1e-7))
    assert found is not None
    assert found.temporal == pytest.approx(1000 * 1e-7 * 1e-9)
    silent = compare(candidate, event)
    assert silent is not None
    assert (silent.method, silent.temporal, silent.spatiotemporal) == ("position", None, None)
    assert silent.overlap is not None


def test_an_optical_transient_counts_by_its_place_alone(candidate: Candidate) -> None:
    event = replace(BURST, kind="optical", mission="ZTF", gps=GPS + 86400, ra=197.45, dec=-23.38, sigma=0.0)
    found = compare(candidate, event)
    assert found is not None
    assert candidate.sky_map is not None
    peak = 1 / (2 * math.pi * math.radians(3.0) ** 2)  # density of the spot at its centre (1/sr)
    assert found.overlap == pytest.approx(4 * math.pi * peak, rel=0.02)
    assert (found.method, found.temporal) == ("position", None)
    assert compare(candidate, replace(event, gps=GPS - 60)) is None


def test_without_a_map_or_a_place_time_alone_counts(candidate: Candidate) -> None:
    for found in (
        compare(replace(candidate, sky_map=None), BURST),
        compare(candidate, replace(BURST, ra=None, dec=None, sigma=None)),
    ):
        assert found is not None
        assert (found.overlap, found.spatiotemporal) == (None, None)
        assert found.best == pytest.approx(temporal_far(_window(), RATE_GRB, 1e-9))


@pytest.mark.parametrize("bad", [{"sigma": 77.0}, {"sky_map": b"torn"}])
def test_a_place_that_cannot_be_used_is_none(
    candidate: Candidate, bad: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    found = compare(candidate, replace(BURST, **bad))
    assert found is not None
    assert (found.overlap, found.spatiotemporal) == (None, None)
    assert found.best == pytest.approx(temporal_far(_window(), RATE_GRB, 1e-9))
    assert "by time alone" in caplog.text


def _window() -> object:
    from mma_realtime.crossmatch.joint import GRB

    return GRB


def test_an_isotropic_candidate_leaves_the_rate_as_it_is(candidate: Candidate) -> None:
    found = compare(replace(candidate, sky_map=SkyMap.isotropic()), BURST)
    assert found is not None
    assert found.overlap == pytest.approx(1, abs=1e-6)
    assert found.spatiotemporal == pytest.approx(found.temporal, rel=1e-6)


def test_places_on_opposite_sides_do_not_join(candidate: Candidate) -> None:
    found = compare(candidate, replace(BURST, ra=17.45, dec=23.38, sigma=1.0))
    assert found is not None
    assert found.overlap == pytest.approx(0, abs=1e-12)
    assert found.spatiotemporal is not None
    assert found.spatiotemporal > 1e3 * (found.temporal or np.inf)
