"""What every bus promises, on the SQLite log and on Kafka's mock cluster (in a process of its own, real protocol)."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mma_realtime.bus.__main__ import main
from mma_realtime.bus.base import PARTITION, SURVEY, Bus, RangeLost, Record, Refused, bury, handled
from mma_realtime.bus.forward import forward
from mma_realtime.bus.kafka import KafkaBus
from mma_realtime.bus.kafka_config import KafkaConfig, read_config
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.filter import Batch, SurveyFilter
from mma_realtime.errors import BusError

Opener = Callable[[], Bus]
spec = importlib.util.spec_from_file_location("kafka_cluster", Path(__file__).with_name("kafka_cluster.py"))
assert spec is not None
assert spec.loader is not None
kafka_cluster = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kafka_cluster)


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of a mock cluster, and its address."""
    with kafka_cluster.running() as found:
        yield found


@pytest.fixture(params=["log", "kafka"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same bus again and again."""
    opened: list[Bus] = []
    if request.param == "kafka":
        _, address = request.getfixturevalue("cluster")
        config = KafkaConfig((address,), "plaintext", delivery_timeout=20, request_timeout=2)

    def open_bus() -> Bus:
        opened.append(SqliteLog(tmp_path / "bus.db") if request.param == "log" else KafkaBus(config))
        return opened[-1]

    yield open_bus
    for bus in opened:
        bus.close()


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic of this test alone: the cluster is shared."""
    return "".join(letter if letter.isalnum() else "." for letter in request.node.name)[:150]


def drain(bus: Bus, topic: str, group: str, count: int) -> list[Record]:
    found: list[Record] = []
    until = time.monotonic() + 20
    while len(found) < count and time.monotonic() < until:
        found += bus.fetch(topic, group, timeout=5.0)
    return found


def test_records_come_back_as_they_were_in_order(opener: Opener, topic: str) -> None:
    bus, before = opener(), time.time()
    rows = [("S1", b"%d\x00\xff" % n, {"n": str(n), "word": "Größe"}) for n in range(250)]
    offsets = bus.append_many(topic, rows)
    offsets.append(bus.append(topic, "S1", b""))
    assert offsets == list(range(offsets[0], offsets[0] + 251))
    found = drain(bus, topic, "group", 251)
    assert [(record.topic, record.offset, record.key, record.value, record.headers) for record in found] == [
        (topic, offset, key, value, headers)
        for offset, (key, value, headers) in zip(offsets, [*rows, ("S1", b"", {})], strict=True)
    ]
    assert all(before - 0.01 <= record.time <= time.time() for record in found)
    assert bus.append_many(topic, []) == []
    assert bus.fetch(topic, "group") == []


def test_a_bus_opened_anew_goes_on_where_the_group_committed(opener: Opener, topic: str) -> None:
    bus = opener()
    offsets = bus.append_many(topic, [("S1", b"%d" % n, {}) for n in range(6)])
    assert bus.committed("group", topic) == 0
    assert [record.value for record in drain(bus, topic, "group", 6)] == [b"0", b"1", b"2", b"3", b"4", b"5"]
    bus.commit("group", topic, offsets[2])
    assert [record.offset for record in drain(opener(), topic, "group", 4)] == offsets[2:]
    assert [record.offset for record in drain(opener(), topic, "other", 6)] == offsets
    bus.commit("group", topic, offsets[1])  # back again
    assert [record.offset for record in drain(opener(), topic, "group", 5)] == offsets[1:]


def test_fetch_gives_no_more_than_asked_for_and_goes_on(opener: Opener, topic: str) -> None:
    bus = opener()
    offsets = bus.append_many(topic, [("S1", b"", {})] * 5)
    assert [record.offset for record in drain(bus, topic, "group", 1)[:1]] == offsets[:1]
    bus.seek("group", topic, offsets[0])
    assert len(bus.fetch(topic, "group", 2, timeout=10)) in (1, 2)


def test_seek_moves_this_bus_alone(opener: Opener, topic: str) -> None:
    bus = opener()
    offsets = bus.append_many(topic, [("S1", b"%d" % n, {}) for n in range(6)])
    drain(bus, topic, "group", 6)
    bus.seek("group", topic, offsets[4])
    assert [record.offset for record in drain(bus, topic, "group", 2)] == offsets[4:]
    bus.seek("group", topic, offsets[-1] + 1)
    assert bus.fetch(topic, "group", timeout=0.2) == []
    assert [record.offset for record in drain(opener(), topic, "group", 6)] == offsets
    with pytest.raises(BusError, match=f"has no offset {offsets[-1] + 2}: it ends at {offsets[-1] + 1}"):
        bus.seek("group", topic, offsets[-1] + 2)
    with pytest.raises(BusError, match="an offset or to a time, one of them"):
        bus.seek("group", topic)


def test_a_topic_nobody_wrote_to_is_empty(opener: Opener, topic: str) -> None:
    bus = opener()
    assert bus.end(topic) == 0
    begin = time.monotonic()
    assert bus.fetch(topic, "group", timeout=0.3) == []
    assert time.monotonic() - begin >= 0.3
    for name in ("", "a b", "x" * 201, "../up"):
        with pytest.raises(BusError, match="names no topic"):
            bus.append(name, "", b"")


def test_a_dead_letter_says_why_and_whence(opener: Opener, topic: str) -> None:
    bus = opener()
    bus.append(topic, "S1", b"two", {"sent": "yes"})
    (poison,) = drain(bus, topic, "group", 1)
    bury(bus, poison, "no number")
    (dead,) = drain(bus, f"{topic}.dead", "undertaker", 1)
    assert (dead.key, dead.value) == ("S1", b"two")
    assert dead.headers == {"reason": "no number", "topic": topic, "offset": str(poison.offset), "sent": "yes"}


def test_what_was_handled_is_committed_and_what_failed_comes_again(opener: Opener, topic: str) -> None:
    bus, seen = opener(), list[str]()
    keys = [str(n) for n in range(12)]  # over all partitions
    bus.append_many(topic, [(key, b"", {}) for key in keys])
    while len(seen) < 5:
        records = bus.fetch(topic, "group", 5 - len(seen), timeout=10)
        with handled(bus, "group", records):
            seen += [record.key for record in records]
    with pytest.raises(RuntimeError, match="no disk"), handled(bus, "group", bus.fetch(topic, "group", timeout=10)):
        raise RuntimeError("no disk")
    here = sorted(seen + [record.key for record in drain(bus, topic, "group", 7)])
    elsewhere = sorted(seen + [record.key for record in drain(opener(), topic, "group", 7)])
    assert here == elsewhere == sorted(keys)


READER = """
import sys
from mma_realtime.bus.kafka import KafkaBus
from mma_realtime.bus.kafka_config import KafkaConfig
from mma_realtime.bus.log import SqliteLog
where, topic = sys.argv[1:]
bus = KafkaBus(KafkaConfig((where,), "plaintext", request_timeout=2)) if ":" in where else SqliteLog(where)
for record in bus.fetch(topic, "group", 3, timeout=20):
    print(record.offset, flush=True)
    bus.commit("group", topic, record.offset + 1)
bus.close()
"""


def test_a_group_goes_on_in_another_process(opener: Opener, topic: str) -> None:
    bus = opener()
    where = str(bus.path) if isinstance(bus, SqliteLog) else bus.config.brokers[0]  # type: ignore[attr-defined]
    offsets = bus.append_many(topic, [("S1", b"", {})] * 5)
    found: list[int] = []
    while len(found) < 5:
        done = subprocess.run(
            [sys.executable, "-c", READER, where, topic], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout
        found += map(int, done.stdout.split())
    assert found == offsets
    assert bus.committed("group", topic, *([offsets[0] >> PARTITION] if ":" in where else [])) == offsets[-1] + 1


def test_how_far_a_group_is_behind_is_of_all_partitions(opener: Opener, topic: str) -> None:
    bus = opener()
    assert bus.behind(topic, "group") == 0
    bus.append_many(topic, [(str(n), b"", {}) for n in range(40)])
    assert bus.behind(topic, "group") == 40
    done = 0
    while done < 25:
        records = bus.fetch(topic, "group", 25 - done, timeout=10)
        with handled(bus, "group", records):
            done += len(records)
    assert opener().behind(topic, "group") == 15


def test_a_notice_with_a_map_is_taken(opener: Opener, topic: str) -> None:
    bus, value = opener(), os.urandom(3_000_000)
    bus.append(topic, "S1", value)
    (found,) = drain(bus, topic, "group", 1)
    assert found.value == value


def test_a_survey_filter_says_what_waits_in_every_partition(opener: Opener) -> None:
    bus = opener()
    bus.append_many(SURVEY, [(str(n), b"poison", {}) for n in range(40)])
    worker, steps = SurveyFilter(bus, batch=15), list[Batch]()
    while sum(step.read for step in steps) < 40:
        steps.append(worker.step(10.0))
    assert [step.waiting for step in steps if step.read] == [
        40 - sum(step.read for step in steps[: at + 1]) for at, step in enumerate(steps) if step.read
    ]


def test_a_broker_that_is_away_for_a_while_loses_and_unsorts_nothing(
    cluster: tuple[subprocess.Popen[str], str], topic: str
) -> None:
    process, address = cluster
    bus = KafkaBus(KafkaConfig((address,), "plaintext", delivery_timeout=60, request_timeout=1))
    bus.append_many(topic, [("S1", b"0", {})])
    process.send_signal(signal.SIGSTOP)
    back = threading.Timer(6.0, process.send_signal, [signal.SIGCONT])  # several requests time out until then
    back.start()
    begin = time.monotonic()
    bus.append_many(topic, [("S1", b"%d" % n, {}) for n in range(1, 50)])
    assert time.monotonic() - begin > 3
    back.join()
    found = drain(bus, topic, "group", 50)
    while more := bus.fetch(topic, "group", timeout=0.5):
        found += more
    values = list(dict.fromkeys(int(record.value) for record in found))  # the mock does not drop what was sent again
    assert values == list(range(50))
    bus.close()


def test_a_broker_that_stays_away_is_one_clear_message(topic: str) -> None:
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed (extra `kafka`)")
    bus = KafkaBus(KafkaConfig(("127.0.0.1:1",), "plaintext", delivery_timeout=0.5, request_timeout=0.2))
    with pytest.raises(BusError, match=r"KafkaBus\(127.0.0.1:1\) did not acknowledge 2 of 2 .* send them again"):
        bus.append_many(topic, [("S1", b"", {})] * 2)
    assert bus.fetch(topic, "group", timeout=0.1) == []
    bus.close()


def test_a_record_too_large_for_kafka_is_refused_for_good_and_the_next_is_taken(
    cluster: tuple[subprocess.Popen[str], str], topic: str
) -> None:
    bus = KafkaBus(KafkaConfig((cluster[1],), "plaintext", delivery_timeout=20, request_timeout=2, message_bytes=5000))
    with pytest.raises(Refused, match=r"will never take a record of .*see message_bytes and the topic's"):
        bus.append_many(topic, [("S1", b"1", {}), ("S1", os.urandom(6000), {})])
    bus.append(topic, "S1", b"2")
    assert [record.value for record in drain(bus, topic, "group", 2)] == [b"1", b"2"]
    too_large = confluent_error("MSG_SIZE_TOO_LARGE")
    with pytest.raises(Refused):  # as the report of a broker whose topic allows less
        bus._refuse(topic, too_large)
    bus.close()


def confluent_error(name: str) -> object:
    kafka = pytest.importorskip("confluent_kafka")
    return kafka.KafkaError(getattr(kafka.KafkaError, name))


def test_a_log_is_sent_on_to_a_cluster_in_order_and_each_record_once(
    cluster: tuple[subprocess.Popen[str], str], topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, db = tmp_path / "kafka.yaml", tmp_path / "bus.db"
    config.write_text(f"brokers: ['{cluster[1]}']\nsecurity: plaintext\nrequest_timeout: 30\nmessage_bytes: 5000\n")
    command = ["forward", topic, "--db", str(db), "--kafka", str(config), "--once"]
    with SqliteLog(db) as log:
        log.append_many(topic, [("S1", b"1", {"version": "1"}), ("S1", bytes(6000), {"version": "2"})])
        log.append(topic, "S1", b"3", {"version": "3"})
        assert main(command) == 0
        log.append(topic, "S1", b"4", {"version": "4"})
        assert main(command) == 0
        assert log.committed("forward", topic) == 4
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line] == ["3", "1"]
    bus = KafkaBus(KafkaConfig((cluster[1],), "plaintext", delivery_timeout=20, request_timeout=2))
    found = drain(bus, topic, "group", 4)  # the first is there twice: its batch was refused, then each by itself
    assert list(dict.fromkeys(record.headers["version"] for record in found)) == ["1", "3", "4"]
    (dead,) = drain(bus, f"{topic}.dead", "group", 1)
    assert (dead.headers["version"], dead.headers["bytes"], dead.value) == ("2", "6000", b"")
    bus.close()


def test_what_retention_deleted_before_it_was_sent_on_is_said_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SqliteLog(tmp_path / "a.db") as source, SqliteLog(tmp_path / "b.db") as target:
        source.append_many("t", [("", b"old", {})] * 3)
        source.commit("forward", "t", 1)
        source.delete_before("t", time.time() + 1)
        source.append("t", "", b"new")
        assert forward(source, target, "t") == 1
        assert "t: records 1 to 2 were deleted by retention" in caplog.text
        assert [record.value for record in target.fetch("t", "g")] == [b"new"]


def test_kafka_tells_a_group_what_retention_took(cluster: tuple[subprocess.Popen[str], str], topic: str) -> None:
    bus = KafkaBus(KafkaConfig((cluster[1],), "plaintext", delivery_timeout=20, request_timeout=2))
    first = bus.append(topic, "S1", b"read")
    drain(bus, topic, "group", 1)
    bus.commit("group", topic, first + 1)
    bus.close()
    filler = KafkaBus(bus.config)
    for _ in range(80):  # the mock keeps the last 5 MB of a partition
        filler.append(topic, "S1", os.urandom(100_000))
    anew = KafkaBus(bus.config)
    for _ in range(2):
        with pytest.raises(RangeLost, match="were deleted by retention before group group read them") as lost:
            anew.fetch(topic, "group", timeout=10)
    assert lost.value.first == first + 1 < lost.value.next
    anew.seek("group", topic, lost.value.next)
    assert [record.offset for record in drain(anew, topic, "group", first + 81 - lost.value.next)] == list(
        range(lost.value.next, first + 81)
    )
    for opened in (anew, filler):
        opened.close()


def test_without_the_extra_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_realtime.bus.kafka.ck", None)
    with pytest.raises(BusError, match="pip install 'papers-mma-realtime"):
        KafkaBus(KafkaConfig(("localhost:9092",), "plaintext"))


def test_the_command_reads_a_cluster(
    cluster: tuple[subprocess.Popen[str], str], topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "kafka.yaml"
    config.write_text(f"brokers: ['{cluster[1]}']\nsecurity: plaintext\nrequest_timeout: 30\n")
    bus = KafkaBus(read_config(config))
    first = bus.append_many(topic, [("S1", b"%d" % n, {}) for n in range(4)])[0]
    main(["tail", topic, "--kafka", str(config), "-n", "2"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [str(first + 2), str(first + 3)]
    main(["replay", topic, "--kafka", str(config), "--from", str(first + 1), "--group", "relay"])
    assert capsys.readouterr().out == f"relay reads {topic} from {first + 1} on\n"
    assert [record.value for record in drain(bus, topic, "relay", 3)] == [b"1", b"2", b"3"]
    main(["stats", "--kafka", str(config)])
    assert str(first + 4) in capsys.readouterr().out
    bus.close()
