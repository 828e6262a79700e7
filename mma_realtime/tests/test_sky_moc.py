"""HEALPix and multi-order pixels against the reference library's numbers and the rules of UNIQ (section 8)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.errors import SkyMapError
from mma_realtime.sky import healpix, moc

GOLDEN = np.load(Path(__file__).parent / "golden" / "healpix.npz")


@pytest.mark.parametrize("nside", [1, 2, 8, 64, 512])
def test_pixels_are_the_reference_library_s(nside: int) -> None:
    lon, lat = GOLDEN["lon"], GOLDEN["lat"]
    nested = healpix.pixel_at(nside, lon, lat)
    np.testing.assert_array_equal(nested, GOLDEN[f"nest_{nside}"])
    np.testing.assert_array_equal(healpix.pixel_at(nside, lon, lat, "ring"), GOLDEN[f"ring_{nside}"])
    np.testing.assert_array_equal(healpix.ring_of(nside, nested), GOLDEN[f"ring_{nside}"])
    np.testing.assert_array_equal(healpix.nested_of(nside, GOLDEN[f"ring_{nside}"]), nested)
    uniq = moc.uniq_of(nside.bit_length() - 1, nested)
    np.testing.assert_array_equal(uniq, GOLDEN[f"uniq_{nside}"])
    np.testing.assert_allclose(np.stack(healpix.centre_of_uniq(uniq), 1), GOLDEN[f"centre_{nside}"], atol=1e-12)
    np.testing.assert_array_equal(healpix.neighbours(nside, nested[:8]), GOLDEN[f"neigh_{nside}"])


@settings(deadline=None)
@given(st.integers(0, moc.DEEPEST), st.data())
def test_uniq_is_level_and_index_to_the_deepest_level(level: int, data: st.DataObject) -> None:
    ipix = data.draw(st.integers(0, 12 * 4**level - 1))
    uniq = moc.uniq_of(level, ipix)
    assert uniq == 4 * 4**level + ipix
    assert moc.level_ipix(uniq) == (level, ipix)
    first, end = moc.ranges(uniq)
    assert (first, end) == (ipix * 4 ** (29 - level), (ipix + 1) * 4 ** (29 - level))
    if level < moc.DEEPEST:
        np.testing.assert_array_equal(moc.level_ipix(moc.children(uniq)), ([level + 1] * 4, 4 * ipix + np.arange(4)))
        np.testing.assert_array_equal(moc.parents(moc.children(uniq)), [uniq] * 4)


def test_children_lie_where_their_parent_does() -> None:
    nside = 8
    children = moc.children(moc.uniq_of(3, np.arange(12 * nside**2))).ravel()
    lon, lat = healpix.centre_of_uniq(children)
    np.testing.assert_array_equal(healpix.pixel_at(nside, lon, lat), np.repeat(np.arange(12 * nside**2), 4))
    assert moc.pixel_area(children).sum() == pytest.approx(4 * np.pi)


@pytest.mark.parametrize("uniq", [-1, 0, 3, 4 * 4**30, 2**63 - 1])
def test_numbers_that_are_no_uniq_are_refused(uniq: int) -> None:
    with pytest.raises(SkyMapError, match="no UNIQ"):
        moc.level_ipix(np.array([7, uniq]))


@pytest.mark.parametrize(("level", "ipix"), [(30, 0), (-1, 0), (0, 12), (3, -1)])
def test_pixels_that_do_not_exist_are_refused(level: int, ipix: int) -> None:
    with pytest.raises(SkyMapError):
        moc.uniq_of(level, ipix)
