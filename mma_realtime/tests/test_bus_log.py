"""The SQLite log under what happens to files: kills, torn tails, no space, locks, retention, other readers."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mma_realtime.bus.base import RangeLost, Record, Refused, handled
from mma_realtime.bus.log import SqliteLog
from mma_realtime.errors import BusError

TOPIC = "gw.notices"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "bus.db") as made:
        yield made


def python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def numbered(log: SqliteLog, count: int, topic: str = TOPIC) -> list[int]:
    return log.append_many(topic, [(f"key{n}", b"%d" % n, {}) for n in range(count)])


def everything(log: SqliteLog, topic: str = TOPIC) -> list[Record]:
    log.seek("everything", topic, log.first(topic))
    found: list[Record] = []
    while batch := log.fetch(topic, "everything", 1000):
        found += batch
    return found


WRITER = """
import sys
from mma_realtime.bus.log import SqliteLog
log, name = SqliteLog(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
batch = 0
while True:
    size = batch % 7 + 1
    rows = [(name, b"x" * (37 * batch % 5000), {"batch": str(batch), "of": str(size)})] * size
    print(batch, *log.append_many("gw.notices", rows), flush=True)
    batch += 1
"""


def acknowledged(process: subprocess.Popen[str]) -> dict[int, list[int]]:
    """What a killed writer had been told, but for a last line that was torn."""
    assert process.stdout is not None
    lines = process.stdout.read().split("\n")[:-1]
    return {int(line.split()[0]): [int(word) for word in line.split()[1:]] for line in lines}


@pytest.mark.slow
def test_writers_killed_at_any_time_leave_no_gap_no_loss_and_no_half_batch(tmp_path: Path) -> None:
    path, draw = tmp_path / "bus.db", random.Random(4)
    told: dict[str, dict[int, list[int]]] = {}
    for turn in range(12):  # two writers at a time, one is killed while the other writes
        writers = {f"{turn}{letter}": python(WRITER, path, f"{turn}{letter}") for letter in "ab"}
        for process in writers.values():
            assert line_of(process) == "ready"
        for name, process in writers.items():
            threading.Event().wait(draw.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
            told[name] = acknowledged(process)
            process.wait()
    with SqliteLog(path) as log:
        records = everything(log)
        assert [record.offset for record in records] == list(range(log.end(TOPIC)))
    assert sum(len(batches) for batches in told.values()) > 20
    for name, batches in told.items():
        own = [record for record in records if record.key == name]
        written: dict[int, list[Record]] = {}
        for record in own:
            written.setdefault(int(record.headers["batch"]), []).append(record)
        assert list(written) == list(range(len(written)))  # in order, none missing
        for number, batch in written.items():
            assert len(batch) == int(batch[0].headers["of"])  # all of it, or it is not there
            assert {len(record.value) for record in batch} == {37 * number % 5000}
        for number, offsets in batches.items():
            assert [record.offset for record in written[number]] == offsets
        assert len(written) - len(batches) in (0, 1)  # on disk, but killed before it could say so


@pytest.mark.parametrize("damage", ["cut", "zeros", "noise"])
def test_a_torn_tail_of_the_wal_takes_the_last_batch_as_a_whole(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bus.db"
    code = """
import os, signal, sys
from mma_realtime.bus.log import SqliteLog
log = SqliteLog(sys.argv[1])
log.append_many("gw.notices", [("first", b"1" * 9000, {})] * 10)
print(os.path.getsize(sys.argv[1] + "-wal"), flush=True)
log.append_many("gw.notices", [("second", b"2" * 9000, {})] * 10)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = python(code, path)
    first = int(line_of(process))
    process.wait()
    wal = Path(f"{path}-wal")
    whole = wal.stat().st_size
    assert whole > first
    cut = (first + whole) // 2
    tail = {"cut": b"", "zeros": bytes(whole - cut), "noise": random.Random(1).randbytes(whole - cut)}[damage]
    wal.write_bytes(wal.read_bytes()[:cut] + tail)
    with SqliteLog(path) as log:
        assert [(record.offset, record.key) for record in everything(log)] == [(n, "first") for n in range(10)]
        assert log.append(TOPIC, "third", b"3") == 10


def test_a_full_disk_is_one_clear_message_and_the_same_append_goes_on_without_a_gap(tmp_path: Path) -> None:
    code = """
import resource, sys
from mma_realtime.bus.log import SqliteLog
from mma_realtime.errors import BusError
log = SqliteLog(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
sent = 0
try:
    while True:
        log.append_many("gw.notices", [(str(sent + n), b"x" * 5000, {}) for n in range(5)])
        sent += 5
except BusError as error:
    print(error, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
offsets = log.append_many("gw.notices", [(str(sent + n), b"x" * 5000, {}) for n in range(5)])
print(sent, *offsets)
"""
    process = python(code, tmp_path / "bus.db")
    out, _ = process.communicate()
    message, numbers = out.strip().split("\n")
    assert "no space left to write" in message
    assert "nothing was written" in message
    sent, *offsets = map(int, numbers.split())
    assert sent >= 5
    assert offsets == list(range(sent, sent + 5))
    with SqliteLog(tmp_path / "bus.db") as log:
        assert [record.key for record in everything(log)] == [str(n) for n in range(sent + 5)]


def test_a_full_database_too(log: SqliteLog) -> None:
    numbered(log, 3)
    log._connection.execute("PRAGMA max_page_count=40")
    with pytest.raises(BusError, match=r"no space left to write .*nothing was written"):
        log.append(TOPIC, "big", b"x" * 1_000_000)
    log._connection.execute("PRAGMA max_page_count=100000")
    assert log.append(TOPIC, "big", b"x" * 1_000_000) == 3


def test_a_locked_log_is_waited_for_then_one_clear_message(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    with SqliteLog(path, timeout=0.2) as log, SqliteLog(path) as patient:
        numbered(log, 3)
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusError, match=r"bus.db was locked by another process for 0\.2 s: nothing was written"):
            log.append(TOPIC, "refused", b"")
        assert len(log.fetch(TOPIC, "reader")) == 3  # readers are not held up
        release = threading.Timer(0.3, other.execute, ["ROLLBACK"])
        release.start()
        assert patient.append(TOPIC, "waited", b"") == 3
        release.join()
        assert log.append(TOPIC, "refused", b"") == 4
        other.close()


def test_a_reader_of_another_process_wakes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    code = """
import sys, time
from mma_realtime.bus.log import SqliteLog
log = SqliteLog(sys.argv[1])
print("ready", flush=True)
before = time.process_time()
found = log.fetch("gw.notices", "reader", timeout=30)
print(len(found), found[0].time, time.process_time() - before)
"""
    reader = python(code, path)
    with SqliteLog(path) as log:
        assert line_of(reader) == "ready"
        threading.Event().wait(0.5)
        begin = time.monotonic()
        log.append(TOPIC, "key", b"value")
        out, _ = reader.communicate()
        took = time.monotonic() - begin
    assert out.split()[0] == "1"
    assert took < 10  # far from its 30 s; how soon is measured by benchmarks/bus.py
    assert float(out.split()[2]) < 0.25  # it slept, most of that half second


def test_many_processes_append_at_once_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    code = """
import sys
from mma_realtime.bus.log import SqliteLog
log = SqliteLog(sys.argv[1])
for n in range(40):
    log.append("gw.notices", sys.argv[2], b"%d" % n)
"""
    writers = [python(code, path, str(number)) for number in range(4)]  # all of them make the file
    assert [process.wait() for process in writers] == [0] * 4
    with SqliteLog(path) as log:
        records = everything(log)
    assert [record.offset for record in records] == list(range(160))
    for number in range(4):
        own = [int(record.value) for record in records if record.key == str(number)]
        assert own == list(range(40))


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
def test_a_log_that_another_makes_while_this_one_opens_it_is_no_strange_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    path, connect, count = tmp_path / "bus.db", sqlite3.connect, 0

    class Overtaken(sqlite3.Connection):
        def execute(self, *arguments: str) -> sqlite3.Cursor:  # type: ignore[override]
            nonlocal count
            if count == after:
                monkeypatch.setattr(sqlite3, "connect", connect)
                with SqliteLog(path) as other:
                    other.append(TOPIC, "first", b"")
            count += 1
            return super().execute(*arguments)

    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Overtaken, **k))
    with SqliteLog(path) as log:
        assert log.append(TOPIC, "second", b"") == 1
    assert count > after


