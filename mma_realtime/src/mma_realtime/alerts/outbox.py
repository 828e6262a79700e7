"""The outbox of the store onto the bus (section 9), and how a subscriber hears each notice once.

    relay(store, bus)                                 # in a thread or process of its own

A relay sends rows in order and marks them; when it dies between the two, a row is sent twice, and `Deduplicator` is how
a subscriber drops the second.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path

from mma_realtime.alerts.database import FIRST_PAUSE, LONGEST_PAUSE, Database, TryAgain
from mma_realtime.alerts.faults import point
from mma_realtime.alerts.store import Store
from mma_realtime.bus.base import Bus, Record, append_or_bury
from mma_realtime.errors import AlertError, BusError
from mma_realtime.gw.units import Seconds

__all__ = ["Deduplicator", "Store", "keep_relaying", "notice_key", "only_relay", "relay"]
SEEN = """
CREATE TABLE seen (
    superevent TEXT NOT NULL, version INTEGER NOT NULL, alert_type TEXT NOT NULL,
    PRIMARY KEY (superevent, version, alert_type)
);
"""
log = logging.getLogger(__name__)


@contextlib.contextmanager
def only_relay(store: Store) -> Iterator[None]:
    """Holds a lock that the kernel gives up when the process dies: two relays would send rows out of order.

    Raises:
        AlertError: another relay sends from this store.
    """
    with Path(f"{store.path}.relay").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlertError(f"another relay sends from {store.path}: end it first") from None
        yield


def relay(store: Store, bus: Bus) -> int:
    """Sends all that waits, in order, and marks it; returns how many rows.

    A row that the bus will never take is told in `<topic>.dead`, without its value, and those after it go on.

    Raises:
        BusError: the bus did not take a batch: its rows, and those after it, wait on.
        AlertError: another relay sends from this store.
    """
    sent = 0
    with only_relay(store):
        while rows := store.waiting():
            point("relay.read")
            ahead = list(takewhile(lambda row: row.topic == rows[0].topic, rows))
            append_or_bury(bus, ahead[0].topic, [(row.key, row.value, row.headers) for row in ahead])
            point("relay.sent")
            store.mark([row.number for row in ahead])
            point("relay.marked")
            sent += len(ahead)
    return sent


def keep_relaying(
    store: Store, bus: Bus, wait: Callable[[Seconds], bool], idle: Seconds = 0.05, longest: Seconds = LONGEST_PAUSE
) -> int:
    """Relays until told to stop; a bus that is down is tried again, ever more rarely. Returns how many rows were sent.

    Args:
        wait: waits so many seconds or less; True: stop (`threading.Event().wait`).
        idle: s between two looks at the outbox.
    """
    sent, pause = 0, FIRST_PAUSE
    while True:
        try:
            sent += relay(store, bus)
            pause, rest = FIRST_PAUSE, idle
        except (BusError, TryAgain) as error:
            log.warning("nothing is sent (%s): next attempt in %.3g s", error, pause)
            rest, pause = pause, min(2 * pause, longest)
        if wait(rest):
            return sent


class Deduplicator:
    """What a subscriber has seen, by (superevent, version, alert type), in a file that outlives it.

        for record in bus.fetch(topic, group):
            with seen.once(record) as first:
                if first: act(record)
            bus.commit(group, topic, record.offset + 1)

    What is written through `connection` inside `once` commits with the mark: such an effect happens exactly once.
    Another effect happens again where the subscriber died between it and the mark.

    Args:
        path: the file, made where there is none; one for each subscriber of a topic: flavours have the same key.
    """

    def __init__(self, path: str | Path, timeout: Seconds = 30.0) -> None:
        self._database = Database(path, 0x6D6D6173, 1, SEEN, "subscriber's memory", timeout)
        self.dropped = 0

    @property
    def connection(self) -> sqlite3.Connection:
        return self._database.connection

    @contextlib.contextmanager
    def once(self, record: Record) -> Iterator[bool]:
        """Whether the notice comes for the first time; it is remembered once the block has ended without an error.

        Raises:
            AlertError: the record does not say which notice it is.
        """
        key = notice_key(record.headers)
        with self._database.writing():
            new = self.connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", key).rowcount == 1
            point("subscriber.seen")
            yield new
            point("subscriber.effect")
        point("subscriber.committed")
        self.dropped += not new

    def close(self) -> None:
        self._database.close()


def notice_key(headers: Mapping[str, str]) -> tuple[str, int, str]:
    """(superevent, version, alert type) of a notice.

    Raises:
        AlertError: a header is missing or no number.
    """
    try:
        return headers["superevent_id"], int(headers["version"]), headers["alert_type"]
    except (KeyError, ValueError) as error:
        raise AlertError(f"a notice does not say which it is: header {error} is missing or no number") from None
