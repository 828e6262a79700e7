"""Groups whose members share a topic, on Kafka's mock cluster; its topics have four partitions."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mma_realtime.bus.base import PARTITION, RangeLost, Record, handled
from mma_realtime.bus.kafka import KafkaBus
from mma_realtime.bus.kafka_config import KafkaConfig
from mma_realtime.bus.log import SqliteLog
from mma_realtime.errors import BusError

spec = importlib.util.spec_from_file_location("kafka_cluster", Path(__file__).with_name("kafka_cluster.py"))
assert spec is not None
assert spec.loader is not None
kafka_cluster = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kafka_cluster)
KEYS = [str(n) for n in range(40)]  # over all partitions


@pytest.fixture(scope="module")
def config() -> Iterator[KafkaConfig]:
    with kafka_cluster.running() as (_, address):
        yield KafkaConfig((address,), "plaintext", delivery_timeout=20, request_timeout=10)


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """Of this test alone, and the name of its group too: the cluster is shared."""
    return str(request.node.name)


def take(bus: KafkaBus, topic: str) -> list[Record]:
    """One step of a reader: what it fetched, handled and committed."""
    records = bus.fetch(topic, topic, 5, timeout=0.1)
    with handled(bus, topic, records):
        return records


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def drain(bus: KafkaBus, topic: str, count: int) -> list[Record]:
    """What a reader fetches, without a commit, until it has so many."""
    found: list[Record] = []

    def fetch() -> bool:
        found.extend(bus.fetch(topic, topic, timeout=1.0))
        return len(found) >= count

    until(fetch)
    return found


def partitions(records: list[Record]) -> set[int]:
    return {record.offset >> PARTITION for record in records}


def test_members_share_a_topic_and_each_record_is_read_once(config: KafkaConfig, topic: str) -> None:
    """One that comes takes partitions over, one that leaves gives them back; nothing is lost, nothing read twice."""
    read: dict[str, list[Record]] = {"a": [], "b": []}

    def step(*members: tuple[str, KafkaBus]) -> int:
        for name, bus in members:
            read[name] += take(bus, topic)
        return sum(map(len, read.values()))

    with closing(KafkaBus(config)) as writer, closing(KafkaBus(config, shared=True)) as a:
        writer.append_many(topic, [(key, b"1", {}) for key in KEYS])
        until(lambda: step(("a", a)) >= 40)
        assert len(partitions(read["a"])) == 4
        with closing(KafkaBus(config, shared=True)) as b:
            total = 40
            while not read["b"] or total < 80:  # its share comes some time after it has joined
                total += len(writer.append_many(topic, [(key, b"2", {}) for key in KEYS]))
                until(lambda: step(("a", a), ("b", b)) >= total)  # noqa: B023
                assert total < 4000
            before = {name: len(records) for name, records in read.items()}
            total += len(writer.append_many(topic, [(key, b"3", {}) for key in KEYS]))
            until(lambda: step(("a", a), ("b", b)) >= total)
            shares = [partitions(read[name][before[name] :]) for name in ("a", "b")]
            assert [len(share) for share in shares] == [2, 2]
            assert shares[0].isdisjoint(shares[1])
        total += len(writer.append_many(topic, [(key, b"4", {}) for key in KEYS]))
        until(lambda: step(("a", a)) >= total and writer.behind(topic, topic) == 0)
        assert Counter(record.offset for record in read["a"] + read["b"]).most_common(1)[0][1] == 1


def test_what_a_member_had_not_committed_comes_again_at_another(config: KafkaConfig, topic: str) -> None:
    with closing(KafkaBus(config, shared=True)) as a:
        a.append_many(topic, [("S1", b"%d" % n, {}) for n in range(6)])
        found = drain(a, topic, 6)
        a.commit(topic, topic, found[2].offset)
    with closing(KafkaBus(config, shared=True)) as b:
        assert [record.value for record in drain(b, topic, 4)] == [b"2", b"3", b"4", b"5"]
        b.seek(topic, topic, found[4].offset)
        assert [record.value for record in drain(b, topic, 2)] == [b"4", b"5"]
        with pytest.raises(BusError, match=r"has no offset \d+: it has no partition 9 for this reader"):
            b.seek(topic, topic, 9 << PARTITION)


def test_a_member_is_told_what_retention_took(config: KafkaConfig, topic: str) -> None:
    with closing(KafkaBus(config)) as writer:
        first = writer.append(topic, "S1", b"read")
        writer.commit(topic, topic, first + 1)
        for _ in range(80):  # the mock keeps the last 5 MB of a partition
            writer.append(topic, "S1", os.urandom(100_000))
    with closing(KafkaBus(config, shared=True)) as member:
        with pytest.raises(RangeLost) as lost:
            drain(member, topic, 1)
        assert lost.value.first == first + 1 < lost.value.next
        member.seek(topic, topic, lost.value.next)
        rest = range(lost.value.next, first + 81)
        assert [record.offset for record in drain(member, topic, len(rest))] == list(rest)


def test_a_member_that_cannot_ask_where_its_partitions_begin_joins_anew(
    config: KafkaConfig, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise BusError("does not answer")

    with closing(KafkaBus(config, shared=True)) as member:
        member.append(topic, "S1", b"1")
        with monkeypatch.context() as patched:
            patched.setattr(member, "_committed", away)
            with pytest.raises(BusError, match="does not answer"):
                drain(member, topic, 1)
        assert [record.value for record in drain(member, topic, 1)] == [b"1"]


def test_two_machines_collect_a_topic_into_their_logs_and_one_goes_on_when_the_other_is_killed(
    config: KafkaConfig, topic: str, tmp_path: Path
) -> None:
    yaml, logs = tmp_path / "kafka.yaml", [SqliteLog(tmp_path / name) for name in ("a.db", "b.db")]
    yaml.write_text(f"brokers: ['{config.brokers[0]}']\nsecurity: plaintext\n")

    def there() -> list[int]:
        return [log.end(topic) for log in logs]

    told: set[str] = set()  # of what was sent after one was dead, what the other has

    def all_told() -> bool:
        told.update(record.key for record in logs[0].fetch(topic, "reader", 10_000) if record.value == b"after")
        return told == set(KEYS)

    with closing(KafkaBus(config)) as writer:
        writer.append(topic, "S1", b"")
        machines = [
            subprocess.Popen(
                [sys.executable, "-m", "mma_realtime.bus", "collect", topic, "--group", "both",
                 "--kafka", str(yaml), "--db", str(log.path)], stdout=subprocess.PIPE, text=True,
            ) for log in logs
        ]  # fmt: skip
        try:
            sent = 1
            while not all(there()):
                sent += len(writer.append_many(topic, [(key, b"", {}) for key in KEYS]))
                until(lambda: sum(there()) >= sent)  # noqa: B023
                assert sent < 4000
            assert sum(there()) == sent
            machines[1].kill()
            writer.append_many(topic, [(key, b"after", {}) for key in KEYS])
            # By their keys: what the dead one had not committed comes again and counts for nothing here.
            until(all_told)
            machines[0].send_signal(signal.SIGTERM)
            said, _ = machines[0].communicate(timeout=60)
        finally:
            for machine in machines:
                machine.kill()
                machine.wait()
        assert machines[0].returncode == 0
        assert said.strip().endswith(f"records of {topic} collected")
    for log in logs:
        log.close()
