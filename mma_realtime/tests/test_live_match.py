"""Superevents against external events on the bus: a pair is told once, in whatever order and however often it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mma_realtime.alerts.notice import headers_of, notice_of
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.place import localisation_of
from mma_realtime.alerts.superevent import Candidate, Superevent
from mma_realtime.bus.base import DEAD, EXTERNAL, NOTICES
from mma_realtime.bus.log import SqliteLog
from mma_realtime.live.match import JOINT, Matcher
from mma_realtime.sky import healpix
from mma_realtime.sky.skymap import SkyMap
from mma_realtime.times import gps_from_utc

UTC = "2017-08-17T12:41:04.400Z"
FIRST = Superevent.opened(
    Candidate(gps_from_utc(UTC), UTC, 12.0, 1e-6, True, ("H1", "L1"), 0.2, "ab" * 32), 0
)  # fmt: skip
GRB = {
    "mission": "Fermi", "messenger": "EM", "alert_type": "initial", "id": ["GRB1"], "instrument": "GBM",
    "trigger_time": "2017-08-17T12:41:06.400Z", "alert_datetime": "2017-08-17T12:41:30Z", "ra": 176.8, "dec": -39.8,
    "ra_dec_error": 11.6,
}  # fmt: skip


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "bus.sqlite") as log:
        yield log


def tell(bus: SqliteLog, event: Superevent) -> None:
    headers = headers_of(event, Origin.SIMULATED)
    bus.append(NOTICES, event.id, notice_of(event, "2017-08-17T12:41:20.000Z").to_json(), headers)


def rounds(matcher: Matcher) -> None:
    while matcher.step():
        pass


def pairs(bus: SqliteLog) -> list[dict]:  # type: ignore[type-arg]
    bus.seek("test", JOINT, 0)
    return [json.loads(record.value) for record in bus.fetch(JOINT, "test")]


@pytest.mark.parametrize("external_first", [False, True])
def test_a_pair_is_told_in_either_order(bus: SqliteLog, tmp_path: Path, external_first: bool) -> None:
    matcher = Matcher(bus, tmp_path / "memory")
    steps = [lambda: tell(bus, FIRST), lambda: bus.append(EXTERNAL, "GRB1", json.dumps(GRB).encode(), {})]
    for step in reversed(steps) if external_first else steps:
        step()
        rounds(matcher)
    (pair,) = pairs(bus)
    assert (pair["superevent_id"], pair["version"], pair["external_id"]) == (FIRST.id, 1, "Fermi GRB1")
    assert pair["time_difference"] == pytest.approx(-2.0)
    assert pair["temporal"] > 0
    assert pair["spatiotemporal"] is None
    assert matcher.behind() == 0


def test_a_map_makes_a_joint_rate_in_space(bus: SqliteLog, tmp_path: Path) -> None:
    matcher = Matcher(bus, tmp_path / "memory")
    bus.append(EXTERNAL, "GRB1", json.dumps(GRB).encode(), {})
    lon, lat = healpix.centre(16, np.arange(12 * 16**2))
    near = np.exp(-0.5 * ((lon - np.radians(180)) ** 2 + (lat - np.radians(-38)) ** 2) / 0.1**2)
    tell(bus, FIRST.located(localisation_of(SkyMap.from_flat(near))))
    rounds(matcher)
    (pair,) = pairs(bus)
    assert pair["overlap"] > 5
    assert pair["spatiotemporal"] < pair["temporal"] / 5
    assert FIRST.id in matcher.survey.regions


def test_after_a_restart_nothing_is_told_again_and_nothing_is_forgotten(bus: SqliteLog, tmp_path: Path) -> None:
    matcher = Matcher(bus, tmp_path / "memory")
    tell(bus, FIRST)
    bus.append(EXTERNAL, "GRB1", json.dumps(GRB).encode(), {})
    rounds(matcher)
    matcher.seen.close()
    again = Matcher(bus, tmp_path / "memory")
    rounds(again)
    assert len(pairs(bus)) == 1
    bus.append(EXTERNAL, "GRB2", json.dumps(GRB | {"id": ["GRB2"]}).encode(), {})
    rounds(again)
    assert [pair["external_id"] for pair in pairs(bus)] == ["Fermi GRB1", "Fermi GRB2"]


def test_a_notice_delivered_twice_counts_once(bus: SqliteLog, tmp_path: Path) -> None:
    matcher = Matcher(bus, tmp_path / "memory")
    bus.append(EXTERNAL, "GRB1", json.dumps(GRB).encode(), {})
    tell(bus, FIRST)
    tell(bus, FIRST)
    rounds(matcher)
    assert len(pairs(bus)) == 1
    assert matcher.seen.dropped == 1


def test_a_retracted_superevent_is_compared_no_more(bus: SqliteLog, tmp_path: Path) -> None:
    matcher = Matcher(bus, tmp_path / "memory")
    tell(bus, FIRST)
    tell(bus, FIRST.retracted())
    rounds(matcher)
    bus.append(EXTERNAL, "GRB1", json.dumps(GRB).encode(), {})
    rounds(matcher)
    assert pairs(bus) == []
    assert matcher.candidates == {}


def test_poison_is_put_aside_once(bus: SqliteLog, tmp_path: Path) -> None:
    matcher = Matcher(bus, tmp_path / "memory")
    bus.append(EXTERNAL, "x", b"\xff", {})
    bus.append(NOTICES, "x", b"{}", {"superevent_id": "x", "version": "1", "alert_type": "INITIAL"})
    bus.append(NOTICES, "x", b"{}", {})
    tell(bus, FIRST)
    rounds(matcher)
    assert list(matcher.candidates) == [FIRST.id]
    rounds(Matcher(bus, tmp_path / "memory"))
    assert (bus.end(EXTERNAL + DEAD), bus.end(NOTICES + DEAD)) == (1, 2)


def test_places_without_anything_in_common_are_told_without_a_rate(bus: SqliteLog, tmp_path: Path) -> None:
    matcher = Matcher(bus, tmp_path / "memory")
    bus.append(EXTERNAL, "GRB1", json.dumps(GRB | {"ra_dec_error": 0.5, "systematic_included": True}).encode(), {})
    far_off = np.zeros(12 * 16**2)
    far_off[0] = 1.0
    tell(bus, FIRST.located(localisation_of(SkyMap.from_flat(far_off))))
    rounds(matcher)
    (pair,) = pairs(bus)
    assert (pair["overlap"], pair["spatiotemporal"]) == (0.0, None)
