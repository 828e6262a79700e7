"""The store and its outbox: killed at every point of a transaction, a bus that is down, files that are no store."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mma_realtime.alerts.faults import POINTS, VARIABLE
from mma_realtime.alerts.made_up import FIRST, GPS, LOUDER, PLACE, candidate, superevent
from mma_realtime.alerts.outbox import Deduplicator, keep_relaying, notice_key, only_relay, relay
from mma_realtime.alerts.store import Store
from mma_realtime.alerts.superevent import State, Superevent
from mma_realtime.bus.base import Record, Refused, Row
from mma_realtime.bus.log import SqliteLog
from mma_realtime.errors import AlertError, BusError

TOPIC, STREAM = "gw.notices", "H1L1"
HOPS = 4

# Four hops: an event, a louder trigger of it, a sky map (told in two flavours), another event; told and heard as found.
PROCESS = """
import sys
from mma_realtime.alerts.made_up import FIRST, LOUDER, PLACE, candidate
from mma_realtime.alerts.outbox import Deduplicator, relay
from mma_realtime.alerts.store import Store
from mma_realtime.alerts.superevent import Superevent
from mma_realtime.bus.log import SqliteLog

assert "torch" not in sys.modules and "astropy" not in sys.modules
store, bus, seen = Store(sys.argv[1]), SqliteLog(sys.argv[2]), Deduplicator(sys.argv[3])
seen.connection.execute("CREATE TABLE IF NOT EXISTS heard (offset INTEGER, value BLOB)")

def tell(write, event):
    write.version(event)
    headers = {"superevent_id": event.id, "version": str(event.version), "alert_type": event.state.value}
    write.send("gw.notices", event.id, f"{event.id} {event.version} {event.state}".encode(), headers)
    write.send("gw.voevents", event.id, b"<xml/>", headers)

for hop in range((store.state("H1L1") or (0, b""))[0], 4):
    with store.transaction() as write:
        found = {0: FIRST, 1: LOUDER, 3: candidate(gps=FIRST.gps + 60)}.get(hop)
        if found is None:
            tell(write, write.at(FIRST.gps).located(PLACE))
        else:
            known = write.at(found.gps)
            if known is None:
                number = write.next_number(found.utc)
                event = Superevent.opened(found, number)
                write.open(event, number)
            else:
                event = known.joined(found)
            write.trigger(event.id, found.gps, {"statistic": found.statistic})
            tell(write, event)
        write.scores("H1L1", hop, b"scores%d" % hop, keep=2)
        write.state("H1L1", hop + 1, b"state%d" % (hop + 1))
    relay(store, bus)
    for record in bus.fetch("gw.notices", "subscriber"):
        with seen.once(record) as first:
            if first:
                seen.connection.execute("INSERT INTO heard VALUES (?, ?)", (record.offset, record.value))
        bus.commit("subscriber", "gw.notices", record.offset + 1)
relay(store, bus)
for record in bus.fetch("gw.notices", "subscriber"):
    with seen.once(record) as first:
        if first:
            seen.connection.execute("INSERT INTO heard VALUES (?, ?)", (record.offset, record.value))
    bus.commit("subscriber", "gw.notices", record.offset + 1)
