"""Times of the calendar against astropy's, leap seconds among them."""

from __future__ import annotations

from datetime import datetime

import pytest
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.times import gps_from_utc


@settings(max_examples=200, deadline=None)
@given(st.datetimes(datetime(1980, 1, 7), datetime(2030, 1, 1)))
def test_the_calendar_is_astropys(when: datetime) -> None:
    iso = when.isoformat()
    assert gps_from_utc(iso) == pytest.approx(float(Time(iso, format="isot", scale="utc").gps), abs=2e-6)


@pytest.mark.parametrize(
    "iso",
    [
        "2016-12-31T23:59:59.5", "2016-12-31T23:59:60.5", "2017-01-01T00:00:00", "2015-06-30T23:59:60",
        "2015-07-01T00:00:00", "1981-06-30T23:59:59", "1981-07-01T00:00:00", "1980-01-06T00:00:00",
        "2017-08-17T12:41:06.474",
    ],
)  # fmt: skip
def test_leap_seconds_and_the_epoch(iso: str) -> None:
    expected = float(Time(iso, format="isot", scale="utc").gps)
    assert gps_from_utc(iso) == pytest.approx(expected, abs=1e-6)
    assert gps_from_utc(iso + "Z") == pytest.approx(expected, abs=1e-6)


def test_offsets_are_heeded() -> None:
    assert gps_from_utc("2017-08-17T14:41:06+02:00") == gps_from_utc("2017-08-17T12:41:06Z")


@pytest.mark.parametrize(
    "bad", ["", "yesterday", "2017-13-01T00:00:00", "1979-12-31T00:00:00", "9999-12-31T23:59:59-10:00", None, 5]
)
def test_what_is_no_time_is_refused(bad: object) -> None:
    with pytest.raises(ValueError):
        gps_from_utc(bad)  # type: ignore[arg-type]
