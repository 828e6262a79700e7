"""The cross-match worker on a real store and log: the latest notice carries the best coincidence, whatever happens."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mma_realtime.alerts.database import TryAgain
from mma_realtime.alerts.faults import VARIABLE
from mma_realtime.alerts.made_up import CREATED, LOUDER, candidate
from mma_realtime.alerts.notice import LARGEST, ExternalCoincidence, Notice, notice_of
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.outbox import relay
from mma_realtime.alerts.pipeline import MapWorker, retract, tell
from mma_realtime.alerts.place import localisation_of
from mma_realtime.alerts.store import Store
from mma_realtime.alerts.superevent import Localisation, State, Superevent
from mma_realtime.bus.base import DEAD, EXTERNAL, NOTICES, Record
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch import matcher
from mma_realtime.crossmatch.external import read_notice, spot
from mma_realtime.crossmatch.joint import GRB, RATE_GRB, overlap
from mma_realtime.crossmatch.matcher import GROUP, CrossMatcher, catch_up, combined_map, room_of, run
from mma_realtime.errors import BusError, SkyMapError
from mma_realtime.sky.fits import read_fits, to_bytes
from mma_realtime.sky.skymap import SkyMap
from mma_realtime.times import utc_iso

spec = importlib.util.spec_from_file_location("external_inputs", Path(__file__).with_name("external_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
voevent = inputs.voevent

ORIGIN = Origin.SIMULATED
FIRST = candidate(far=1e-6)
PLACE = (116.25, -69.5)  # deg, of the made-up superevent's map
BURST: dict[str, Any] = {
    "mission": "Fermi", "instrument": "GBM", "messenger": "EM", "alert_datetime": "2015-09-14T09:51:05Z",
    "alert_tense": "test", "alert_type": "initial", "trigger_time": utc_iso(FIRST.gps + 1.7), "id": ["GRB1"],
    "ra": 120.0, "dec": -66.0, "ra_dec_error": 12.0,
}  # fmt: skip


def burst(**changes: Any) -> bytes:
    return json.dumps(BURST | changes).encode()


def sky(ra: float, dec: float, sigma: float) -> SkyMap:
    found = spot(ra, dec, sigma)
    return SkyMap(found.uniq, found.probdensity)


class System:
    """A search's store with its relay, a bus, and the worker."""

    def __init__(self, folder: Path) -> None:
        self.store, self.bus = Store(folder / "store.db"), SqliteLog(folder / "bus.db")
        self.matcher = self.started()

    def started(self) -> CrossMatcher:
        return CrossMatcher(self.store, self.bus, ORIGIN, now=lambda: CREATED)

    def restart(self) -> None:
        self.matcher.close()
        self.bus = SqliteLog(self.bus.path)  # whose places are those that were committed
        self.matcher = self.started()

    def found(self, event: Superevent | None = None) -> None:
        event = event or Superevent.opened(FIRST, 0)
        with self.store.transaction() as write:
            write.open(event, 0)
            tell(write, event, None, ORIGIN, CREATED)

    def goes_on(self, change: Callable[[Superevent], Superevent]) -> None:
        """A further version by the search."""
        (id,) = self.store.superevents()
        with self.store.transaction() as write:
            before = write.latest(id)
            tell(write, change(before), before, ORIGIN, CREATED)

    def located(self) -> None:
        self.goes_on(lambda event: event.located(localisation_of(sky(*PLACE, 5.0))))

    def hears(self, *notices: bytes) -> None:
        self.bus.append_many(EXTERNAL, [("", notice, {}) for notice in notices])
        self.settle()

    def settle(self) -> None:
        while relay(self.store, self.bus) + catch_up(self.matcher):
            pass

    def records(self) -> list[Record]:
        self.bus.seek("test", NOTICES, 0)
        return self.bus.fetch(NOTICES, "test", 1000)

    def notices(self) -> list[Notice]:
        return [Notice.from_json(record.value) for record in self.records()]

    def dead(self, topic: str) -> list[str]:
        self.bus.seek("test", topic + DEAD, 0)
        return [record.headers["reason"] for record in self.bus.fetch(topic + DEAD, "test", 1000)]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    made = System(tmp_path)
    yield made
    made.matcher.close()
    made.bus.close()
    made.store.close()


