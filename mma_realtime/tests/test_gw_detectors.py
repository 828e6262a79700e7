"""Detectors and times against the goldens and closed forms (section 2.1)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.errors import SearchError
from mma_realtime.gw import detectors
from mma_realtime.times import gps_from_utc, utc_iso

GOLDEN = np.load(Path(__file__).parent / "golden" / "antenna.npz")


def golden(key: str) -> torch.Tensor:
    return torch.as_tensor(GOLDEN[key])


@pytest.mark.parametrize("name", ["H1", "L1", "V1", "K1"])
def test_response_and_delay_are_the_reference_library_s(name: str) -> None:
    det = detectors.detector(name)
    torch.testing.assert_close(det.response, golden(f"{name}_response"), rtol=0, atol=0)
    plus, cross = detectors.antenna_pattern(det, golden("ra"), golden("dec"), golden("psi"), golden("gmst"))
    torch.testing.assert_close(torch.stack([plus, cross], 1), golden(f"{name}_fplus_fcross"), rtol=0, atol=1e-6)
    late = detectors.delay(det, golden("ra"), golden("dec"), golden("gmst"))
    torch.testing.assert_close(late, golden(f"{name}_delay_s"), rtol=0, atol=1e-9)


def test_sidereal_angle_is_the_reference_library_s() -> None:
    difference = detectors.gmst(GOLDEN["gps"]) - golden("gmst")
    assert ((difference + math.pi) % (2 * math.pi) - math.pi).abs().max() < 1e-6


def test_sidereal_angle_follows_the_polynomial_across_leap_seconds() -> None:
    """Section 2.1's formula, with the days split in whole and fraction."""
    for gps, leap in [(1.0251e9, 15), (1.0252e9, 16), (1119744018.0, 17), (1167264018.5, 18), (1.4e9, 18)]:
        days, rest = divmod(gps - leap + 43200, 86400)  # JD 2444244.5 is a midnight: count from the noon before
        jd, fraction = 2444244 + int(days), rest / 86400
        T = ((jd - 2451545) + fraction) / 36525
        turns = (876600 * 3600 / 36525 * (jd - 2451545)) % 86400 + 86400 * fraction
        seconds = 67310.54841 + turns + 8640184.812866 * T + 0.093104 * T**2 - 6.2e-6 * T**3
        expected = 2 * math.pi * seconds / 86400
        difference = (float(detectors.gmst(gps)) - expected + math.pi) % (2 * math.pi) - math.pi
        assert abs(difference) < 1e-8, gps


def test_utc_of_known_events_counts_leap_seconds() -> None:
    assert utc_iso(1126259462.4) == "2015-09-14T09:50:45.400Z"
    assert utc_iso(1187008882.43) == "2017-08-17T12:41:04.430Z"
    assert gps_from_utc("2017-01-01T00:00:00Z") - gps_from_utc("2016-12-31T23:59:59Z") == pytest.approx(2)


@settings(max_examples=25, deadline=None)
@given(st.floats(1.1e9, 1.5e9))
def test_utc_round_trip(gps: float) -> None:
    assert gps_from_utc(utc_iso(gps)) == pytest.approx(gps, abs=6e-4)


def test_light_needs_10_ms_from_hanford_to_livingston() -> None:
    h1, l1 = detectors.detector("H1"), detectors.detector("L1")
    assert detectors.light_travel_time(h1, l1) == pytest.approx(0.010013, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 2 * math.pi), st.floats(-1.5, 1.5), st.floats(0, math.pi), st.floats(0, 2 * math.pi))
def test_turning_the_polarisation_turns_the_pattern_twice(ra: float, dec: float, psi: float, theta: float) -> None:
    det = detectors.detector("V1")
    plus, cross = detectors.antenna_pattern(det, ra, dec, 0.0, theta)
    turned = detectors.antenna_pattern(det, ra, dec, psi, theta)
    c, s = math.cos(2 * psi), math.sin(2 * psi)
    torch.testing.assert_close(turned[0], c * plus + s * cross, rtol=0, atol=1e-12)
    torch.testing.assert_close(turned[1], c * cross - s * plus, rtol=0, atol=1e-12)
    assert plus.square() + cross.square() <= 1 + 1e-9


def test_angles_broadcast() -> None:
    det = detectors.detector("H1")
    ra, dec = torch.zeros(5, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    plus, cross = detectors.antenna_pattern(det, ra, dec, 0.3, 1.0)
    assert plus.shape == cross.shape == detectors.delay(det, ra, dec, 1.0).shape == (5, 3)


def test_unknown_detector_lists_the_known() -> None:
    with pytest.raises(SearchError, match="unknown detector 'X1': known are H1, L1, V1, K1"):
        detectors.detector("X1")
