"""The store of the search (section 9): what was found and what is to be told, in one file and one transaction.

    with store.transaction() as write:
        write.trigger(...); write.version(superevent); write.send(topic, key, value, headers)
        write.state("H1L1", offset, snapshot)

Triggers, superevents, the stream's state, the offset of the strain that it has consumed and the rows to send become
durable together or not at all.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mma_realtime.alerts.database import Database
from mma_realtime.alerts.faults import point
from mma_realtime.alerts.superevent import Superevent, day_of
from mma_realtime.errors import AlertError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.search.coincidence import MERGE

APPLICATION, VERSION = 0x6D6D6161, 1  # "mmaa"
BATCH = 100  # rows that a relay sends at once
PURGE, PURGE_BYTES = 200, 4_000_000  # rows deleted in one transaction at most: the search waits for no more than that
REST = 0.02  # s between two such transactions, in which others get their turn
SCHEMA = """
CREATE TABLE superevent (
    id TEXT PRIMARY KEY, day TEXT NOT NULL, number INTEGER NOT NULL, opened REAL NOT NULL, UNIQUE (day, number)
);
CREATE INDEX superevent_opened ON superevent (opened);
CREATE TABLE version (
    superevent TEXT NOT NULL REFERENCES superevent, version INTEGER NOT NULL, alert_type TEXT NOT NULL,
    content TEXT NOT NULL, fits BLOB, PRIMARY KEY (superevent, version)
);
CREATE TABLE trigger (
    id INTEGER PRIMARY KEY, superevent TEXT NOT NULL REFERENCES superevent, gps REAL NOT NULL, content TEXT NOT NULL
);
CREATE TABLE state (stream TEXT PRIMARY KEY, offset INTEGER NOT NULL, snapshot BLOB NOT NULL);
CREATE TABLE scores (
    stream TEXT NOT NULL, number INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (stream, number)
);
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    headers TEXT NOT NULL, made REAL NOT NULL, sent REAL
);
CREATE INDEX outbox_waiting ON outbox (number) WHERE sent IS NULL;
"""
# Of every store that is opened: stores of this version were made without them, and go on. They hold all that is asked
# of many rows at once, `made` and `sent` among it, which lie behind a row's `value`, a megabyte with a sky map.
INDEXES = (
    "CREATE INDEX IF NOT EXISTS outbox_times ON outbox (sent, made)",
    "CREATE INDEX IF NOT EXISTS outbox_keys ON outbox (key, made, headers)",
    "DROP INDEX IF EXISTS outbox_sent",  # of earlier programs: the first of the two holds it
)


@dataclass(frozen=True)
class Waiting:
    """A row of the outbox: `number` is its place in the order of sending, `made` s since 1970."""

    number: int
    topic: str
    key: str
    value: bytes
    headers: dict[str, str]
    made: float


class Store:
    """Triggers, superevents, state and outbox of a search, in one file on a local disk.

    May be shared by threads; every process opens its own.

    Args:
        path: the file, made where there is none.
        timeout: s that a transaction waits for another process's.

    Raises:
        AlertError: no store, damaged, of another version, locked for longer than `timeout`, or no space.
    """

    def __init__(self, path: str | Path, timeout: Seconds = 30.0) -> None:
        self.path = Path(path)
        self._database = Database(path, APPLICATION, VERSION, SCHEMA, "store of alerts", timeout)
        try:
            with self._database.writing():
                for statement in INDEXES:
                    self._database.connection.execute(statement)
        except AlertError:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All that is written inside becomes durable together, or, with an error, not at all."""
        with self._database.writing():
            point("begin")
            yield Transaction(self._database.connection)
            point("commit")
        point("committed")

    def state(self, stream: str) -> tuple[int, bytes] | None:
        """The input offset and snapshot that a stream goes on from; None: it has not begun."""
        rows = self._database.rows("SELECT offset, snapshot FROM state WHERE stream = ?", stream)
        return rows[0] if rows else None

    def scores(self, stream: str) -> list[tuple[int, bytes]]:
        """What was kept of a stream's scores, with its number, in order."""
        return self._database.rows("SELECT number, content FROM scores WHERE stream = ? ORDER BY number", stream)

    def superevent(self, id: str) -> Superevent:
        """Its latest version.

        Raises:
            AlertError: there is none of that name.
        """
        return self.versions(id)[-1]

    def versions(self, id: str) -> list[Superevent]:
        """All versions, retracted ones too: nothing is ever deleted."""
        rows = self._database.rows("SELECT content, fits FROM version WHERE superevent = ? ORDER BY version", id)
        if not rows:
            raise AlertError(f"{self.path} has no superevent {id}")
        return [Superevent.from_json(*row) for row in rows]

    def superevents(self) -> list[str]:
        """Names, in the order of their times."""
        return [id for (id,) in self._database.rows("SELECT id FROM superevent ORDER BY opened, number")]

    def triggers(self, id: str) -> list[dict[str, Any]]:
        """The triggers of a superevent as they were recorded, in order."""
        rows = self._database.rows("SELECT content FROM trigger WHERE superevent = ? ORDER BY id", id)
        return [json.loads(content) for (content,) in rows]

    def unlocated(self) -> list[Superevent]:
        """Superevents whose latest version has no sky map, and is not retracted."""
        rows = self._database.rows(
            "SELECT content, fits FROM version v WHERE fits IS NULL AND alert_type != 'RETRACTION' AND "
            "version = (SELECT max(version) FROM version WHERE superevent = v.superevent) ORDER BY rowid"
        )
        return [Superevent.from_json(*row) for row in rows]

    def waiting(self, most: int = BATCH) -> list[Waiting]:
        """Rows that are not marked as sent, in order."""
        rows = self._database.rows(
            "SELECT number, topic, key, value, headers, made FROM outbox INDEXED BY outbox_waiting "  # in order already
            "WHERE sent IS NULL ORDER BY number LIMIT ?",
            most,
        )
        return [
            Waiting(number, topic, key, value, json.loads(headers), made)
            for number, topic, key, value, headers, made in rows
        ]

    def rows_made(self) -> int:
        """Rows that were ever put into the outbox."""
        ((made,),) = self._database.rows("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'")
        return int(made)

    def forget_sent(self, before: float) -> int:
        """Deletes rows that were sent before a time (s since 1970); returns how many. What waits stays, however old."""
        due = self._database.rows("SELECT number, length(value) FROM outbox WHERE sent < ? ORDER BY sent", before)
        step: list[tuple[int]] = []
        held = deleted = 0
        for at, (number, size) in enumerate(due, 1):
            step.append((number,))
            held += size
            if held >= PURGE_BYTES or len(step) == PURGE or at == len(due):
                with self._database.writing():
                    self._database.connection.executemany("DELETE FROM outbox WHERE number = ?", step)
                deleted += len(step)
                step, held = [], 0
                time.sleep(REST)
        return deleted

    def sending_times(self) -> list[Seconds]:
        """s from each row's making to its sending, of those that are sent, in order."""
        return [
            took for (took,) in self._database.rows("SELECT sent - made FROM outbox WHERE sent > 0 ORDER BY number")
        ]

    def mark(self, numbers: list[int]) -> None:
        """Rows are sent."""
        with self._database.writing():
            self._database.connection.executemany(
                "UPDATE outbox SET sent = ? WHERE number = ?", [(time.time(), number) for number in numbers]
            )

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transaction:
    """What is written together. Made by `Store.transaction`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def next_number(self, utc: str) -> int:
        """Superevents of that day so far: kept by the store, so that a restart gives no name twice."""
        sql = "SELECT coalesce(max(number) + 1, 0) FROM superevent WHERE day = ?"
        return int(self._execute(sql, (day_of(utc),)).fetchone()[0])

    def at(self, gps: GPS) -> Superevent | None:
        """The latest version of the superevent that a trigger at `gps` belongs to: the nearest within 1 s."""
        sql = (
            "SELECT content, fits FROM version v JOIN superevent s ON s.id = v.superevent "
            "WHERE opened BETWEEN ? AND ? ORDER BY abs(opened - ?), number, version DESC LIMIT 1"
        )
        row = self._execute(sql, (gps - MERGE, gps + MERGE, gps)).fetchone()
        return Superevent.from_json(*row) if row else None

    def latest(self, id: str) -> Superevent:
        """As it is now, whatever another process has done to it."""
        sql = "SELECT content, fits FROM version WHERE superevent = ? ORDER BY version DESC LIMIT 1"
        return Superevent.from_json(*self._execute(sql, (id,)).fetchone())

    def open(self, superevent: Superevent, number: int) -> None:
        """A new superevent, before its first version."""
        row = (superevent.id, day_of(superevent.preferred.utc), number, superevent.opened_at)
        self._execute("INSERT INTO superevent VALUES (?, ?, ?, ?)", row)
        point("superevent")

    def version(self, superevent: Superevent) -> None:
        fits = superevent.localisation.fits if superevent.localisation else None
        row = (superevent.id, superevent.version, superevent.state.value, superevent.to_json(), fits)
        self._execute("INSERT INTO version VALUES (?, ?, ?, ?, ?)", row)
        point("version")

    def trigger(self, id: str, gps: GPS, content: Mapping[str, Any]) -> None:
        sql = "INSERT INTO trigger (superevent, gps, content) VALUES (?, ?, ?)"
        self._execute(sql, (id, gps, json.dumps(content, allow_nan=False)))
        point("trigger")

    def send(self, topic: str, key: str, value: bytes, headers: Mapping[str, str]) -> None:
        """A row for the relay."""
        sql = "INSERT INTO outbox (topic, key, value, headers, made) VALUES (?, ?, ?, ?, ?)"
        self._execute(sql, (topic, key, value, json.dumps(dict(headers)), time.time()))
        point("outbox")

    def scores(self, stream: str, number: int, content: bytes, keep: int) -> None:
        """Part `number` of the scores; of all parts the last `keep` stay."""
        self._execute("INSERT INTO scores VALUES (?, ?, ?)", (stream, number, content))
        self._execute("DELETE FROM scores WHERE stream = ? AND number <= ?", (stream, number - keep))
        point("scores")

    def state(self, stream: str, offset: int, snapshot: bytes) -> None:
        """What the stream goes on from.

        Raises:
            AlertError: the offset goes back: another process has gone on with the same stream.
        """
        row = self._execute("SELECT offset FROM state WHERE stream = ?", (stream,)).fetchone()
        if row and row[0] > offset:
            raise AlertError(
                f"stream {stream} is at sample {row[0]}, not {offset}: another process goes on with it; end one of them"
            )
        self._execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", (stream, offset, snapshot))
        point("state")
