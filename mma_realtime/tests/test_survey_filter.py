"""The survey filter on a real log: every alert once, poison set aside, lag told, memory bounded by the batch."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest
from mma_realtime.bus.base import DEAD, SURVEY
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch import filter as survey_filter
from mma_realtime.crossmatch.external import spot
from mma_realtime.crossmatch.filter import GROUP, MATCHES, SurveyFilter
from mma_realtime.crossmatch.joint import OPTICAL
from mma_realtime.crossmatch.made_up import LSST, packets
from mma_realtime.crossmatch.survey import Cuts, PacketReader, Region
from mma_realtime.errors import BusError

GPS = 1187008882.43


@pytest.fixture
def made() -> list[tuple[bytes, dict[str, float]]]:
    return list(packets(600, 11, GPS + 60, 300, previous=0))


def filled(path: Path, made: list[tuple[bytes, dict[str, float]]]) -> SqliteLog:
    log = SqliteLog(path)
    log.append_many(SURVEY, [("ztf", content, {}) for content, _ in made])
    return log


def wanted(region: Region, made: list[tuple[bytes, dict[str, float]]]) -> list[int]:
    ra, dec, gps, real, star = (np.array([t[k] for _, t in made]) for k in ("ra", "dec", "gps", "real", "star"))
    return np.flatnonzero(region.holds(ra, dec, gps) & (real >= 0.5) & (star <= 0.5)).tolist()


def test_every_alert_in_the_region_is_told_once_and_poison_set_aside(
    tmp_path: Path, made: list[tuple[bytes, dict[str, float]]]
) -> None:
    region = Region(spot(100.0, 0.0, 40.0), GPS, OPTICAL)
    expected = wanted(region, made)
    assert 10 < len(expected) < 200
    log = filled(tmp_path / "bus.db", made[:300])
    log.append(SURVEY, "ztf", b"poison")
    log.append_many(SURVEY, [("ztf", content, {}) for content, _ in made[300:]])
    worker = SurveyFilter(log, {"S1": region}, batch=100)
    steps = [worker.step() for _ in range(7)]
    assert worker.step().read == 0
    assert sum(step.read for step in steps) == 601
    assert (sum(step.dead for step in steps), log.end(SURVEY + DEAD)) == (1, 1)
    assert [step.waiting for step in steps] == [501, 401, 301, 201, 101, 1, 0]
    told = [json.loads(record.value) for record in log.fetch(MATCHES, "test", 1000)]
    assert [int(each["id"].split()[1]) for each in told] == expected
    assert {each["superevent_id"] for each in told} == {"S1"}
    assert told[0]["after_s"] == pytest.approx(60 + expected[0] * 1e-3, abs=1e-3)
    (dead,) = log.fetch(SURVEY + DEAD, "test", 10)
    assert dead.value == b"poison"
    assert "cannot be read" in dead.headers["reason"]


def test_a_dead_letter_of_a_registrys_packet_says_what_can_be_read(tmp_path: Path) -> None:
    """LSST's packets name their schema by a number; without a registry it means nothing."""
    made = list(packets(2, 3, GPS, 3000, "LSST"))
    lsst = [content for content, _ in made]
    log = filled(tmp_path / "bus.db", made)
    step = SurveyFilter(log).step()
    assert (step.read, step.dead) == (2, 2)
    dead = log.fetch(SURVEY + DEAD, "test", 10)
    assert [record.value for record in dead] == lsst  # whole: a program with the schemas can read them later
    for record in dead:
        assert record.headers["reason"] == (
            "a packet is in a schema registry's wire format (schema 1), as LSST sends them, and no registry was given: "
            "packets that carry their schema, as ZTF's do, and JSON are read; give the schemas by number (live "
            "--survey_schemas FOLDER)"
        )
    assert SurveyFilter(log, reader=PacketReader({1: LSST})).reader.read(dead[0].value).id.startswith("LSST")