def test_a_burst_beside_a_superevent_makes_a_further_version(system: System) -> None:
    system.found()
    system.hears(burst())
    first, second = system.notices()
    assert (first.alert_type, first.external_coinc) == (State.PRELIMINARY, None)
    assert (second.alert_type, second.event) == (State.PRELIMINARY, first.event)
    told = second.external_coinc
    assert told is not None
    assert (told.observatory, told.search, told.ivorn) == ("Fermi", "GRB", "Fermi GRB1")
    assert told.time_difference == pytest.approx(-1.7, abs=2e-3)
    assert told.time_coincidence_far == pytest.approx(GRB.length * RATE_GRB * 1e-6)
    assert (told.time_sky_position_coincidence_far, told.combined_skymap) == (None, None)
    assert [event.version for event in system.store.versions("S150914a")] == [1, 2]


def test_a_map_makes_it_better_and_both_maps_are_one(system: System) -> None:
    system.found()
    system.hears(burst())
    system.located()
    system.settle()
    assert [notice.alert_type for notice in system.notices()] == ["PRELIMINARY", "PRELIMINARY", "INITIAL", "UPDATE"]
    told = system.notices()[-1].external_coinc
    assert told is not None
    assert told.combined_skymap is not None
    (external,) = read_notice(burst())
    assert external.sigma is not None
    places = overlap(sky(*PLACE, 5.0), spot(120.0, -66.0, external.sigma))
    assert places > 10
    assert told.time_sky_position_coincidence_far == pytest.approx(told.time_coincidence_far / places)
    combined = read_fits(told.combined_skymap)
    # The product of two Gaussian spots is one: narrower than either, between them.
    sigma = 1 / np.sqrt(5.0**-2 + external.sigma**-2)
    assert combined.area(0.9) == pytest.approx(2 * np.pi * sigma**2 * np.log(10), rel=0.05)
    assert float(combined.credible_level(*np.radians(PLACE))) < float(combined.credible_level(*np.radians((120, -66))))
    assert system.notices()[-1].event == replace(system.notices()[-2].event)  # type: ignore[type-var]


def test_whatever_comes_first_the_last_notice_is_the_same(tmp_path: Path) -> None:
    last = set()
    for number, order in enumerate(permutations(range(3))):
        (tmp_path / str(number)).mkdir()
        system = System(tmp_path / str(number))
        system.found()
        steps = [
            system.located,
            lambda s=system: s.hears(burst()),
            lambda s=system: s.hears(burst(id=["GRB2"], ra=297)),
        ]
        for at in order:
            steps[at]()
            system.settle()
        notice = system.notices()[-1]
        assert notice.external_coinc is not None
        last.add((notice.alert_type, notice.external_coinc))
        system.matcher.close()
    assert len(last) == 1


@pytest.mark.parametrize("matched", ["before the map is begun", "while the map is made", "after the map is written"])
def test_a_map_and_a_coincidence_at_once_are_both_told_in_whatever_order(system: System, matched: str) -> None:
    """The worker of the maps and that of the coincidences write versions of one superevent at the same time."""
    system.found()

    def slow(event: Superevent) -> Localisation:
        if matched == "while the map is made":
            system.hears(burst())  # a version comes while this one's map is made
            assert system.store.superevent(event.id).version == event.version + 1
        return localisation_of(sky(*PLACE, 5.0))

    worker = MapWorker(system.store, slow, ORIGIN, lambda: CREATED)
    if matched == "before the map is begun":
        system.hears(burst())
    assert [event.localisation is not None for event in worker.work()] == [True]  # it is not made twice
    assert worker.work() == []
    system.hears(*([burst()] if matched == "after the map is written" else []))
    versions = system.store.versions("S150914a")
    assert [event.version for event in versions] == list(range(1, len(versions) + 1))
    rows = [record.headers["version"] for record in system.records()]
    assert rows == [str(event.version) for event in versions]  # each told once, in order
    last = system.notices()[-1]
    assert last.event is not None
    assert last.event.skymap is not None
    assert last.external_coinc is not None
    assert last.external_coinc.time_sky_position_coincidence_far is not None


