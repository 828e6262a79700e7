"""Errors that a user can act on: one line that says what is wrong and how to mend it."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator


class UserError(Exception):
    """Something the user can mend; the message is one line and names the fix."""


def disk_error(error: OSError, path: object) -> UserError | None:
    """The `UserError` for a full disk, a quota or a file-size limit; None for any other OSError."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(
            f"no space left to write {path} ({error.strerror}): free some space and run the same command again; "
            "everything finished before is kept"
        )
    return None


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a command's `main`: a `UserError` ends it with `error: ...` on stderr and exit status 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        full = disk_error(error, error.filename or "a file")
        if full is None:
            raise
        print(f"error: {full}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on from here", file=sys.stderr)
        raise SystemExit(130) from None
