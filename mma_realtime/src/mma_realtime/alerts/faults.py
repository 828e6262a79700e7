"""Where a process can be made to die, for tests: MMA_REALTIME_KILL_AT=commit, or commit:3 for the third time.

Off unless the variable is set; then the process gets SIGKILL as it passes the point, with nothing flushed or closed.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "MMA_REALTIME_KILL_AT"
POINTS = (
    "begin", "trigger", "superevent", "version", "outbox", "scores", "state", "commit", "committed",
    "relay.read", "relay.sent", "relay.marked", "subscriber.seen", "subscriber.effect", "subscriber.committed",
)  # fmt: skip
FINISH = "finish"  # of a stream whose last hop is durable
_name, _, _times = os.environ.get(VARIABLE, "").partition(":")
_left = int(_times or 1)


def point(name: str) -> None:
    """Dies here if the environment says so."""
    global _left
    if name == _name:
        _left -= 1
        if not _left:
            os.kill(os.getpid(), signal.SIGKILL)