def test_a_map_that_fails_is_not_tried_again_for_a_version_of_the_same_trigger(system: System) -> None:
    system.found()
    asked: list[int] = []

    def none(event: Superevent) -> Localisation:
        asked.append(event.version)
        raise SkyMapError("no signal-to-noise series")

    worker = MapWorker(system.store, none, ORIGIN, lambda: CREATED)
    worker.work()
    system.hears(burst())
    worker.work()
    assert asked == [1]


def test_the_best_of_several_is_told_and_a_worse_one_changes_nothing(system: System) -> None:
    system.found()
    system.located()
    system.hears(burst(id=["far"], ra=150.0, dec=-50.0), burst())
    told = system.notices()[-1].external_coinc
    assert told is not None
    assert told.ivorn == "Fermi GRB1"
    count = len(system.notices())
    system.hears(burst(id=["elsewhere"], ra=297.0, dec=60.0))
    assert len(system.notices()) == count
    system.hears(burst(id=["near"], ra=PLACE[0], dec=PLACE[1], ra_dec_error=5.0))
    better = system.notices()[-1].external_coinc
    assert better is not None
    assert better.ivorn == "Fermi near"
    assert better.time_sky_position_coincidence_far < told.time_sky_position_coincidence_far  # type: ignore[operator]


def test_an_update_replaces_and_a_retraction_takes_back(system: System) -> None:
    system.found()
    system.located()
    system.hears(burst())
    first = system.notices()[-1].external_coinc
    update = burst(alert_type="update", alert_datetime="2015-09-14T09:55:00Z", ra=PLACE[0], dec=PLACE[1])
    system.hears(update)
    second = system.notices()[-1].external_coinc
    assert first is not None
    assert second is not None
    assert second.time_sky_position_coincidence_far < first.time_sky_position_coincidence_far  # type: ignore[operator]
    system.hears(burst(alert_type="retraction", alert_datetime="2015-09-14T09:58:00Z"))
    last = system.notices()[-1]
    assert (last.alert_type, last.external_coinc) == (State.UPDATE, None)
    count = len(system.notices())
    system.hears(update, burst())  # sent before the retraction
    assert len(system.notices()) == count


def test_duplicates_a_rewind_and_a_replay_tell_nothing_again(system: System) -> None:
    system.found()
    system.located()
    system.hears(burst(), burst())
    system.hears(burst())
    count = len(system.notices())
    assert count == 3
    for topic in (NOTICES, EXTERNAL):
        system.bus.commit(GROUP, topic, 0)
        system.bus.seek(GROUP, topic, 0)
    system.settle()
    system.restart()
    system.settle()
    assert len(system.notices()) == count
    assert system.bus.committed(GROUP, NOTICES) == count


def test_after_a_restart_what_was_heard_before_is_known(system: System) -> None:
    system.hears(burst())
    system.restart()
    system.found()
    system.settle()
    assert system.notices()[-1].external_coinc is not None
    system.restart()
    system.hears(burst(alert_type="retraction", alert_datetime="2015-09-14T09:58:00Z"))
    assert [notice.external_coinc is None for notice in system.notices()] == [True, False, True]


def test_a_louder_trigger_has_its_own_joint_rate(system: System) -> None:
    system.found()
    system.hears(burst())
    system.goes_on(lambda event: event.joined(replace(LOUDER, far=1e-8)))
    system.settle()
    rates = [n.external_coinc and n.external_coinc.time_coincidence_far for n in system.notices()]
    assert rates == [None, pytest.approx(6 * RATE_GRB * 1e-6), None, pytest.approx(6 * RATE_GRB * 1e-8)]


def test_nothing_is_told_of_a_retracted_superevent(system: System) -> None:
    system.found()
    system.located()
    system.settle()
    assert list(system.matcher.survey.regions) == ["S150914a"]
    retract(system.store, "S150914a", ORIGIN, CREATED)
    system.hears(burst())
    assert [notice.alert_type for notice in system.notices()] == ["PRELIMINARY", "INITIAL", "RETRACTION"]
    assert system.matcher.survey.regions == {}
    system.restart()
    system.settle()
    assert len(system.notices()) == 3


