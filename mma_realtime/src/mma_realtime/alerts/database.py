"""A SQLite file as the store and readers' memories keep it: durable, versioned, its errors in the user's terms."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mma_realtime.errors import AlertError
from mma_realtime.gw.units import Seconds

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 10.0  # s between two attempts on a store or bus that is down
BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
T = TypeVar("T")
log = logging.getLogger(__name__)


class TryAgain(AlertError):
    """A store that is locked, or out of space: nothing was written, and the same may succeed later."""


class Database:
    """One SQLite file: WAL, synchronous=FULL, a version, and errors in the user's terms."""

    def __init__(self, path: str | Path, application: int, version: int, schema: str, what: str, timeout: Seconds):
        self.path, self.timeout, self.what = Path(path), timeout, what
        self._lock = threading.RLock()
        with self.errors():
            self.connection = sqlite3.connect(self.path, timeout=timeout, isolation_level=None, check_same_thread=False)
        try:
            with self.errors():
                self._open(application, version, schema)
        except BaseException:
            self.connection.close()
            raise

    def _open(self, application: int, version: int, schema: str) -> None:
        execute = self.connection.execute
        until = time.monotonic() + self.timeout
        while True:  # turning to WAL is refused at once, not waited for, where another process opens the file
            try:
                if not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.005)
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA foreign_keys=ON")
        with self.writing():
            tables = execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not tables:
                for statement in schema.split(";"):
                    execute(statement)
                execute(f"PRAGMA application_id={application}")
                execute(f"PRAGMA user_version={version}")
            if execute("PRAGMA application_id").fetchone()[0] != application:
                raise AlertError(f"{self.path} is a database, but no {self.what}: give another file")
            found = execute("PRAGMA user_version").fetchone()[0]
            if found != version:
                raise AlertError(
                    f"{self.path} is a {self.what} of version {found}, this program knows {version} and converts none: "
                    "use the program that made it, or begin a new file"
                )

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction; any error undoes it."""
        with self._lock, self.errors():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock, self.errors():
            return self.connection.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            kind = TryAgain if code in BUSY | FULL else AlertError
            raise kind(self._said(error, code)) from error

    def _said(self, error: sqlite3.Error, code: int) -> str:
        if code in BUSY:
            return f"{self.path} was locked by another process for {self.timeout:g} s: nothing was written, try again"
        if code in FULL:
            return f"no space left to write {self.path} ({error}): nothing was written, free some space and try again"
        if code in DAMAGED:
            return f"{self.path} is damaged or no {self.what} ({error}): restore it from a copy, or give another file"
        return f"{self.path} could not be used ({error}): check that its folder exists and may be written"

    def close(self) -> None:
        with self._lock:
            self.connection.close()


def patiently(write: Callable[[], T], wait: Callable[[Seconds], object]) -> T:
    """Does what writes to a store until it succeeds: waits ever longer while that is locked or out of space."""
    pause = FIRST_PAUSE
    while True:
        try:
            return write()
        except TryAgain as error:
            log.warning("%s: next attempt in %.3g s", error, pause)
            wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
