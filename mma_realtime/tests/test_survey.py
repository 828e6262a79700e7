"""Survey packets and the region they are looked for in: against what was put in, brute force, and torn bytes."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.crossmatch.external import spot
from mma_realtime.crossmatch.joint import OPTICAL, Window, steps
from mma_realtime.crossmatch.made_up import LSST, ZTF, packets
from mma_realtime.crossmatch.survey import (
    LARGEST,
    Cuts,
    PacketReader,
    Region,
    SurveyAlert,
    columns,
    indices,
    registry_in,
)
from mma_realtime.errors import CrossMatchError
from mma_realtime.times import gps_from_utc

GPS = 1187008882.43


def reader() -> PacketReader:
    return PacketReader({1: LSST})


@pytest.mark.parametrize("survey", ["ZTF", "LSST"])
def test_a_packet_says_what_was_put_into_it(survey: str) -> None:
    read = reader()
    for content, truth in packets(20, 3, GPS, 3000, survey):
        alert = read.read(content)
        assert alert.id.startswith(survey)
        assert (alert.ra, alert.dec) == (truth["ra"], truth["dec"])
        assert alert.gps == pytest.approx(truth["gps"], abs=1e-3)
        assert (alert.real, alert.star) == pytest.approx((truth["real"], truth["star"]), abs=1e-6)


def test_a_registrys_schemas_are_files_by_number_as_they_are_or_as_it_answers(tmp_path: Path) -> None:
    (tmp_path / "1.avsc").write_text(json.dumps(LSST))
    (tmp_path / "703.avsc").write_text(json.dumps({"schema": json.dumps(LSST)}))
    (tmp_path / "README.txt").write_text("of no interest")
    found = registry_in(tmp_path)
    assert found == {1: LSST, 703: LSST}
    (content, truth), = packets(1, 3, GPS, 3000, "LSST")  # fmt: skip
    for number in (1, 703):
        assert PacketReader(found).read(b"\0" + number.to_bytes(4, "big") + content[5:]).ra == truth["ra"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("alerts.avsc", json.dumps(LSST), r"alerts\.avsc: name it by the schema's number"),
        ("1.avsc", "{", r"1\.avsc is no Avro schema of a survey's packets"),
        ("1.avsc", "[]", r"1\.avsc is no Avro schema of a survey's packets"),
        ("1.avsc", '{"type": "record", "name": "x"}', r"1\.avsc is no Avro schema of a survey's packets"),
        ("1.avsc", '{"type": "record", "name": "x", "fields": [{"name": "y", "type": "what"}]}', "is no Avro schema"),
        ("1.avsc", '{"type": "record", "name": "x", "fields": [{"name": "y", "type": "int"}]}', "has the fields y"),
        ("1.txt", "", "holds no schema: a file N.avsc is expected"),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_one_message(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CrossMatchError, match=message):
        registry_in(tmp_path)
    with pytest.raises(CrossMatchError, match="nowhere: No such file or directory: give the folder"):
        registry_in(tmp_path / "nowhere")


def test_times_are_those_of_the_calendar() -> None:
    """2017-08-17 12:41:04 UTC is JD 2457983.02852 and MJD(TAI) 57982.52896."""
    expected = gps_from_utc("2017-08-17T12:41:04Z")
    packet = {"objectId": "a", "candid": 1, "candidate": {"jd": 2457983.0285185184, "ra": 1.0, "dec": 2.0}}
    assert reader().read(json.dumps(packet).encode()).gps == pytest.approx(expected, abs=1e-3)
    packet = {"alertId": 1, "diaSource": {"midpointMjdTai": 57982.5289467593, "ra": 1.0, "dec": 2.0}}
    assert reader().read(json.dumps(packet).encode()).gps == pytest.approx(expected, abs=1e-3)


def test_packed_packets_are_unpacked_and_bombs_refused() -> None:
    (content, truth), = packets(1, 5, GPS, 3000)  # fmt: skip
    record = next(iter(fastavro.reader(io.BytesIO(content))))
    packed = io.BytesIO()
    fastavro.writer(packed, fastavro.parse_schema(ZTF), [record], codec="deflate")
    assert reader().read(packed.getvalue()).ra == truth["ra"]
    bomb = io.BytesIO()
    record["cutoutScience"]["stampData"] = bytes(4 * LARGEST)  # type: ignore[index, call-overload]
    fastavro.writer(bomb, fastavro.parse_schema(ZTF), [record], codec="deflate")
    assert len(bomb.getvalue()) < LARGEST
    with pytest.raises(CrossMatchError, match="unpacks to more"):
        reader().read(bomb.getvalue())


def test_a_star_far_off_is_not_this_source() -> None:
    packet = {"objectId": "a", "candid": 1, "candidate": {"jd": 2457983.0, "ra": 1.0, "dec": 2.0, "sgscore1": 0.9}}
    for apart, star in ((0.5, 0.9), (7.0, math.nan), (-999.0, math.nan), (None, math.nan)):
        packet["candidate"]["distpsnr1"] = apart  # type: ignore[index]
        assert reader().read(json.dumps(packet).encode()).star == pytest.approx(star, nan_ok=True)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cannot be read"), (b"{}", "no survey"), (b"[1]", "neither Avro"),
        (b"\x00\x00\x00\x00\x07abc", "schema 7"),
        (b"Obj\x01", "cannot be read"), (b"Obj\x01" + bytes(60), "0 alerts"), (bytes(LARGEST + 1), "refused"),
        (b'{"objectId": 1, "candid": 1, "candidate": {"jd": 1, "ra": 400, "dec": 1}}', "ra 400"),
        (b'{"objectId": 1, "candid": 1, "candidate": {"jd": 1, "ra": null, "dec": 1}}', "no number"),
        (b'{"objectId": 1, "candid": 1, "candidate": 5}', "no number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(content: bytes, told: str) -> None:
    with pytest.raises(CrossMatchError, match=told):
        reader().read(content)


def test_a_packet_that_lost_only_images_is_torn() -> None:
    (content, _), = packets(1, 7, GPS, 3000)  # fmt: skip
    with pytest.raises(CrossMatchError, match="torn"):
        reader().read(content[:-100])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_torn_and_flipped_packets_are_read_or_refused(data: st.DataObject) -> None:
    survey = data.draw(st.sampled_from(["ZTF", "LSST"]))
    (content, _), = packets(1, 7, GPS, 300, survey)  # fmt: skip
    torn = bytearray(content[: data.draw(st.integers(0, len(content)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if torn:
            torn[data.draw(st.integers(0, len(torn) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CrossMatchError):
        alert = reader().read(bytes(torn))
        assert 0 <= alert.ra <= 360
        assert -90 <= alert.dec <= 90
        assert math.isfinite(alert.gps)


def test_the_region_is_the_smallest_that_holds_its_share() -> None:
    """Against the map as a function: whole pixels, densest first."""
    found = spot(197.45, -23.38, 3.0)
    region = Region(found, GPS, OPTICAL, 0.9)
    starts, density = steps(found)
    rng = np.random.default_rng(0)
    # Points drawn by the map lie inside nine times of ten; the share of the sphere inside is the area of 90 %.
    p = density * np.diff(np.append(starts, 12 * 4**29)).astype(float)
    at = rng.choice(len(starts), 40_000, p=p / p.sum())
    width = np.diff(np.append(starts, 12 * 4**29))[at]
    index = starts[at] + (rng.random(len(at)) * width).astype(np.int64)
    assert region.contains(index).mean() == pytest.approx(0.9, abs=0.006)
    area = 2 * math.pi * math.radians(3.0) ** 2 * math.log(10)  # of 90 % of a Gaussian
    everywhere = (rng.random(400_000) * 12 * 4**29).astype(np.int64)
    assert region.contains(everywhere).mean() * 4 * math.pi == pytest.approx(area, rel=0.1)


def test_places_are_looked_up_where_they_are() -> None:
    region = Region(spot(197.45, -23.38, 3.0), GPS, OPTICAL, 0.9)
    radius = 3.0 * math.sqrt(2 * math.log(10))
    ra = np.array([197.45, 197.45, 197.45, 17.45])
    dec = np.array([-23.38, -23.38 + 0.9 * radius, -23.38 + 1.1 * radius, 23.38])
    assert region.holds(ra, dec, np.full(4, GPS + 3600)).tolist() == [True, True, False, False]
    assert region.holds(ra[:1], dec[:1], np.array([GPS - 1])).tolist() == [False]
    assert region.holds(ra[:1], dec[:1], np.array([GPS + 15 * 86400])).tolist() == [False]


def test_all_of_the_sphere_is_inside_at_level_one() -> None:
    region = Region(spot(0.0, 0.0, 20.0), GPS, Window(0, 1), 1.0)
    rng = np.random.default_rng(1)
    assert region.contains(indices(rng.uniform(0, 360, 500), np.degrees(np.arcsin(rng.uniform(-1, 1, 500))))).all()
    with pytest.raises(CrossMatchError, match="level"):
        Region(spot(0.0, 0.0, 20.0), GPS, OPTICAL, 0.0)


def test_cuts_pass_what_a_survey_does_not_say() -> None:
    alerts = [SurveyAlert("a", "o", 0.0, 0.0, 0.0, real, star) for real, star in
              ((0.9, 0.1), (0.1, 0.1), (0.9, 0.9), (math.nan, math.nan))]  # fmt: skip
    table = columns(alerts)
    assert Cuts().keep(table["real"], table["star"]).tolist() == [True, False, False, True]
    assert columns([])["ra"].shape == (0,)