@pytest.mark.parametrize("tense", ["current", "archival", "planned", "commanded"])
def test_what_is_no_test_does_not_stand_beside_a_test(system: System, tense: str) -> None:
    system.found()
    system.hears(burst(alert_tense=tense))
    assert len(system.notices()) == 1
    system.hears(burst(alert_tense="injection", id=["GRB2"]))
    assert len(system.notices()) == 2


def test_what_chance_does_as_well_is_not_told(system: System) -> None:
    system.found()
    neutrino = {"mission": "IceCube", "messenger": "Neutrino", "ra_dec_error": 1.0}
    system.hears(burst(**neutrino, far=2e-3))  # 1,000 s hold two of them
    system.hears(burst(**neutrino, id=["silent"]))  # without a rate
    system.hears(burst(trigger_time=utc_iso(FIRST.gps + 30)))
    assert len(system.notices()) == 1
    system.hears(burst(**neutrino, id=["rare"], far=2e-5))
    told = system.notices()[-1].external_coinc
    assert told is not None
    assert (told.search, told.time_coincidence_far) == ("neutrino", pytest.approx(1000 * 2e-5 * 1e-6))


def test_poison_is_set_aside_once_and_the_stream_goes_on(system: System) -> None:
    system.found()
    system.hears(b"poison", b"<poison/>", burst(far=-1), burst())
    reasons = system.dead(EXTERNAL)
    assert ["no JSON" in reasons[0], "schema" in reasons[1], "far" in reasons[2]] == [True] * 3
    assert system.notices()[-1].external_coinc is not None
    system.bus.append(NOTICES, "", b"{}", {})
    system.bus.append(NOTICES, "", b"{}", {"superevent_id": "S991231z"})
    system.settle()
    system.restart()
    system.settle()
    assert [reason.split(":")[1] for reason in system.dead(NOTICES)] == [" the notice is not of this search"] * 2
    assert len(system.dead(EXTERNAL)) == 3


def test_places_that_cannot_be_used_leave_the_time(system: System) -> None:
    system.found()
    system.located()
    system.hears(burst(id=["vague"], ra_dec_error=179), burst(id=["torn"], healpix_file="AAAA"))
    told = system.notices()[-1].external_coinc
    assert told is not None
    assert told.time_coincidence_far == pytest.approx(GRB.length * RATE_GRB * 1e-6)
    assert told.time_sky_position_coincidence_far is None
    system.hears(burst())
    told = system.notices()[-1].external_coinc
    assert told is not None
    assert told.ivorn == "Fermi GRB1"


