"""The system where its files give trouble: a full disk, locked files, a broker away. Nothing lost, nothing twice.

Real files and real processes: the lock is another process's, space is taken from the process that writes (RLIMIT_FSIZE
by `prlimit`), the broker is Kafka's mock cluster in a process that is stopped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mma_realtime.alerts.faults import FINISH, VARIABLE
from mma_realtime.alerts.made_up import PLACE, superevent
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.outbox import Deduplicator, keep_relaying
from mma_realtime.alerts.pipeline import tell
from mma_realtime.alerts.store import Store
from mma_realtime.bus.base import NOTICES, Bus
from mma_realtime.bus.kafka import KafkaBus
from mma_realtime.bus.kafka_config import KafkaConfig
from mma_realtime.bus.log import SqliteLog
from mma_realtime.data.strain import write_npz
from mma_realtime.live import stages
from mma_realtime.live.feed import Stretch
from mma_realtime.live.system import Settings, System, prepare
from mma_realtime.status import watch
from mma_realtime.status.beats import Heart
from mma_realtime.status.watch import Watch


def imported(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


inputs, contract = imported("search_inputs"), imported("test_bus_contract")
cluster = contract.cluster  # a fixture
LOCK = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""
STREAM = """
import importlib.util, sys, threading
from pathlib import Path
from mma_realtime.live import stages, system
spec = importlib.util.spec_from_file_location("search_inputs", sys.argv[2])
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
system.report.load_model = lambda path: inputs.template_model(threshold=2.0, time_offset=0.0)
stages.run("stream", system.System.load(Path(sys.argv[1])), threading.Event())
"""


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
    return found


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    made = inputs.template_model(threshold=2.0, time_offset=0.0)
    monkeypatch.setattr("mma_realtime.live.system.report.load_model", lambda path: made)


@pytest.fixture(scope="module")
def strain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("strain") / "strain.npz"
    write_npz(inputs.strain_with(12.0, 25.6, 35.2, amplitude=12.0), path)
    return path


def system_of(folder: Path, strain: Path, speed: float = 0.0) -> System:
    return prepare(folder, Settings(replay=(str(strain),), speed=speed))


def streamed(system: System) -> None:
    stages.run("stream", system, threading.Event())


def found(system: System) -> list[tuple[Any, ...]]:
    """All that the search wrote, without the times at which it did."""
    database = sqlite3.connect(system.folder / "store.sqlite")
    tables = [
        *database.execute("SELECT topic, key, headers FROM outbox ORDER BY number"),
        *database.execute("SELECT superevent, version, content FROM version ORDER BY rowid"),
        *database.execute("SELECT superevent, gps, content FROM trigger ORDER BY id"),
        *database.execute("SELECT number, content FROM scores ORDER BY number"),
        *database.execute("SELECT offset, snapshot FROM state"),
    ]
    database.close()
    return tables


@pytest.fixture(scope="module")
def undisturbed(strain: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    with pytest.MonkeyPatch.context() as patch:
        made = inputs.template_model(threshold=2.0, time_offset=0.0)
        patch.setattr("mma_realtime.live.system.report.load_model", lambda path: made)
        system = system_of(tmp_path_factory.mktemp("undisturbed"), strain)
        streamed(system)
        assert len(system.store().superevents()) >= 3
        return found(system)


@pytest.fixture
def locked() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Locks a database from another process, until that one's input ends."""
    running: list[subprocess.Popen[str]] = []

    def lock(path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        return process

    yield lock
    for process in running:
        process.kill()
        process.wait()


def health(look: Watch, stage: str) -> tuple[str, str]:
    return next(((s["health"], s["note"]) for s in look.look()["stages"] if s["name"] == stage), ("", ""))


def test_a_locked_store_is_waited_for_the_page_says_so_and_nothing_is_lost(
    tmp_path: Path, strain: Path, undisturbed: list[Any], monkeypatch: pytest.MonkeyPatch, locked: Any
) -> None:
    system = system_of(tmp_path, strain)
    monkeypatch.setattr(System, "store", lambda self: Store(self.folder / "store.sqlite", timeout=0.05))
    hop = stages.TimedPipeline.hop
    blocker: list[subprocess.Popen[str]] = []

    def blocked(self: Any, block: Any) -> Any:
        if block.offset == 12 * 2048:
            blocker.append(locked(tmp_path / "store.sqlite"))
        return hop(self, block)

    monkeypatch.setattr(stages.TimedPipeline, "hop", blocked)
    with system.bus() as bus:
        look = Watch(tmp_path / "store.sqlite", bus)
        thread = threading.Thread(target=streamed, args=(system,))
        thread.start()
        until(lambda: "locked or out of space" in health(look, "stream")[1])
        assert health(look, "stream")[0] == "waiting"
        (process,) = blocker
        process.communicate()  # its input ends, and with it the lock
        thread.join(120)
        assert health(look, "stream")[0] == "ended"
    assert found(system) == undisturbed


def test_a_stage_that_waits_for_a_store_ends_when_it_is_told_to(
    tmp_path: Path, strain: Path, monkeypatch: pytest.MonkeyPatch, locked: Any
) -> None:
    system = system_of(tmp_path, strain)
    system.store().close()
    monkeypatch.setattr(System, "store", lambda self: store)
    store, stop = Store(tmp_path / "store.sqlite", timeout=0.05), threading.Event()
    locked(tmp_path / "store.sqlite")
    thread = threading.Thread(target=stages.run, args=("stream", system, stop))
    thread.start()
    with system.bus() as bus:
        look = Watch(tmp_path / "store.sqlite", bus)
        until(lambda: health(look, "stream")[0] == "waiting")
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
        assert health(look, "stream")[0] == "ended"


def test_a_full_disk_is_waited_for_and_nothing_is_lost(tmp_path: Path, strain: Path, undisturbed: list[Any]) -> None:
    """A process may write no more bytes from the middle of its strain on, beats included, until it is given space."""
    system = system_of(tmp_path, strain, speed=20.0)
    with system.store() as store, system.bus() as bus:
        look = Watch(tmp_path / "store.sqlite", bus)
        process = subprocess.Popen([sys.executable, "-c", STREAM, str(tmp_path), inputs.__file__], stderr=-1, text=True)
        name = system.feed.stretches[0].name
        until(lambda: (store.state(name) or (0,))[0] >= 5 * 2048)
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        time.sleep(1.0)  # a hop that was being written
        stuck = store.state(name)
        assert stuck is not None
        assert stuck[0] < 40 * 2048
        time.sleep(3.0)
        assert process.poll() is None
        assert store.state(name) == stuck  # it waits, and has written nothing by halves
        (stage,) = (s for s in look.look()["stages"] if s["name"] == "stream")
        assert stage["silent"] > 2.0  # its beats find no space either: the page shows for how long it is silent
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert "no space left to write" in said
    assert found(system) == undisturbed


def test_killed_between_its_last_hop_and_its_end_a_stream_tells_what_was_still_open(tmp_path: Path) -> None:
    write_npz(inputs.strain_with(8.0, 15.2, seconds=16, amplitude=12.0), tmp_path / "strain.npz")
    system, whole = (system_of(tmp_path / name, tmp_path / "strain.npz") for name in ("killed", "whole"))
    streamed(whole)
    command = [sys.executable, "-c", STREAM, str(system.folder), inputs.__file__]
    assert subprocess.run(command, env=os.environ | {VARIABLE: FINISH}, check=False).returncode == -signal.SIGKILL
    with system.store() as store:
        (state,) = [store.state(stretch.name) for stretch in system.feed.stretches]
        assert state is not None
        assert state[0] == 16 * 2048  # the last hop is durable
        told = len(store.superevents())
    streamed(system)
    assert found(system) == found(whole)
    streamed(system)  # once more: it has ended
    assert found(system) == found(whole)
    with system.store() as store:
        assert len(store.superevents()) == told + 1


def test_a_map_waits_for_a_stream_that_was_killed_and_not_for_one_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "PATIENCE", 0.05)
    stretch = Stretch("simulated", 1000, 2000, 0)
    with Store(tmp_path / "store.db") as store, SqliteLog(tmp_path / "bus.db") as bus:

        def came(seconds: int) -> None:
            with store.transaction() as write:
                write.state("simulated", 2048 * seconds, b"")

        def arrived() -> int:
            return stages._arrived(store, bus, stretch, 1099.5, threading.Event(), Heart(bus, "localiser"))

        came(101)
        stream = Heart(bus, "stream")
        stream.beat("died", "ended by SIGKILL; starts again in 0.5 s", now=True)
        later = threading.Timer(0.5, came, [200])
        later.start()
        assert arrived() == 1103  # all that it wants: three seconds after its event
        later.join()
        stretch = Stretch("other", 1000, 2000, 0)
        stream.beat("ended", now=True)
        assert arrived() == 1000  # nothing more will come


