"""Where a run lives: a folder per key; a lock, a checkpoint while it is unfinished, a result once it is whole.

<root>/<key>/run.lock      held by the process that works on the run
             last.ckpt     what an interrupted run goes on from
             result.json   written last, under a temporary name, then renamed: finished runs have it
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from shared.errors import UserError, disk_error


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Write `content` to `path`: a reader, or a kill at any moment, meets the old file or the whole new one.

    Raises:
        UserError: the disk is full, read-only or over quota; what stood at `path` before is still there.
    """
    path = Path(path)
    if not path.name:
        raise UserError(f"{path} is a folder: name a file in it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise disk_error(error, path) or UserError(
            f"{path} cannot be written ({error.strerror}): name another place"
        ) from None


class RunDir:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "last.ckpt"
        self.result_file = path / "result.json"

    @property
    def key(self) -> str:
        return self.path.name

    @contextmanager
    def lock(self, timeout: float = -1) -> Iterator[bool]:
        """Hold the run for this process; yields whether it got free within `timeout` seconds (-1: no limit).

        The lock belongs to the open file: the operating system frees it when its holder dies, however.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / "run.lock", timeout=timeout)
            lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            raise disk_error(error, self.path) or error from None
        try:
            # Whoever else wrote here is dead: this process holds the lock.
            for left in self.path.glob(".*.tmp"):
                left.unlink(missing_ok=True)
            yield True
        finally:
            lock.release()

    def result(self) -> dict[str, Any] | None:
        """What the run ended with, or None while it has not: a file that is not whole counts as no result."""
        try:
            content = json.loads(self.result_file.read_bytes())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) and content.get("key") == self.key else None

    def finish(self, result: dict[str, Any]) -> None:
        """Store the result, then drop the checkpoint: the run is finished from the rename on.

        Raises:
            UserError: the disk is full; a value is not finite (it is not a result).
        """
        try:
            content = json.dumps({**result, "key": self.key}, indent=1, allow_nan=False)
        except ValueError as error:
            raise UserError(f"run {self.key}: a result is NaN or infinite; the run diverged") from error
        write_atomic(self.result_file, content)
        with suppress(OSError):
            self.checkpoint.unlink(missing_ok=True)


class RunStore:
    """All runs of a paper."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, key: str) -> RunDir:
        return RunDir(self.root / key)