def test_a_notice_that_the_reader_fails_on_is_set_aside(
    system: System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With an error that it does not declare: then and at every start after."""
    system.found()
    system.hears(burst(id=["before"], ra=297))

    def fails(content: bytes) -> object:
        if b"GRB1" in content or b"before" in content:
            raise OverflowError("date value out of range")
        return read_notice(content)

    monkeypatch.setattr(matcher, "read_notice", fails)
    system.restart()
    system.hears(burst(), burst(id=["GRB2"]))
    assert system.dead(EXTERNAL) == ["OverflowError: date value out of range"]
    assert "Traceback" in caplog.text
    told = system.notices()[-1].external_coinc
    assert told is not None
    assert told.ivorn == "Fermi GRB2"


@pytest.mark.parametrize("where", ["compare", "coincidence"])
def test_a_pair_that_fails_is_set_aside_and_the_next_best_is_told(
    system: System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    system.found()
    whole = getattr(matcher, where)

    def fails(*args: Any) -> Any:
        if "Fermi GRB1" in [getattr(each, "id", "") for each in args]:
            raise ZeroDivisionError("of this pair")
        return whole(*args)

    monkeypatch.setattr(matcher, where, fails)
    system.hears(burst(), burst(id=["GRB2"]))
    system.restart()
    system.settle()
    assert [notice.external_coinc and notice.external_coinc.ivorn for notice in system.notices()] == [
        None, "Fermi GRB2"
    ]  # fmt: skip
    assert "ZeroDivisionError: of this pair" in caplog.text


@pytest.mark.parametrize("where", ["compare", "coincidence"])
@pytest.mark.parametrize("error", [TryAgain("locked"), BusError("no broker")])
def test_a_store_or_a_bus_that_is_down_is_no_fault_of_a_pair(
    system: System, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    def fails(*args: Any) -> None:
        raise error

    system.found()
    system.settle()
    monkeypatch.setattr(matcher, where, fails)
    with pytest.raises(type(error)):
        system.hears(burst())
    monkeypatch.undo()
    system.settle()
    assert system.notices()[-1].external_coinc is not None
    monkeypatch.setattr(CrossMatcher, "_said", fails)
    with pytest.raises(type(error)):
        system.hears(burst(alert_type="retraction", alert_datetime="2015-09-14T09:58:00Z"))
    monkeypatch.undo()
    system.settle()
    assert system.notices()[-1].external_coinc is None


@pytest.mark.parametrize(("room", "told_as"), [(300_000, "coarse"), (20, "left out")])
def test_a_combined_map_that_has_no_room_is_coarser_or_left_out(
    system: System, monkeypatch: pytest.MonkeyPatch, room: int, told_as: str
) -> None:
    """A flat map of many pixels, as missions send it, beside ours: a notice takes 32 MB."""
    system.found()
    system.located()
    system.settle()
    ours = sky(*PLACE, 5.0)
    flat = SkyMap.from_flat(sky(120.0, -66.0, 12.0).rasterise(128))
    assert len(to_bytes(flat)) > 300_000 > len(to_bytes(ours))
    monkeypatch.setattr(matcher, "room_of", lambda event: room)
    system.hears(burst(healpix_file=base64.b64encode(to_bytes(flat)).decode()))
    told = system.notices()[-1].external_coinc
    assert told is not None
    assert told.time_sky_position_coincidence_far is not None
    if told_as == "left out":
        assert told.combined_skymap is None
        return
    assert told.combined_skymap is not None
    combined = read_fits(told.combined_skymap)
    assert (combined.uniq == ours.uniq).all()
    fine = combined_map(ours, read_notice(burst(healpix_file=base64.b64encode(to_bytes(flat)).decode()))[0])
    assert fine is not None
    assert combined.rasterise(16) == pytest.approx(fine.rasterise(16), abs=1e-12)


def test_what_a_notice_has_room_for_fits_into_it(system: System) -> None:
    """The largest map that `room_of` allows, beside the superevent's own."""
    system.found()
    system.located()
    (id,) = system.store.superevents()
    event = system.store.superevent(id)
    told = ExternalCoincidence(None, "i" * 1000, "o" * 1000, "s" * 1000, 0.1, 1e-9, 1e-10, bytes(room_of(event)))
    assert 0.99 * LARGEST < len(notice_of(event, CREATED, told).to_json()) <= LARGEST


def test_what_does_not_stand_beside_a_test_is_logged(system: System, caplog: pytest.LogCaptureFixture) -> None:
    system.found()
    system.hears(burst(alert_tense="current"))
    assert "Fermi GRB1 is not compared: its tense is current" in caplog.text
    follow_up = {
        "type": "IceCube LVK Alert Nu Track Search", "ref_ID": "S150914a", "alert_datetime": "2015-09-14T10:20:00Z",
        "alert_tense": "test", "trigger_time": utc_iso(FIRST.gps), "coincident_events": [
            {"event_dt": 12.9, "id": ["1"], "event_pval_generic": 0.02, "localization": {"ra": 117, "dec": -69}}
        ],
    }  # fmt: skip
    system.hears(json.dumps(follow_up).encode())
    assert "IceCube 1 is not compared: NOT SUPPORTED: a follow-up of S150914a" in caplog.text
    assert len(system.notices()) == 1
    assert system.dead(EXTERNAL) == []


def test_voevents_of_one_event_are_told_as_one(system: System) -> None:
    """Two versions, the second one's before the first, and a retraction: what was told is taken back."""
    system.found()
    first, second, third = (f"ivo://nasa.gsfc.gcn/Fermi#GBM_1_{n}" for n in range(3))

    def said(ivorn: str, sent: str, cite: str = "", cited: str = "") -> bytes:
        packet = voevent(ivorn, cite=cite, cited=cited).replace(b"2017-08-17T12:41:20", sent.encode())
        return packet.replace(b"2017-08-17T12:41:06.47", utc_iso(FIRST.gps + 1.7).removesuffix("Z").encode())

    system.hears(said(second, "2015-09-14T09:52:00", "supersedes", first))
    system.hears(said(first, "2015-09-14T09:51:00"))
    system.hears(said(third, "2015-09-14T09:53:00", "retraction", second))
    told = [notice.external_coinc and notice.external_coinc.ivorn for notice in system.notices()]
    assert told[-1] is None
    assert told[1] == second
    assert system.matcher._externals.standing() == []


def test_a_bus_that_is_down_for_a_while_loses_nothing(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.found()
    system.bus.append_many(EXTERNAL, [("", b"poison", {}), ("", burst(), {})])
    bury = system.bus.append
    left = iter([True, True, False, False])

    def append(*args: Any) -> int:
        if next(left):
            raise BusError("no broker")
        return bury(*args)

    monkeypatch.setattr(system.bus, "append", append)
    pauses: list[float] = []

    def stopped(pause: float) -> bool:
        pauses.append(pause)
        return len(pauses) == 4

    run(system.matcher, stopped)
    assert pauses == [0.05, 0.1, 0.0, 0.05]
    monkeypatch.undo()
    system.settle()
    assert system.notices()[-1].external_coinc is not None
    assert len(system.dead(EXTERNAL)) == 1


def test_lost_records_are_counted(system: System) -> None:
    system.hears(burst(id=["old"]))
    for count in (3, 2):
        system.bus.append_many(EXTERNAL, [("", burst(id=[f"{count} {n}"]), {}) for n in range(count)])
    system.bus.seek("test", EXTERNAL, 4)
    system.bus.delete_before(EXTERNAL, system.bus.fetch(EXTERNAL, "test")[0].time)
    system.found()
    system.settle()
    assert system.matcher.lost == 3
    assert system.notices()[-1].external_coinc is not None


def test_two_weeks_later_a_superevent_is_forgotten(system: System) -> None:
    system.found()
    system.located()
    system.settle()
    later = candidate(gps=FIRST.gps + 16 * 86400, utc=utc_iso(FIRST.gps + 16 * 86400))
    with system.store.transaction() as write:
        event = Superevent.opened(later, 0)
        write.open(event, 0)
        tell(write, event, None, ORIGIN, CREATED)
    system.settle()
    assert system.matcher.survey.regions == {}
    system.hears(burst())
    assert len(system.notices()) == 3
    system.restart()
    assert system.matcher.survey.regions == {}


def test_the_distances_stay_in_a_combined_map() -> None:
    isotropic = SkyMap.isotropic()
    known = replace(isotropic, distmu=np.full(12, 40.0), distsigma=np.full(12, 5.0), distnorm=np.full(12, 6e-4))
    (external,) = read_notice(burst())
    combined = combined_map(known, external)
    assert combined is not None
    assert combined.distance_mean_std == pytest.approx(known.distance_mean_std)
    assert external.sigma is not None
    assert combined.area(0.5) == pytest.approx(sky(120.0, -66.0, external.sigma).area(0.5))


WORKER = """
import sys
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.outbox import relay
from mma_realtime.alerts.store import Store
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.matcher import CrossMatcher, catch_up
store, bus = Store(sys.argv[1]), SqliteLog(sys.argv[2])
relay(store, bus)
matcher = CrossMatcher(store, bus, Origin.SIMULATED)
while catch_up(matcher) + relay(store, bus):
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["outbox", "commit", "committed", "relay.sent"])
def test_killed_at_any_point_the_coincidence_is_told_once(tmp_path: Path, point: str) -> None:
    system = System(tmp_path)
    system.matcher.close()
    system.found()
    relay(system.store, system.bus)
    system.bus.append_many(EXTERNAL, [("", burst(), {}), ("", b"poison", {})])
    files = [system.store.path, system.bus.path]

    def worker(environment: dict[str, str]) -> int:
        command = [sys.executable, "-c", WORKER, *map(str, files)]
        return subprocess.run(command, env=os.environ | environment, check=False).returncode

    assert worker({VARIABLE: point}) == -signal.SIGKILL
    assert worker({}) == 0
    told = {(n.alert_type, n.external_coinc is None, n.time_created) for n in system.notices()}
    assert len(told) == 2
    assert [event.version for event in system.store.versions("S150914a")] == [1, 2]
    assert len(system.dead(EXTERNAL)) == (1 if point == "relay.sent" else 2)  # set aside before its place is committed