"""
TOLD = ["S150914a 1 PRELIMINARY", "S150914a 2 PRELIMINARY", "S150914a 3 INITIAL", "S150914b 1 PRELIMINARY"]


def run(folder: Path, kill_at: str = "") -> int:
    files = [folder / name for name in ("store.db", "bus.db", "seen.db")]
    environment = os.environ | ({VARIABLE: kill_at} if kill_at else {})
    return subprocess.run([sys.executable, "-c", PROCESS, *files], env=environment, check=False).returncode


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_everything_is_told_exactly_once(tmp_path: Path, point: str, times: int) -> None:
    assert run(tmp_path, f"{point}:{times}") == -signal.SIGKILL
    assert run(tmp_path) == 0
    with SqliteLog(tmp_path / "bus.db") as bus:
        records = bus.fetch(TOPIC, "another", 1000)
        assert [record.offset for record in records] == list(range(bus.end(TOPIC)))
    kept = list(dict.fromkeys(record.value.decode() for record in records))
    assert kept == TOLD  # what came first is in order; what came again adds nothing new
    # Only between sending and marking does a kill repeat a batch; the second one sent is of the other topic.
    assert len(records) == len(TOLD) + (point == "relay.sent" and times == 1)
    heard = sqlite3.connect(tmp_path / "seen.db").execute("SELECT value FROM heard ORDER BY rowid").fetchall()
    assert [value.decode() for (value,) in heard] == TOLD
    with Store(tmp_path / "store.db") as store:
        assert store.waiting() == []
        assert store.state(STREAM) == (HOPS, b"state4")
        assert store.scores(STREAM) == [(2, b"scores2"), (3, b"scores3")]
        assert store.superevents() == ["S150914a", "S150914b"]
        assert [each.state for each in store.versions("S150914a")] == ["PRELIMINARY", "PRELIMINARY", "INITIAL"]
        assert [each["statistic"] for each in store.triggers("S150914a")] == [12.0, 20.0]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as made:
        yield made


def tell(store: Store, event: Superevent, number: int = 0, topic: str = TOPIC) -> None:
    headers = {"superevent_id": event.id, "version": str(event.version), "alert_type": event.state.value}
    with store.transaction() as write:
        if event.version == 1:
            write.open(event, number)
        write.version(event)
        write.send(topic, event.id, f"{event.id}.{event.version}".encode(), headers)


class Broken:
    """A bus that is down for so many attempts, then takes only the first row of so many batches and says it failed."""

    def __init__(self, down: int = 0, torn: int = 0) -> None:
        self.down, self.torn = down, torn
        self.taken: list[bytes] = []

    def append_many(self, topic: str, rows: Iterable[Row]) -> list[int]:
        values = [value for _, value, _ in rows]
        if self.down:
            self.down -= 1
            raise BusError("no broker")
        if self.torn:
            self.torn -= 1
            self.taken += values[:1]
            raise BusError("the connection broke")
        self.taken += values
        return list(range(len(values)))


def lives(store: Store, count: int = 3) -> list[bytes]:
    """So many events of two versions each, in turns; what is to be told."""
    events = [superevent(number=n, gps=GPS + 100 * n) for n in range(count)]
    for n, each in enumerate(events):
        tell(store, each, n)
    for each in events:
        tell(store, each.located(PLACE))
    return [f"{e.id}.{v}".encode() for v in (1, 2) for e in events]


def test_a_bus_that_is_down_loses_nothing_and_reorders_nothing(store: Store) -> None:
    told = lives(store)
    bus: Any = Broken(down=6, torn=2)
    rests: list[float] = []

    def wait(seconds: float) -> bool:
        rests.append(seconds)
        return len(bus.taken) >= len(told) + 2

    assert keep_relaying(store, bus, wait, idle=0.01, longest=0.4) == len(told)
    assert rests == [0.05, 0.1, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4, 0.01]  # ever more rarely, up to a bound
    assert list(dict.fromkeys(bus.taken)) == told
    assert store.waiting() == []


class Choosy(Broken):
    """A bus that refuses for good what has `large` in it, after it may have taken what stood before that."""

    def append_many(self, topic: str, rows: Iterable[Row]) -> list[int]:
        given = list(rows)
        if any(b"large" in value for _, value, _ in given):
            raise Refused("a record of gw.notices is too large")
        self.headers = dict(given[-1][2])
        self.taken += [f"{topic} {key} ".encode() + value for key, value, _ in given]
        return list(range(len(given)))


def test_a_row_that_is_never_taken_becomes_a_dead_letter_and_stops_nothing(store: Store) -> None:
    with store.transaction() as write:
        for key, value in (("S1", b"1"), ("S2", b"1"), ("S1", b"2 large"), ("S2", b"2"), ("S1", b"3")):
            write.send(TOPIC, key, value, {"superevent_id": key, "version": value[:1].decode()})
    bus: Any = Choosy()
    assert relay(store, bus) == 5
    assert store.waiting() == []
    assert bus.taken == [
        b"gw.notices S1 1", b"gw.notices S2 1", b"gw.notices.dead S1 ", b"gw.notices S2 2", b"gw.notices S1 3",
    ]  # fmt: skip


def test_a_dead_letter_says_why_and_which_without_its_value(store: Store) -> None:
    with store.transaction() as write:
        write.send(TOPIC, "S1", b"2 large", {"superevent_id": "S1", "version": "2"})
    bus: Any = Choosy()
    assert relay(store, bus) == 1
    assert bus.headers == {
        "superevent_id": "S1", "version": "2", "topic": TOPIC, "bytes": "7",
        "reason": "a record of gw.notices is too large",
    }  # fmt: skip


def test_rows_of_other_topics_between_keep_the_order(store: Store, tmp_path: Path) -> None:
    for n, topic in enumerate(["a", "b", "b", "a", "a", "b"]):
        tell(store, superevent(number=n, gps=GPS + 100 * n), n, topic)
    with SqliteLog(tmp_path / "bus.db") as bus:
        assert relay(store, bus) == 6
        assert relay(store, bus) == 0
        times = {topic: [r.value for r in bus.fetch(topic, "g")] for topic in "ab"}
    assert times == {
        "a": [b"S150914a.1", b"S150914d.1", b"S150914e.1"],
        "b": [b"S150914b.1", b"S150914c.1", b"S150914f.1"],
    }


def test_two_relays_do_not_send_from_one_store(store: Store, tmp_path: Path) -> None:
    with only_relay(store), SqliteLog(tmp_path / "bus.db") as bus, pytest.raises(AlertError, match="another relay"):
        relay(store, bus)


def test_an_error_undoes_the_whole_transaction(store: Store) -> None:
    lives(store, 1)
    before = (store.waiting(), store.superevents(), store.state(STREAM))

    def fail() -> None:
        with store.transaction() as write:
            write.state(STREAM, 5, b"state")
            write.send(TOPIC, "key", b"value", {})
            write.open(superevent(number=1), 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (store.waiting(), store.superevents(), store.state(STREAM)) == before


def test_names_are_given_once_whatever_other_processes_and_restarts_do(tmp_path: Path) -> None:
    names: list[str] = []

    def find(day: int) -> None:
        with Store(tmp_path / "store.db") as store:
            for n in range(10):
                with store.transaction() as write:
                    number = write.next_number(FIRST.utc)
                    event = Superevent.opened(candidate(gps=GPS + 1000 * day + 10 * n), number)
                    write.open(event, number)
                    write.version(event)
                names.append(event.id)

    with Store(tmp_path / "store.db"):
        threads = [threading.Thread(target=find, args=(n,)) for n in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert sorted(names, key=lambda name: (len(name), name))[-1] == "S150914ad"
    assert len(set(names)) == 30


def test_a_trigger_belongs_to_the_nearest_event_within_a_second(store: Store) -> None:
    tell(store, superevent())
    tell(store, superevent(number=1, gps=GPS + 1.5), 1)
    tell(store, superevent().located(PLACE))
    with store.transaction() as write:
        found = [write.at(GPS + dt) for dt in (-1.01, -1.0, 0.7, 0.8, 2.5, 2.51)]
        assert [each and each.id[-1] for each in found] == [None, "a", "a", "b", "b", None]
        known = write.at(GPS)
        assert known is not None
        assert known.version == 2
        assert write.latest("S150914a").localisation == PLACE


def test_a_retraction_deletes_nothing(store: Store) -> None:
    event = superevent()
    for each in (event, event.located(PLACE), event.located(PLACE).retracted()):
        tell(store, each)
    assert [each.state for each in store.versions(event.id)] == [State.PRELIMINARY, State.INITIAL, State.RETRACTION]
    assert store.superevent(event.id).localisation == PLACE
    with pytest.raises(AlertError, match="has no superevent S150914z"):
        store.versions("S150914z")


def test_what_has_no_map_is_known(store: Store) -> None:
    first, second = superevent(), superevent(number=1, gps=GPS + 50)
    tell(store, first)
    tell(store, second, 1)
    assert [each.id for each in store.unlocated()] == ["S150914a", "S150914b"]
    tell(store, first.located(PLACE))
    tell(store, second.retracted())
    assert store.unlocated() == []
    tell(store, first.located(PLACE).joined(LOUDER))
    assert [(each.id, each.version) for each in store.unlocated()] == [("S150914a", 3)]


def test_a_stream_never_goes_back(store: Store) -> None:
    with store.transaction() as write:
        write.state(STREAM, 100, b"new")
    with pytest.raises(AlertError, match="at sample 100, not 50: another process"), store.transaction() as write:
        write.state(STREAM, 50, b"old")
    assert store.state(STREAM) == (100, b"new")
    assert store.state("another") is None


def test_a_store_is_waited_for_and_then_told_of(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as one, Store(tmp_path / "store.db", timeout=0.05) as two:
        with one.transaction(), pytest.raises(AlertError, match=r"store\.db was locked by another process for 0\.05 s"):
            tell(two, superevent())
        tell(two, superevent())


def test_files_that_are_no_store_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(AlertError, match=r"other\.db is damaged or no store of alerts"):
        Store(path)
    path.unlink()
    SqliteLog(path).close()
    with pytest.raises(AlertError, match="is a database, but no store of alerts"):
        Store(path)
    with pytest.raises(AlertError, match="check that its folder exists"):
        Store(tmp_path / "none" / "store.db")


def test_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=2")
    connection.close()
    content = path.read_bytes()
    with pytest.raises(AlertError, match="of version 2, this program knows 1 and converts none"):
        Store(path)
    assert path.read_bytes() == content


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store(path) as store:
        lives(store, 20)
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(AlertError, match="is damaged or no store of alerts"), Store(path) as store:
        store.waiting()


def test_no_space_leaves_what_was_there(tmp_path: Path) -> None:
    with Store(tmp_path / "store.db") as store:
        lives(store, 1)
        large = replace(PLACE, fits=bytes(10**6))
        store._database.connection.execute("PRAGMA max_page_count=1")  # never below what there is
        with pytest.raises(AlertError, match="no space left to write"):
            tell(store, replace(superevent(number=1, gps=GPS + 500), localisation=large), 1)
        store._database.connection.execute("PRAGMA max_page_count=1000000")
        assert store.superevents() == ["S150914a"]
        assert len(store.waiting()) == 2


def test_a_subscriber_drops_what_it_has_seen_also_after_a_restart(tmp_path: Path) -> None:
    def record(version: int, alert_type: str = "UPDATE") -> Record:
        return Record(TOPIC, 0, "S1", b"", {"superevent_id": "S1", "version": str(version), "alert_type": alert_type})

    seen = Deduplicator(tmp_path / "seen.db")
    for version in (1, 2, 1, 2, 3):
        with seen.once(record(version)):
            pass
    with pytest.raises(ZeroDivisionError), seen.once(record(4)):
        raise ZeroDivisionError  # the effect failed: it is to come again
    assert seen.dropped == 2
    seen.close()
    seen = Deduplicator(tmp_path / "seen.db")
    again = []
    for each in (record(3), record(3, "RETRACTION"), record(4)):
        with seen.once(each) as first:
            again.append(first)
    assert again == [False, True, True]
    seen.close()


@pytest.mark.parametrize("headers", [{}, {"superevent_id": "S1", "version": "x", "alert_type": "UPDATE"}])
def test_a_record_that_says_not_which_notice_it_is_is_poison(headers: dict[str, str]) -> None:
    with pytest.raises(AlertError, match="does not say which it is"):
        notice_key(headers)
    assert issubclass(AlertError, ValueError)  # what readers bury
