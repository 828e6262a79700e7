"""The default bus: one SQLite file, read and written by several processes at once, durable at every append (section 9).

A record's row id is its topic's number shifted up by 44 bits, plus its offset: appending extends a B-tree at one place
per topic, and reading on is a range scan. `next` of a topic is written in the transaction that writes its records, so
offsets have no gaps whatever dies when. WAL and synchronous=FULL: what `append` returned is on disk; a torn tail of the
WAL fails its checksum and is dropped as a whole.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from mma_realtime.bus.base import LARGEST, PARTITION, RangeLost, Record, Refused, Row, check_topic
from mma_realtime.errors import BusError

APPLICATION, VERSION = 0x6D6D6162, 1  # "mmab"
PURGE, PURGE_BYTES = 5000, 4_000_000  # records deleted in one transaction at most: writers wait for no more than that
VACUUM = 250  # pages given back to the file system in one transaction
REST = 0.02  # s between two such transactions at least, in which writers that wait get their turn
FETCH = 64_000_000  # bytes from which on a fetch gives no further record
SHORTEST, LONGEST = 0.0005, 0.01  # s between two looks for new records
FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
SCHEMA = """
CREATE TABLE IF NOT EXISTS topic (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, first INTEGER NOT NULL, next INTEGER NOT NULL, time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB NOT NULL, headers TEXT NOT NULL, time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS position (
    consumer TEXT NOT NULL, topic TEXT NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (consumer, topic)
) WITHOUT ROWID;
"""


class SqliteLog:
    """A bus in one file on a local disk (WAL does not work on network file systems).

    One reader at a time per group and topic: the log does not divide a topic among the members of a group.
    May be shared by threads; every process opens its own.

    Args:
        path: the file, made where there is none.
        timeout: s that a write waits, backing off, for other processes' locks.

    Raises:
        BusError: no log, damaged, locked for longer than `timeout`, or no space.
    """

    def __init__(self, path: str | Path, timeout: float = 30.0) -> None:
        self.path, self.timeout = Path(path), timeout
        self._positions: dict[tuple[str, str], int] = {}
        self._lock = threading.RLock()
        self._appends = 0
        with self._errors():
            self._connection = sqlite3.connect(
                self.path, timeout=timeout, isolation_level=None, check_same_thread=False
            )
        try:
            with self._errors():
                self._open()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        execute = self._connection.execute
        # Tables first: another process may make the log between the two looks, and it writes both in one transaction,
        # so whoever has seen its tables then sees its number.
        tables = execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = execute("PRAGMA application_id").fetchone()[0]
        if tables and application != APPLICATION:
            raise BusError(f"{self.path} is a database, but no bus log: give another file")
        if not tables:
            execute("PRAGMA auto_vacuum=INCREMENTAL")
        until = time.monotonic() + self.timeout
        while True:  # several processes that open a new file: turning to WAL is refused at once, not waited for
            try:
                execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in BUSY or time.monotonic() > until:
                    raise
                time.sleep(LONGEST)
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA journal_size_limit=67108864")
        with self._writing():
            found = execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, VERSION):
                raise BusError(f"{self.path} has version {found} of the log, this program knows {VERSION}: update it")
            for statement in SCHEMA.split(";"):
                execute(statement)
            if not found:
                execute(f"PRAGMA user_version={VERSION}")
                execute(f"PRAGMA application_id={APPLICATION}")

    def append(self, topic: str, key: str, value: bytes, headers: Mapping[str, str] | None = None) -> int:
        """The offset of a record that is now on disk."""
        return self.append_many(topic, [(key, value, headers or {})])[0]

    def append_many(self, topic: str, rows: Iterable[Row]) -> list[int]:
        """The offsets of records that are now on disk: all of them, or, with a BusError, none.

        Raises:
            Refused: a record is larger than 34 MB, which no bus is to carry.
        """
        texts = [(key, value, json.dumps(dict(headers))) for key, value, headers in rows]
        if not texts:
            return []
        largest = max(len(key) + len(value) + len(headers) for key, value, headers in texts)
        if largest > LARGEST:
            raise Refused(f"a record of {largest:,} bytes is no record of {topic}: at most {LARGEST:,} are taken")
        with self._lock, self._errors(), self._writing():
            number, next_offset, last = self._topic_to_write(topic)
            now = max(time.time(), last)  # a clock set back must not unsort the topic: seeking by time bisects
            ids = (number << PARTITION) + next_offset
            self._connection.executemany(
                "INSERT INTO record VALUES (?, ?, ?, ?, ?)",
                ((ids + n, key, value, headers, now) for n, (key, value, headers) in enumerate(texts)),
            )
            after = next_offset + len(texts)
            self._connection.execute("UPDATE topic SET next = ?, time = ? WHERE id = ?", (after, now, number))
            self._appends += 1
        return list(range(next_offset, after))

    def fetch(self, topic: str, group: str, max: int = 100, timeout: float = 0.0) -> list[Record]:
        """The next records of a group; looks for new ones every 0.5 ms at first and every 10 ms after a while.

        At most `max` records, and none after the first 64 MB.
        """
        until, pause, seen = time.monotonic() + timeout, SHORTEST, None
        while True:
            found: list[Record] = []
            with self._lock, self._errors():
                if (now := self._changes()) != seen:  # looking at this is all that waiting costs
                    found, seen = self._read(topic, group, max), now
            left = until - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, LONGEST)

    def _changes(self) -> tuple[int, int]:
        """Differs after every commit, of other connections and of our own (which SQLite's number leaves out)."""
        return self._connection.execute("PRAGMA data_version").fetchone()[0], self._appends

    def _read(self, topic: str, group: str, limit: int) -> list[Record]:
        with self._reading():  # one snapshot: retention must not delete between the look at `first` and the records
            number, first, after = self._bounds(topic)
            position = self._positions.get((group, topic))
            if position is None:
                row = self._position(group, topic)
                position = first if row is None else row  # a new group begins with what there is
            if position < first:
                raise RangeLost(topic, group, position, first)
            base = number << PARTITION
            rows: list[tuple[int, str, bytes, str, float]] = []
            held = 0
            for row in self._connection.execute(
                "SELECT id, key, value, headers, time FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
                (base + position, base + after, limit),
            ):
                rows.append(row)
                held += len(row[2])
                if held >= FETCH:
                    break
        self._positions[group, topic] = position + len(rows)
        return [
            Record(topic, id - base, key, value, json.loads(headers), stamp) for id, key, value, headers, stamp in rows
        ]

    def commit(self, group: str, topic: str, offset: int) -> None:
        """Remembers, on disk, that `offset` is the next record that the group reads. BusError if it is past the end."""
        with self._lock, self._errors(), self._writing():
            self._check(topic, offset)
            self._connection.execute("INSERT OR REPLACE INTO position VALUES (?, ?, ?)", (group, topic, offset))

    def committed(self, group: str, topic: str) -> int:
        """The next record to read, as committed last; 0 where nothing was."""
        with self._lock, self._errors():
            return self._position(group, topic) or 0

    def seek(self, group: str, topic: str, offset: int | None = None, *, time: float | None = None) -> None:
        """Fetches of this object go on at an offset, or at the first record taken at `time` (s since 1970) or later."""
        if (offset is None) == (time is None):
            raise BusError("seek to an offset or to a time, one of them")
        with self._lock, self._errors(), self._reading():
            if time is not None:
                offset = self._at(topic, time)
            assert offset is not None
            self._check(topic, offset)
        self._positions[group, topic] = offset

    def first(self, topic: str) -> int:
        """The oldest offset that retention has left."""
        with self._lock, self._errors():
            return self._bounds(topic)[1]

    def end(self, topic: str) -> int:
        """The offset that the next record of a topic will have."""
        with self._lock, self._errors():
            return self._bounds(topic)[2]

    def bounds(self, topic: str) -> list[tuple[int, int]]:
        """The oldest offset and the next one, of the only partition."""
        with self._lock, self._errors():
            return [self._bounds(topic)[1:]]

    def at(self, topic: str, time: float) -> int:
        """The first offset taken at `time` (s since 1970) or later."""
        with self._lock, self._errors(), self._reading():
            return self._at(topic, time)

    def topics(self) -> list[str]:
        """The names of all topics, sorted."""
        with self._lock, self._errors():
            return [name for (name,) in self._connection.execute("SELECT name FROM topic ORDER BY name")]

    def positions(self, topic: str) -> dict[str, int]:
        """What each group has committed on a topic."""
        sql = "SELECT consumer, offset FROM position WHERE topic = ? ORDER BY consumer"
        with self._lock, self._errors():
            return dict(self._connection.execute(sql, (topic,)).fetchall())

    def behind(self, topic: str, group: str) -> int:
        """Records that a group has not committed."""
        with self._lock, self._errors(), self._reading():
            _, first, after = self._bounds(topic)
            return after - max(first, self._position(group, topic) or 0)

    def delete_before(self, topic: str, time: float, unless_unread: Iterable[str] = ()) -> int:
        """Retention: deletes a topic's records older than `time` (s since 1970); returns how many.

        Args:
            unless_unread: groups for which what they have not committed stays, however old. Any other group that had
                not read what is deleted is told so by RangeLost.
        """
        with self._lock, self._errors(), self._reading():
            cut = min([self._at(topic, time), *(self._position(group, topic) or 0 for group in unless_unread)])
        deleted = 0
        while step := self._slowly(lambda: self._purge(topic, cut)):
            deleted += step
        while self._slowly(self._vacuum):
            pass
        return deleted

    def _slowly(self, step: Callable[[], int]) -> int:
        """A step of retention, and as long a rest for those who wait for the file or for this object."""
        begin = time.monotonic()
        with self._lock, self._errors():
            done = step()
        if done:
            time.sleep(max(REST, time.monotonic() - begin))
        return done

    def _purge(self, topic: str, cut: int) -> int:
        """Deletes a topic's oldest records before offset `cut`, 4 MB at most or one; how many."""
        with self._writing():
            number, first, _ = self._bounds(topic)
            base, step, held = number << PARTITION, first, 0
            sizes = self._connection.execute(
                "SELECT length(value) FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
                (base + first, base + cut, PURGE),
            )
            for (size,) in sizes:
                held += size
                if step > first and held > PURGE_BYTES:
                    break
                step += 1
            sizes.close()
            if step > first:
                self._connection.execute("DELETE FROM record WHERE id >= ? AND id < ?", (base + first, base + step))
                self._connection.execute("UPDATE topic SET first = ? WHERE id = ?", (step, number))
        return step - first

    def _vacuum(self) -> int:
        """Gives some free pages back to the file system; how many."""
        sql = "PRAGMA freelist_count"
        before = int(self._connection.execute(sql).fetchone()[0])
        if before:
            self._connection.executescript(f"PRAGMA incremental_vacuum({VACUUM})")  # `execute` frees one page and stops
        return before - int(self._connection.execute(sql).fetchone()[0])

    def close(self) -> None:
        """Closes the file; the last process to do so folds the WAL into it."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> SqliteLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _position(self, group: str, topic: str) -> int | None:
        sql = "SELECT offset FROM position WHERE consumer = ? AND topic = ?"
        row = self._connection.execute(sql, (group, topic)).fetchone()
        return row[0] if row else None

    def _bounds(self, topic: str) -> tuple[int, int, int]:
        """A topic's number, its oldest offset and the one after its newest; zeros where nothing was appended."""
        sql = "SELECT id, first, next FROM topic WHERE name = ?"
        return self._connection.execute(sql, (check_topic(topic),)).fetchone() or (0, 0, 0)

    def _topic_to_write(self, topic: str) -> tuple[int, int, float]:
        sql = "SELECT id, next, time FROM topic WHERE name = ?"
        row = self._connection.execute(sql, (check_topic(topic),)).fetchone()
        if row is None:
            made = self._connection.execute("INSERT INTO topic VALUES (NULL, ?, 0, 0, 0)", (topic,))
            assert made.lastrowid is not None
            row = (made.lastrowid, 0, 0.0)
        return row

    def _check(self, topic: str, offset: int) -> None:
        end = self._bounds(topic)[2]
        if not 0 <= offset <= end:
            raise BusError(f"{topic} has no offset {offset}: it ends at {end}")

    def _at(self, topic: str, when: float) -> int:
        """The first offset taken at `when` or later: times never fall within a topic, so a bisection finds it."""
        number, low, high = self._bounds(topic)
        while low < high:
            middle = (low + high) // 2
            row = self._connection.execute("SELECT time FROM record WHERE id = ?", ((number << PARTITION) + middle,))
            if row.fetchone()[0] < when:
                low = middle + 1
            else:
                high = middle
        return low

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """One snapshot."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction; waits for other writers up to the timeout, undone by any error."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors in the user's terms."""
        try:
            yield
        except sqlite3.Error as error:
            raise BusError(self._said(error)) from error

    def _said(self, error: sqlite3.Error) -> str:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in BUSY:
            return f"{self.path} was locked by another process for {self.timeout:g} s: nothing was written, try again"
        if code in FULL:
            return f"no space left to write {self.path} ({error}): nothing was written, free some space and try again"
        if code in DAMAGED:
            return f"{self.path} is damaged or no bus log ({error}): restore it from a copy, or give another file"
        return f"{self.path} could not be used ({error}): check that its folder exists and may be written"
