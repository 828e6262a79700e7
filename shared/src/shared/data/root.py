"""Where the data lie, and what to say of a file that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

from shared.errors import UserError

ANEW = "delete it and run `make data`, or put a sound copy there by hand"


class MissingData(UserError, FileNotFoundError):
    """A file of a data set is not there. The line says which, where it was looked for, and how to get it."""


class DamagedData(UserError, ValueError):
    """A file of a data set does not hold what its name promises. The line says which and what is wrong with it."""


def data_root() -> Path:
    """The folder of the data sets: the environment variable `DATA_ROOT`, else `./data`."""
    return Path(os.environ.get("DATA_ROOT") or "data").expanduser()


def unreadable(path: Path, error: OSError) -> UserError:
    """The `UserError` for a file that the operating system does not hand over."""
    if isinstance(error, FileNotFoundError):
        return MissingData(f"{path} is missing: run `make data`, or put it there by hand")
    if isinstance(error, IsADirectoryError):
        return UserError(f"{path} is a folder, a file is expected there: move it away and run `make data`")
    return UserError(f"cannot read {path} ({error.strerror or error}): check its permissions and the disk")
