"""From a sky map to what notices say of it."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest
from mma_realtime.alerts.made_up import CREATED, superevent
from mma_realtime.alerts.notice import notice_of, unified_of
from mma_realtime.alerts.place import localisation_of
from mma_realtime.sky import healpix, moc
from mma_realtime.sky.fits import read_fits
from mma_realtime.sky.skymap import SkyMap


def cap(radius: float, ra: float, dec: float, level: int = 6) -> SkyMap:
    """Uniform within `radius` of a place (deg), with a little more at its centre."""
    lon, lat = healpix.centre_of_uniq(moc.whole_sphere(level))
    to = np.radians([ra, dec])
    cosine = np.sin(lat) * np.sin(to[1]) + np.cos(lat) * np.cos(to[1]) * np.cos(lon - to[0])
    return SkyMap.from_flat((cosine >= math.cos(math.radians(radius))) * (1 + 1e-3 * cosine))


@pytest.mark.parametrize("radius", [5.0, 30.0, 120.0])
def test_the_circle_is_as_large_as_the_region(radius: float) -> None:
    place = localisation_of(cap(radius, 200.0, -30.0))
    assert (place.ra, place.dec) == (pytest.approx(200, abs=1.5), pytest.approx(-30, abs=1.5))
    # 90 % of a uniform cap: (1 - cos r') = 0.9 (1 - cos r)
    expected = math.degrees(math.acos(1 - 0.9 * (1 - math.cos(math.radians(radius)))))
    assert place.radius == pytest.approx(expected, rel=0.02)


def test_the_whole_sky_is_a_circle_too() -> None:
    assert localisation_of(SkyMap.isotropic()).radius == pytest.approx(math.degrees(math.acos(-0.8)))


def test_the_masses_are_those_of_the_maps_template() -> None:
    assert localisation_of(SkyMap.isotropic()).masses is None
    assert localisation_of(SkyMap.isotropic(meta={"masses": (36.0, 29.0)})).masses == (36.0, 29.0)


def test_the_map_in_both_flavours_is_the_map() -> None:
    skymap = cap(10.0, 40.0, 10.0, level=4)
    event = superevent().located(localisation_of(skymap))
    for content in (
        json.loads(notice_of(event, CREATED).to_json())["event"]["skymap"],
        json.loads(unified_of(event, CREATED).to_json())["healpix_file"],
    ):
        found = read_fits(base64.b64decode(content))
        assert (found.uniq == skymap.uniq).all()
        assert (found.probdensity == skymap.probdensity).all()
