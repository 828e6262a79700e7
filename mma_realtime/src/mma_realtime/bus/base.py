"""What every bus promises (section 9): records in order, each at its offset, read by groups that keep their place.

A topic is a sequence of records, offsets without gaps from 0. A group reads a topic from the offset that it committed
last: `fetch` goes on after what it gave, a bus opened anew begins at the committed offset. So a record is delivered at
least once, and twice only where its reader died between the record and the commit.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mma_realtime.errors import BusError

log = logging.getLogger(__name__)

NOTICES, EXTERNAL, SURVEY = "gw.notices", "external.notices", "survey.alerts"
DEAD = ".dead"  # what a topic's dead letters are called: `<topic>.dead`
PARTITION = 44  # bits of an offset below the number of a partition, on a bus whose topics have several
LARGEST = 34_000_000  # bytes of a record: a notice carries its sky map
NAMES = re.compile(r"[A-Za-z0-9._-]{1,200}")

Row = tuple[str, bytes, Mapping[str, str]]  # key, value, headers


@dataclass(frozen=True)
class Record:
    """One record as it was read: its place in the topic, and the time (s since 1970, UTC) at which the bus took it."""

    topic: str
    offset: int
    key: str
    value: bytes
    headers: dict[str, str] = field(default_factory=dict)
    time: float = 0.0


class RangeLost(BusError):
    """Retention has deleted records that a group had not read: offsets `first` to `next` - 1 (`next` can be read).

    Every further `fetch` says so again, until the group seeks: nothing is skipped without somebody's knowing.
    """

    def __init__(self, topic: str, group: str, first: int, next: int) -> None:
        super().__init__(
            f"{topic}: records {first} to {next - 1} were deleted by retention before group {group} read them; "
            f"seek to {next} to go on without them"
        )
        self.topic, self.group, self.first, self.next = topic, group, first, next


class Refused(BusError):
    """The other side has refused what it was given: the same again will not help."""


class Bus(Protocol):
    """What a producer and a consumer of records need. Times are seconds since 1970, UTC; timeouts are seconds."""

    def append(self, topic: str, key: str, value: bytes, headers: Mapping[str, str] | None = None) -> int:
        """The offset of a record that is now durable. Raises BusError, and the record may be sent again.

        Refused: it never will be taken, as one that is too large.
        """

    def append_many(self, topic: str, rows: Iterable[Row]) -> list[int]:
        """The offsets of records that are now durable, in their order; in one transaction where the bus has them."""

    def fetch(self, topic: str, group: str, max: int = 100, timeout: float = 0.0) -> list[Record]:
        """The next records of a group, at most `max`; none if `timeout` passes without one. Raises RangeLost."""

    def commit(self, group: str, topic: str, offset: int) -> None:
        """Remembers that `offset` is the next record that the group reads."""

    def committed(self, group: str, topic: str) -> int:
        """The next record to read, as committed last; 0 where nothing was."""

    def seek(self, group: str, topic: str, offset: int | None = None, *, time: float | None = None) -> None:
        """Where this bus fetches next for the group: an offset, or the first record of `time` or later."""

    def end(self, topic: str) -> int:
        """The offset that the next record of a topic will have."""

    def behind(self, topic: str, group: str) -> int:
        """Records that a group has not committed, of all partitions."""

    def close(self) -> None:
        """Gives up files and connections; what was appended and committed stays."""


def check_topic(topic: str) -> str:
    """The topic's name; BusError where it is none that every bus takes."""
    if not NAMES.fullmatch(topic):
        raise BusError(f"{topic!r} names no topic: up to 200 letters, digits, dots, hyphens and underscores")
    return topic


def bury(bus: Bus, record: Record, reason: str) -> int:
    """Puts a record that cannot be used into `<topic>.dead`, with the reason and its place in the headers."""
    headers = {**record.headers, "reason": reason[:1000], "topic": record.topic, "offset": str(record.offset)}
    log.warning("%s: record %d is a dead letter: %s", record.topic, record.offset, reason)
    return bus.append(record.topic + DEAD, record.key, record.value, headers)


def append_or_bury(bus: Bus, topic: str, rows: Sequence[Row]) -> None:
    """Appends rows in order; one that the bus will never take becomes a dead letter without its value.

    Raises:
        BusError: the bus is down; rows before may be there.
    """
    try:
        bus.append_many(topic, rows)
        return
    except Refused:
        pass  # one of them: which?
    for key, value, headers in rows:
        try:
            bus.append_many(topic, [(key, value, headers)])
        except Refused as error:
            log.error("a record of %s with key %s is a dead letter: %s", topic, key, error)
            said = {**headers, "reason": str(error)[:1000], "topic": topic, "bytes": str(len(value))}
            bus.append_many(topic + DEAD, [(key, b"", said)])


@contextlib.contextmanager
def handled(bus: Bus, group: str, records: Sequence[Record]) -> Iterator[None]:
    """Commits a topic's fetched records when the block has ended; after an error in it they are fetched again."""
    try:
        yield
    except BaseException:
        for record in reversed(records):  # so that each partition goes on at its first record
            bus.seek(group, record.topic, record.offset)
        raise
    for record in {record.offset >> PARTITION: record for record in records}.values():
        bus.commit(group, record.topic, record.offset + 1)
