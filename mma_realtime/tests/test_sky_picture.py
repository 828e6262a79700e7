"""Pictures of sky maps: where things are drawn, and what is said of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rcParams
from mma_realtime.sky import healpix, picture
from mma_realtime.sky.skymap import SkyMap


def spot(ra: float, dec: float, kappa: float, nside: int = 64) -> SkyMap:
    lon, lat = healpix.centre(nside, np.arange(12 * nside**2))
    cosine = np.sin(dec) * np.sin(lat) + np.cos(dec) * np.cos(lat) * np.cos(lon - ra)
    return SkyMap.from_flat(np.exp(kappa * (cosine - 1)), meta={"gps": 1.2e9, "instruments": ["H1"], "object": "S1"})


@given(st.floats(0, 2 * math.pi), st.floats(-1.5, 1.5), st.floats(-20, 20), st.floats(-20, 20))
def test_the_tangent_plane_and_the_sky_are_each_other_s_inverse(ra: float, dec: float, x: float, y: float) -> None:
    place = picture.from_plane(np.radians(x), np.radians(y), ra, dec)
    assert picture.to_plane((float(place[0]), float(place[1])), ra, dec) == pytest.approx((x, y), abs=1e-9)


def test_the_other_half_of_the_sky_is_not_in_the_plane() -> None:
    assert math.isnan(picture.to_plane((math.pi, 0.0), 0.0, 0.0)[0])


def outlines(figure) -> list[np.ndarray]:
    axes = figure.axes[0]
    return [path.vertices for c in axes.collections if hasattr(c, "levels") for path in c.get_paths()]


def test_outlines_surround_the_densest_place_where_it_is_drawn() -> None:
    ra, dec = 1.0, 0.5
    m = spot(ra, dec, 300)
    fifty, ninety = outlines(picture.mollweide(m, truth=(ra, dec)))
    for vertices in (fifty, ninety):
        assert vertices.mean(0) == pytest.approx((math.pi - ra, dec), abs=0.02)
    assert np.ptp(ninety[:, 1]) > np.ptp(fifty[:, 1])
    for vertices, level in zip(outlines(picture.enlarged(m)), (0.5, 0.9)):
        radius = math.degrees(math.acos(1 + math.log(1 - level) / 300))
        assert np.hypot(*vertices.T).mean() == pytest.approx(radius, rel=0.05)


def test_labels_say_areas_levels_and_what_the_map_is_of() -> None:
    m = spot(1.0, 0.5, 300)
    figure = picture.mollweide(m, truth=(1.0, 0.5), host=(2.0, 0.0))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[0] == f"50%: {m.area(0.5):.3g} deg²"
    assert texts[1] == f"90%: {m.area(0.9):,.3g} deg²"
    assert [text.split(",")[0] for text in texts[2:]] == ["injected", "host"]
    assert texts[3] == "host, at 100%"
    assert figure.axes[0].get_title(loc=rcParams["axes.titlelocation"]) == "S1   2018-01-14T21:19:42.000Z   H1"
    assert f"90 % ({m.area(0.9):.3g} deg²)" in picture.caption(m)


def test_a_map_of_nothing_is_drawn_too() -> None:
    for draw in (picture.mollweide, picture.enlarged):
        assert outlines(draw(SkyMap.isotropic())) == []