def test_the_page_warns_of_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    with SqliteLog(tmp_path / "bus.sqlite") as bus:
        look = Watch(tmp_path / "store.sqlite", bus)
        assert look.look()["trouble"] == ""
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
        assert "1 MB are left on the disk of" in look.look()["trouble"]
        assert "nothing is lost" in look.look()["trouble"]


EVENTS, VERSIONS = 40, 3


def lives(store: Store, first: int, count: int) -> list[tuple[str, str]]:
    """So many superevents of three versions each, in turns; (superevent, version) in order."""
    events = [superevent(number, gps=1126259462.4 + 100 * number) for number in range(first, first + count)]
    for number, event in enumerate(events, first):
        with store.transaction() as write:
            write.open(event, number)
            tell(write, event, None, Origin.SIMULATED, "2015-09-14T09:51:00.000Z")
    for change in (lambda e: e.located(PLACE), lambda e: e.coincident()):
        for at, event in enumerate(events):
            events[at] = change(event)
            with store.transaction() as write:
                tell(write, events[at], event, Origin.SIMULATED, "2015-09-14T09:51:00.000Z")
    return [(event.id, str(version)) for version in range(1, VERSIONS + 1) for event in events]


def heard(bus: Bus, memory: Path, count: int, seconds: float = 60.0) -> tuple[list[tuple[str, str]], int]:
    """What a subscriber gets that drops what it knows, and how many it dropped."""
    seen, told = Deduplicator(memory), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        records = bus.fetch(NOTICES, "subscriber", 1000, timeout=1.0)
        for record in records:
            with seen.once(record) as first:
                if first:
                    told.append((record.headers["superevent_id"], record.headers["version"]))
        if not records and len(told) >= count:
            break
    dropped = seen.dropped
    seen.close()
    return told, dropped