def test_another_process_goes_on_where_one_stopped(tmp_path: Path, made: list[tuple[bytes, dict[str, float]]]) -> None:
    region = Region(spot(100.0, 0.0, 40.0), GPS, OPTICAL)
    log = filled(tmp_path / "bus.db", made)
    SurveyFilter(log, {"S1": region}, batch=250).step()
    log.close()
    again = SqliteLog(tmp_path / "bus.db")
    assert again.committed(GROUP, SURVEY) == 250
    worker = SurveyFilter(again, {"S1": region}, batch=250)
    while worker.step().read:
        pass
    told = [json.loads(record.value)["id"] for record in again.fetch(MATCHES, "test", 1000)]
    assert [int(one.split()[1]) for one in told] == wanted(region, made)


def test_two_superevents_each_have_their_own(tmp_path: Path, made: list[tuple[bytes, dict[str, float]]]) -> None:
    regions = {"S1": Region(spot(100.0, 0.0, 30.0), GPS, OPTICAL), "S2": Region(spot(110.0, 0.0, 30.0), GPS, OPTICAL)}
    log = filled(tmp_path / "bus.db", made)
    SurveyFilter(log, regions, batch=1000).step()
    told = log.fetch(MATCHES, "test", 1000)
    for name, region in regions.items():
        assert sum(record.key == name for record in told) == len(wanted(region, made))
    assert len({record.headers["id"] for record in told}) == len(told)


def test_a_lag_is_told(
    tmp_path: Path, made: list[tuple[bytes, dict[str, float]]], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    log = filled(tmp_path / "bus.db", made)
    worker = SurveyFilter(log, cuts=Cuts(), batch=100)
    assert worker.step().lag < 30
    now = survey_filter.time.time()
    monkeypatch.setattr(survey_filter.time, "time", lambda: now + 100)
    with caplog.at_level(logging.WARNING):
        assert worker.step().lag == pytest.approx(100, abs=30)
        worker.step()
    behind = [r.message for r in caplog.records if "behind" in r.message]
    assert len(behind) == 1  # not at every step
    assert "400 wait on the bus" in behind[0]


def test_a_bus_that_does_not_take_the_matches_has_the_alerts_come_again(
    tmp_path: Path, made: list[tuple[bytes, dict[str, float]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    region = Region(spot(100.0, 0.0, 40.0), GPS, OPTICAL)
    log = filled(tmp_path / "bus.db", made)
    worker = SurveyFilter(log, {"S1": region}, batch=300)

    def refuses(topic: str, rows: object) -> list[int]:
        raise BusError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(log, "append_many", refuses)
        with pytest.raises(BusError, match="no space"):
            worker.step()
    assert [worker.step().read for _ in range(3)] == [300, 300, 0]
    assert [int(json.loads(r.value)["id"].split()[1]) for r in log.fetch(MATCHES, "test", 1000)] == wanted(region, made)


def test_alerts_that_retention_deleted_are_counted_and_the_rest_is_matched(
    tmp_path: Path, made: list[tuple[bytes, dict[str, float]]], caplog: pytest.LogCaptureFixture
) -> None:
    region = Region(spot(100.0, 0.0, 40.0), GPS, OPTICAL)
    log = filled(tmp_path / "bus.db", made[:300])
    log.commit(GROUP, SURVEY, 100)
    log.delete_before(SURVEY, time.time() + 1)
    log.append_many(SURVEY, [("ztf", content, {}) for content, _ in made[300:]])
    worker = SurveyFilter(log, {"S1": region}, batch=1000)
    with caplog.at_level(logging.WARNING):
        assert worker.step().waiting == 300
    assert worker.step().read == 300
    assert worker.lost == 200
    assert "records 100 to 299 were deleted by retention" in caplog.text
    told = [int(json.loads(record.value)["id"].split()[1]) for record in log.fetch(MATCHES, "test", 1000)]
    assert told == [number for number in wanted(region, made) if number >= 300]
