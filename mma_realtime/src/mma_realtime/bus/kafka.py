"""The bus on a Kafka cluster, by confluent-kafka: idempotent producer, acks=all, commits by hand (section 9).

An append waits for its delivery reports; while no broker answers, librdkafka sends again, in order, for
`delivery_timeout`. A group's place is kept by the cluster. By itself a reader takes all partitions of a topic: as on
the SQLite log, one process reads a topic for a group, nothing moves, and no rebalance delays a notice. A shared bus is
a member of its groups: the cluster gives each member part of a topic's partitions (`bus.kafka_member`).

Offsets of partition p have p above their 44th bit: `record.offset + 1` is the next of the same partition. Order holds
within a partition, and so within a key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mma_realtime.bus.base import PARTITION, RangeLost, Record, Refused, Row, check_topic
from mma_realtime.bus.kafka_config import KafkaConfig
from mma_realtime.bus.kafka_member import MEMBER, Member, Reader, ck
from mma_realtime.errors import BusError

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

log = logging.getLogger(__name__)
T = TypeVar("T")
ONE = (1 << PARTITION) - 1
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0  # s between two attempts at a request


class KafkaBus:
    """A bus on a Kafka cluster.

    Args:
        shared: the members of a group share a topic's partitions; without it each reader takes all of them.

    Raises:
        BusError: the extra is not installed, or the settings are refused.
    """

    def __init__(self, config: KafkaConfig, shared: bool = False) -> None:
        if ck is None:
            raise BusError("Kafka needs confluent-kafka: pip install 'papers-mma-realtime[kafka]'")
        self.config, self.shared = config, shared
        self._settings = config.client_settings()
        self._readers: dict[tuple[str, str], Reader] = {}
        self._consumers: dict[str, Consumer] = {}
        try:
            self._producer = ck.Producer(
                {
                    **self._settings,
                    "enable.idempotence": True,
                    "acks": "all",
                    "delivery.timeout.ms": int(1e3 * config.delivery_timeout),
                    "linger.ms": 2,
                    "compression.type": "lz4",
                },
                logger=log,
            )
        except ck.KafkaException as error:
            raise BusError(f"Kafka refuses the settings: {error.args[0].str()}") from None

    def __repr__(self) -> str:
        return f"KafkaBus({', '.join(self.config.brokers)})"

    def append(self, topic: str, key: str, value: bytes, headers: Mapping[str, str] | None = None) -> int:
        """The offset of a record that all in-sync replicas have."""
        return self.append_many(topic, [(key, value, headers or {})])[0]

    def append_many(self, topic: str, rows: Iterable[Row]) -> list[int]:
        """The offsets of records that all in-sync replicas have, in their order.

        Refused: a record is too large for client or topic, or invalid.

        No transaction: with a BusError, or killed here, some records may be there; sent again they are there twice.
        """
        check_topic(topic)
        given = list(rows)
        offsets: dict[int, int] = {}
        failed: list[Any] = []

        def report(number: int) -> Callable[[Any, Any], None]:
            def delivered(error: Any, message: Message) -> None:
                if error is not None:
                    failed.append(error)
                else:
                    offsets[number] = ((message.partition() or 0) << PARTITION) + (message.offset() or 0)

            return delivered

        for number, (key, value, headers) in enumerate(given):
            self._produce(topic, key, value, headers, report(number))
        while len(offsets) + len(failed) < len(given):  # librdkafka reports each, at its delivery timeout at the latest
            self._producer.flush(1.0)
        for error in failed:
            self._refuse(topic, error)
        if failed:
            raise BusError(
                f"{self!r} did not acknowledge {len(failed)} of {len(given)} records of {topic} within "
                f"{self.config.delivery_timeout:g} s ({failed[0].str()}): see that the brokers run, and send them again"
            )
        return [offsets[number] for number in range(len(given))]

    def _produce(self, topic: str, key: str, value: bytes, headers: Mapping[str, str], report: Any) -> None:
        wire: list[tuple[str, str | bytes | None]] = [(name, text.encode()) for name, text in headers.items()]
        while True:
            try:
                self._producer.produce(topic, value, key.encode(), headers=wire, on_delivery=report)
                break
            except BufferError:  # the queue is full: wait for reports
                self._producer.poll(0.1)
            except ck.KafkaException as error:
                self._refuse(topic, error.args[0])
                raise BusError(f"{self!r} does not take a record of {topic}: {error.args[0].str()}") from None
        self._producer.poll(0)

    def _refuse(self, topic: str, error: Any) -> None:
        """Refused for an error of the record itself."""
        if error.code() in (ck.KafkaError.MSG_SIZE_TOO_LARGE, ck.KafkaError.INVALID_RECORD):
            raise Refused(
                f"{self!r} will never take a record of {topic} ({error.str()}): see message_bytes and the topic's "
                "max.message.bytes"
            )

    def fetch(self, topic: str, group: str, max: int = 100, timeout: float = 0.0) -> list[Record]:
        """The next records of a group, of any partition; none while no broker answers. Raises RangeLost.

        Of a member: of its partitions. It has to fetch again within five minutes, or they go to another.
        """
        until = time.monotonic() + timeout
        while True:
            reader = self._reader(topic, group)
            if reader is not None and reader.lost:
                raise reader.lost
            if isinstance(reader, Member):
                reader.commit_owed()
            left = until - time.monotonic()
            wait = min(_at_least(left, 0.0), 1.0)
            if reader is None:  # the topic is not there yet, or no broker answers
                time.sleep(min(wait, FIRST_PAUSE))
            elif found := self._records(reader, topic, group, max, wait):
                return found
            if left <= 0 and not (reader and reader.lost):
                return []

    def _records(self, reader: Reader, topic: str, group: str, limit: int, wait: float) -> list[Record]:
        try:
            messages = reader.consumer.consume(1, wait)
            if messages and limit > 1:
                messages += reader.consumer.consume(limit - 1, 0.0)
        except BusError:  # a member that was given partitions could not ask where they begin: it joins anew
            self._readers.pop((group, topic)).consumer.close()
            raise
        found = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._judge(error)
                continue
            part, offset = message.partition() or 0, message.offset() or 0
            if part not in reader.next:
                continue  # has moved to another member while the others came
            expected = reader.next[part]
            if expected is not None and offset < expected:
                continue  # was given already: the client restarts from its first place where a broker answers late
            gap = expected is not None and offset > expected
            if gap and not reader.lost and self._ends(topic, part)[0] > (expected or 0):  # deleted, not compacted away
                base = part << PARTITION
                reader.lost = RangeLost(topic, group, base + (expected or 0), base + offset)
            if reader.lost:
                continue  # what follows comes again after the seek
            reader.next[part] = offset + 1
            found.append(_record(topic, message, (part << PARTITION) + offset))
        return found

    def commit(self, group: str, topic: str, offset: int) -> None:
        """Has the cluster remember that `offset` is the next record of its partition that the group reads.

        Of a member: where the partition has moved on, its records come again at the member that has it now.
        """
        place = ck.TopicPartition(topic, offset >> PARTITION, offset & ONE)
        reader = self._readers.get((group, topic))
        if isinstance(reader, Member):
            reader.commit(place.partition, place.offset)
            return
        self._ask(lambda: self._consumer(group).commit(offsets=[place], asynchronous=False))

    def committed(self, group: str, topic: str, partition: int = 0) -> int:
        """The next record of a partition, as committed last; its first where nothing was."""
        return (partition << PARTITION) + (self._committed(group, topic, [partition])[0] or 0)

    def seek(self, group: str, topic: str, offset: int | None = None, *, time: float | None = None) -> None:
        """Fetches go on at an offset of its partition, or at `time` (s since 1970) in every partition.

        Of a member: of those partitions that a fetch has brought it.
        """
        if (offset is None) == (time is None):
            raise BusError("seek to an offset or to a time, one of them")
        reader = self._reader(topic, group)
        if reader is None:
            raise BusError(f"{topic} is not on {self!r}, or no broker answers")
        if time is not None:
            for place in self.at(topic, time):
                if place >> PARTITION in reader.next:
                    reader.next[place >> PARTITION] = place & ONE
        elif offset is not None:
            part, at = offset >> PARTITION, offset & ONE
            if part not in reader.next or at > (end := self._ends(topic, part)[1]):
                ours = part in reader.next
                said = f"ends at {(part << PARTITION) + end}" if ours else f"has no partition {part} for this reader"
                raise BusError(f"{topic} has no offset {offset}: it {said}")
            reader.next[part] = at
        reader.lost = None
        reader.assign()

    def end(self, topic: str, partition: int = 0) -> int:
        """The offset that the next record of a partition will have."""
        if partition not in self._partitions(topic):
            return partition << PARTITION
        return (partition << PARTITION) + self._ends(topic, partition)[1]

    def bounds(self, topic: str) -> list[tuple[int, int]]:
        """The oldest offset and the next one, of each partition."""
        found = [(part << PARTITION, self._ends(topic, part)) for part in self._partitions(check_topic(topic))]
        return [(base + low, base + high) for base, (low, high) in found]

    def behind(self, topic: str, group: str) -> int:
        """Records that a group has not committed, of all partitions."""
        parts = self._partitions(check_topic(topic))
        places = self._committed(group, topic, parts) if parts else []
        ends = [self._ends(topic, part) for part in parts]
        return sum(high - max(low, place or 0) for (low, high), place in zip(ends, places, strict=True))

    def at(self, topic: str, time: float) -> list[int]:
        """The first offset of each partition that was taken at `time` (s since 1970) or later."""
        stamp = int(1e3 * time)
        wanted = [ck.TopicPartition(topic, part, stamp) for part in self._partitions(check_topic(topic))]
        if not wanted:
            return []
        found = self._ask(lambda: self._consumer("bus-ends").offsets_for_times(wanted, timeout=self._patience))
        return [
            (place.partition << PARTITION)
            + (place.offset if place.offset >= 0 else self._ends(topic, place.partition)[1])
            for place in found
        ]

    def topics(self) -> list[str]:
        """The names of all topics, sorted."""
        found = self._ask(lambda: self._producer.list_topics(timeout=self._patience))
        return sorted(name for name in found.topics if not name.startswith("__"))

    def close(self) -> None:
        """Sends what is left to send, and leaves the cluster."""
        self._producer.flush(self.config.request_timeout)
        for consumer in [*self._consumers.values(), *(reader.consumer for reader in self._readers.values())]:
            consumer.close()
        self._consumers.clear()
        self._readers.clear()

    @property
    def _patience(self) -> float:
        return self.config.request_timeout

    def _ask(self, request: Callable[[], T]) -> T:
        """A request's answer, asked again with back-off while no broker answers, for `delivery_timeout`."""
        until, pause = time.monotonic() + self.config.delivery_timeout, FIRST_PAUSE
        while True:
            try:
                return request()
            except ck.KafkaException as error:
                reason = error.args[0]
                self._judge(reason)
                if time.monotonic() + pause > until:
                    raise BusError(f"{self!r} does not answer ({reason.str()}): see that the brokers run") from None
            time.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _judge(self, error: Any) -> None:
        """Goes on after an error that time mends; BusError for one that only a person can."""
        codes = ck.KafkaError
        forever = (
            codes._AUTHENTICATION, codes.SASL_AUTHENTICATION_FAILED, codes.TOPIC_AUTHORIZATION_FAILED,
            codes.GROUP_AUTHORIZATION_FAILED, codes.CLUSTER_AUTHORIZATION_FAILED, codes._SSL,
            codes.UNKNOWN_MEMBER_ID, codes.ILLEGAL_GENERATION,
        )  # fmt: skip
        if error.fatal() or error.code() in forever:
            raise BusError(f"{self!r} refuses: {error.str()}; check credentials and rights, and who else reads")
        log.debug("%r: %s", self, error.str())

    def _new_consumer(self, group: str, more: Mapping[str, Any] | None = None) -> Consumer:
        return ck.Consumer(
            {
                **self._settings,
                **(more or {}),
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": 16384,
            },
            logger=log,
        )

    def _consumer(self, group: str) -> Consumer:
        """Asks for a group: of its offsets and commits, without reading."""
        if group not in self._consumers:
            self._consumers[group] = self._new_consumer(group)
        return self._consumers[group]

    def _reader(self, topic: str, group: str) -> Reader | None:
        """Reads on where the group committed; None while the topic is not there or no broker answers."""
        if (group, topic) not in self._readers:
            parts = self._partitions(check_topic(topic))
            if not parts:
                return None
            if self.shared:
                member = Member(
                    self._new_consumer(group, MEMBER), topic, {},
                    lambda parts: self._committed(group, topic, parts), self._ask,
                )  # fmt: skip
                member.join()
                self._readers[group, topic] = member
            else:
                places = self._committed(group, topic, parts)
                reader = Reader(self._new_consumer(group), topic, dict(zip(parts, places, strict=True)))
                reader.assign()
                self._readers[group, topic] = reader
        return self._readers[group, topic]

    def _partitions(self, topic: str) -> list[int]:
        try:
            known = self._producer.list_topics(topic, timeout=self._patience).topics[topic]
        except ck.KafkaException as error:
            self._judge(error.args[0])
            return []
        return sorted(known.partitions) if known.error is None else []

    def _committed(self, group: str, topic: str, parts: Sequence[int]) -> list[int | None]:
        wanted = [ck.TopicPartition(topic, part) for part in parts]
        found = self._ask(lambda: self._consumer(group).committed(wanted, timeout=self._patience))
        return [place.offset if place.offset >= 0 else None for place in found]

    def _ends(self, topic: str, part: int) -> tuple[int, int]:
        """First offset and the one after the last of a partition."""
        place, asker = ck.TopicPartition(topic, part), self._consumer("bus-ends")
        low, high = self._ask(lambda: asker.get_watermark_offsets(place, timeout=self._patience))
        return low, high


def _record(topic: str, message: Message, offset: int) -> Record:
    given: Any = message.headers() or []  # pairs of a name and bytes
    headers = {name: (text or b"").decode(errors="replace") for name, text in given}
    key: Any = message.key() or b""
    value: Any = message.value() or b""
    return Record(topic, offset, key.decode(errors="replace"), value, headers, message.timestamp()[1] / 1e3)


def _at_least(value: float, low: float) -> float:
    return value if value > low else low