def test_a_broker_that_is_down_for_a_minute_loses_nothing_and_reorders_no_superevent(
    tmp_path: Path, cluster: tuple[subprocess.Popen[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka's protocol, time compressed tenfold: away for 6 s, given up as undelivered after 1 s again and again."""
    process, address = cluster
    monkeypatch.setattr(watch, "WAITING", 1.0)
    config = KafkaConfig((address,), "plaintext", delivery_timeout=1.0, request_timeout=0.5)
    stop = threading.Event()
    with Store(tmp_path / "store.sqlite") as store, SqliteLog(tmp_path / "bus.sqlite") as beats:
        look = Watch(tmp_path / "store.sqlite", beats)
        expected = lives(store, 0, EVENTS // 2)
        broker = KafkaBus(config)
        thread = threading.Thread(target=keep_relaying, args=(store, broker, stop.wait), kwargs={"longest": 1.0})
        thread.start()
        until(lambda: len(store.waiting(1000)) < len(expected))
        process.send_signal(signal.SIGSTOP)
        try:
            begin = time.monotonic()
            expected += lives(store, EVENTS // 2, EVENTS - EVENTS // 2)
            assert "rows wait to be sent" in until(lambda: look.look()["trouble"], 30)
            time.sleep(max(0.0, 6.0 - (time.monotonic() - begin)))
            assert look.look()["outbox"]["waiting"] >= EVENTS // 2 * VERSIONS
        finally:
            process.send_signal(signal.SIGCONT)
        until(lambda: not store.waiting(1))
        stop.set()
        thread.join(60)
        assert look.look()["trouble"] == ""
        reader = KafkaBus(KafkaConfig((address,), "plaintext", delivery_timeout=20, request_timeout=2))
        told, _ = heard(reader, tmp_path / "seen.db", len(expected))
        reader.close()
        broker.close()
    assert sorted(told) == sorted(expected)  # nothing lost, and nothing twice
    for id in {id for id, _ in expected}:
        assert [version for name, version in told if name == id] == ["1", "2", "3"]


def test_a_log_that_another_process_locks_loses_nothing_and_the_page_says_so(
    tmp_path: Path, strain: Path, monkeypatch: pytest.MonkeyPatch, locked: Any
) -> None:
    system = system_of(tmp_path, strain)
    monkeypatch.setattr(watch, "WAITING", 1.0)
    monkeypatch.setattr(System, "bus", lambda self: SqliteLog(self.folder / "bus.sqlite", timeout=0.1))
    stop = threading.Event()
    with system.store() as store, system.bus() as bus:
        look = Watch(tmp_path / "store.sqlite", bus)
        relaying = threading.Thread(target=stages.relay, args=(system, stop, Heart(bus, "relay")))
        relaying.start()
        until(lambda: health(look, "relay")[0] == "ok")
        process = locked(tmp_path / "bus.sqlite")
        expected = lives(store, 0, 10)
        assert "90 rows wait to be sent" in until(lambda: look.look()["trouble"], 30)
        process.communicate()
        until(lambda: not store.waiting(1))
        stop.set()
        relaying.join(30)
        assert look.look()["trouble"] == ""
        told, dropped = heard(bus, tmp_path / "seen.db", len(expected))
        assert (told, dropped) == (expected, 0)  # a refused batch left nothing
        assert json.loads(bus.fetch(NOTICES, "again", 1)[0].value)["superevent_id"] == "S150914a"