def test_retention_tells_a_group_what_it_lost(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    numbered(log, 7)
    assert len(log.fetch(TOPIC, "slow", 2)) == 2
    log.commit("slow", TOPIC, 2)
    monkeypatch.setattr(time, "time", lambda: 2000.0)
    numbered(log, 3)
    assert log.delete_before(TOPIC, 1500.0) == 7
    assert (log.first(TOPIC), log.end(TOPIC)) == (7, 10)
    for _ in range(2):  # again and again, until somebody decides
        with pytest.raises(RangeLost, match=r"gw.notices: records 2 to 6 were deleted .* seek to 7") as lost:
            log.fetch(TOPIC, "slow")
        assert (lost.value.first, lost.value.next) == (2, 7)
    with SqliteLog(log.path) as anew, pytest.raises(RangeLost):
        anew.fetch(TOPIC, "slow")
    log.seek("slow", TOPIC, 7)
    assert [record.offset for record in log.fetch(TOPIC, "slow")] == [7, 8, 9]
    assert [record.offset for record in log.fetch(TOPIC, "new group")] == [7, 8, 9]


def test_retention_goes_in_steps_and_gives_the_space_back(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_realtime.bus.log.PURGE", 10)
    log.append_many(TOPIC, [("", bytes(10_000), {})] * 95)
    pages = log._connection.execute("PRAGMA page_count").fetchone()[0]
    assert log.delete_before(TOPIC, time.time() + 1) == 95
    assert log._connection.execute("PRAGMA page_count").fetchone()[0] < pages / 5
    assert log.delete_before(TOPIC, time.time() + 1) == 0
    assert log.append(TOPIC, "", b"") == 95  # offsets are never used again


def test_nothing_is_skipped_while_retention_runs(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(log, 10)
    log.commit("late", TOPIC, 5)
    with SqliteLog(log.path) as reader:
        look = reader._bounds

        def bounds(topic: str) -> tuple[int, int, int]:
            found = look(topic)
            log.delete_before(topic, time.time() + 1)  # between the look at what is there and the records
            return found

        monkeypatch.setattr(reader, "_bounds", bounds)
        assert [record.offset for record in reader.fetch(TOPIC, "reader")] == list(range(10))
    with SqliteLog(log.path) as anew, pytest.raises(RangeLost, match="records 5 to 9"):
        anew.fetch(TOPIC, "late")


def test_a_clock_set_back_does_not_unsort_a_topic(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    for now in (100.0, 200.0, 50.0, 300.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        log.append(TOPIC, "", b"")
    assert [record.time for record in everything(log)] == [100.0, 200.0, 200.0, 300.0]
    log.seek("group", TOPIC, time=150.0)
    assert [record.offset for record in log.fetch(TOPIC, "group")] == [1, 2, 3]


def test_threads_may_share_a_log(log: SqliteLog) -> None:
    waiting: list[Record] = []
    thread = threading.Thread(target=lambda: waiting.extend(log.fetch(TOPIC, "reader", timeout=20)))
    thread.start()
    log.append(TOPIC, "key", b"value")
    thread.join()
    assert [record.key for record in waiting] == ["key"]


def test_a_file_that_is_no_log_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be looked at" * 100)
    with pytest.raises(BusError, match="text is damaged or no bus log"):
        SqliteLog(tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    other.close()
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(BusError, match=r"other.db is a database, but no bus log"):
        SqliteLog(tmp_path / "other.db")
    assert (tmp_path / "other.db").read_bytes() == before
    with pytest.raises(BusError, match="check that its folder exists"):
        SqliteLog(tmp_path / "nowhere" / "bus.db")


def test_a_log_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with SqliteLog(tmp_path / "bus.db") as log:
        log._connection.execute("PRAGMA user_version=9")
    with pytest.raises(BusError, match=r"version 9 .* update it"):
        SqliteLog(tmp_path / "bus.db")


def test_what_was_read_before_an_error_comes_again(log: SqliteLog) -> None:
    numbered(log, 2)
    with pytest.raises(BusError, match=r"no space"), handled(log, "group", log.fetch(TOPIC, "group")):
        raise BusError("no space")
    assert log.committed("group", TOPIC) == 0
    assert [record.offset for record in log.fetch(TOPIC, "group")] == [0, 1]


def test_retention_deletes_few_large_records_and_few_pages_at_a_time(log: SqliteLog) -> None:
    """What a writer waits for: 4 MB of records, or 250 pages."""
    for _ in range(6):
        log.append_many(TOPIC, [("S1", bytes(1_500_000), {})] * 2)
    log.append(TOPIC, "S1", bytes(9_000_000))  # by itself beyond the limit
    steps: list[str] = []
    log._connection.set_trace_callback(lambda sql: steps.append(sql))
    assert log.delete_before(TOPIC, time.time() + 1) == 13
    log._connection.set_trace_callback(None)
    assert sum(sql.startswith("DELETE") for sql in steps) == 7
    assert sum(sql.startswith("PRAGMA incremental_vacuum(250)") for sql in steps) >= 27e6 / 4096 / 250
    assert log._connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert log.first(TOPIC) == 13


def test_a_record_that_no_bus_carries_is_refused(log: SqliteLog) -> None:
    with pytest.raises(Refused, match=r"a record of 34,000,00\d bytes is no record of gw\.notices: at most 34,000,000"):
        log.append_many(TOPIC, [("S1", b"", {}), ("S1", bytes(34_000_000), {})])
    assert log.end(TOPIC) == 0


def test_a_fetch_holds_so_many_bytes_and_no_more(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_realtime.bus.log.FETCH", 250)
    log.append_many(TOPIC, [("S1", bytes(100), {})] * 7)
    assert [[record.offset for record in log.fetch(TOPIC, "g")] for _ in range(4)] == [[0, 1, 2], [3, 4, 5], [6], []]
    monkeypatch.setattr("mma_realtime.bus.log.FETCH", 50)
    assert len(log.fetch(TOPIC, "new")) == 1
