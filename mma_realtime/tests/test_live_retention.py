"""What is deleted of bus and store, and what stays whatever its age."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mma_realtime.alerts.made_up import CREATED, superevent
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.outbox import relay
from mma_realtime.alerts.pipeline import tell
from mma_realtime.alerts.store import Store
from mma_realtime.bus.base import EXTERNAL, NOTICES, SURVEY
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.filter import GROUP as FILTER
from mma_realtime.crossmatch.matcher import GROUP, KEPT
from mma_realtime.live.retention import HOUR, SENT, TOPICS, Retention
from mma_realtime.status.beats import STAGES

DAY = 86400.0


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "time", made)
    return made


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "bus.db") as log:
        yield log


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as made:
        yield made


def found(store: Store, number: int) -> None:
    event = superevent(number, gps=1126259462.4 + 100 * number)
    with store.transaction() as write:
        write.open(event, number)
        tell(write, event, None, Origin.SIMULATED, CREATED)


def test_a_topic_keeps_its_time_and_its_readers_unread_records(store: Store, bus: SqliteLog, clock: Clock) -> None:
    for topic in (STAGES, SURVEY, NOTICES, EXTERNAL):
        bus.append_many(topic, [("", b"old", {})] * 5)
    clock.now += HOUR + 60
    for topic in (STAGES, SURVEY, NOTICES, EXTERNAL):
        bus.append(topic, "", b"new")
    bus.commit(FILTER, SURVEY, 3)
    retention = Retention(store, bus, clock)
    assert retention.keep() == 5 + 3
    assert {topic: bus.first(topic) for topic in (STAGES, SURVEY, NOTICES, EXTERNAL)} == {
        STAGES: 5, SURVEY: 3, NOTICES: 0, EXTERNAL: 0,
    }  # fmt: skip
    clock.now += KEPT
    bus.commit(GROUP, NOTICES, 2)
    assert retention.keep() == 1 + 0 + 2 + 0  # nobody has read external notices: they stay
    assert [bus.first(topic) for topic in (STAGES, SURVEY, NOTICES, EXTERNAL)] == [6, 3, 2, 0]
    bus.seek(FILTER, SURVEY, bus.committed(FILTER, SURVEY))
    assert [record.value for record in bus.fetch(SURVEY, FILTER)] == [b"old", b"old", b"new"]


def test_what_was_sent_goes_after_a_day_and_what_waits_stays(store: Store, bus: SqliteLog, clock: Clock) -> None:
    retention = Retention(store, bus, clock)
    found(store, 0)
    relay(store, bus)
    found(store, 1)
    clock.now += SENT - 10
    assert retention.keep() == 0
    clock.now += 20
    assert retention.keep() == 0  # a minute has not passed
    clock.now += 60
    assert retention.keep() == 3  # one event in three flavours
    assert [row.number for row in store.waiting(100)] == [4, 5, 6]
    assert store.rows_made() == 6
    assert [len(store.versions(id)) for id in store.superevents()] == [1, 1]
    found(store, 2)
    assert store.waiting(100)[-1].number == 9  # numbers are never given again: they are the order of sending


def test_rows_are_deleted_in_steps(store: Store, bus: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_realtime.alerts.store.PURGE", 2)
    for number in range(3):
        found(store, number)
    relay(store, bus)
    assert store.forget_sent(time.time() + 1) == 9
    assert store.forget_sent(time.time() + 1) == 0


def test_what_was_sent_is_found_by_an_index(tmp_path: Path, bus: SqliteLog) -> None:
    """In a store that was made before there was one too: a day of rows is not read to delete an hour's."""
    path = tmp_path / "old.db"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as old:
        for index in ("outbox_times", "outbox_keys"):
            old.execute(f"DROP INDEX {index}")
        old.execute("CREATE INDEX outbox_sent ON outbox (sent) WHERE sent IS NOT NULL")
    with Store(path) as store:
        found(store, 0)
        relay(store, bus)
        asked: list[str] = []
        connection = store._database.connection
        connection.set_trace_callback(asked.append)
        assert store.forget_sent(time.time() + 1) == 3
        connection.set_trace_callback(None)
        (query,) = (sql for sql in asked if sql.startswith("SELECT"))
        plan = [step for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert plan[0] == "SEARCH outbox USING INDEX outbox_times (sent<?)"


def test_what_waits_is_read_in_order_and_no_further(store: Store) -> None:
    """While a bus is down rows with maps pile up: a batch of them must not sort, and so read, them all."""
    asked: list[str] = []
    connection = store._database.connection
    connection.set_trace_callback(asked.append)
    assert store.waiting(2) == []
    connection.set_trace_callback(None)
    plan = [step for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {asked[0]}")]
    assert plan == ["SCAN outbox USING INDEX outbox_waiting"]


def test_large_rows_are_deleted_a_few_at_a_time(store: Store, bus: SqliteLog) -> None:
    with store.transaction() as write:
        for _ in range(9):
            write.send(NOTICES, "", bytes(1_500_000), {})
    relay(store, bus)
    steps: list[str] = []
    store._database.connection.set_trace_callback(lambda sql: steps.append(sql.split()[0]))
    assert store.forget_sent(time.time() + 1) == 9
    assert steps.count("COMMIT") == 3


def test_every_topic_of_the_system_has_its_time(bus: SqliteLog) -> None:
    """A topic without one would grow for ever; the system's topics are those that its modules name."""
    import mma_realtime.alerts.pipeline as pipeline
    import mma_realtime.crossmatch.filter as survey

    named = {STAGES, NOTICES, EXTERNAL, SURVEY, survey.MATCHES, pipeline.UNIFIED, pipeline.VOEVENTS}
    assert named <= set(TOPICS)
    assert {f"{topic}.dead" for topic in (NOTICES, pipeline.UNIFIED, pipeline.VOEVENTS, EXTERNAL, SURVEY)} <= set(
        TOPICS
    )


def test_how_far_a_group_is_behind(bus: SqliteLog, clock: Clock) -> None:
    assert bus.behind(NOTICES, "group") == 0
    bus.append_many(NOTICES, [("", b"", {})] * 7)
    bus.commit("group", NOTICES, 2)
    assert (bus.behind(NOTICES, "group"), bus.behind(NOTICES, "new")) == (5, 7)
    clock.now += 10
    bus.append(NOTICES, "", b"")
    bus.delete_before(NOTICES, clock.now)
    assert (bus.behind(NOTICES, "group"), bus.behind(NOTICES, "new")) == (1, 1)  # what is gone waits no more
