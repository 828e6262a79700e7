"""What of bus and store is deleted, and when (section 9): old records that their readers have read, and rows that were
sent.

A superevent's versions, triggers and states are never deleted. Nor is a record that the system's own reader of its
topic has not committed, or a row of the outbox that was not sent: a system that is behind keeps what it has not done.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mma_realtime.alerts.pipeline import UNIFIED, VOEVENTS
from mma_realtime.alerts.store import Store
from mma_realtime.bus.base import DEAD, EXTERNAL, NOTICES, SURVEY
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch import filter as survey
from mma_realtime.crossmatch import matcher
from mma_realtime.gw.units import Seconds
from mma_realtime.status.beats import STAGES

EVERY: Seconds = 60.0
HOUR: Seconds = 3600.0
SENT: Seconds = 86400.0  # that a row of the outbox stays after it was sent: the status page's latencies are of these
TOPICS: dict[str, tuple[Seconds, tuple[str, ...]]] = {  # s kept; groups whose unread records stay
    STAGES: (HOUR, ()),
    SURVEY: (600.0, (survey.GROUP,)),  # seven megabytes a second of a large survey
    survey.MATCHES: (matcher.KEPT, ()),
    NOTICES: (matcher.KEPT, (matcher.GROUP,)),
    EXTERNAL: (matcher.KEPT, (matcher.GROUP,)),
    **dict.fromkeys(
        (UNIFIED, VOEVENTS, *(t + DEAD for t in (NOTICES, UNIFIED, VOEVENTS, EXTERNAL, SURVEY))), (matcher.KEPT, ())
    ),
}


class Retention:
    """Args:
    store, bus: of the system.
    clock: s since 1970.
    every: s between two looks.
    """

    def __init__(
        self, store: Store, bus: SqliteLog, clock: Callable[[], float] = time.time, every: Seconds = EVERY
    ) -> None:
        self.store, self.bus, self.clock, self.every = store, bus, clock, every
        self._last = 0.0

    def keep(self) -> int:
        """Deletes what is due, if so much time has passed; returns how many records and rows.

        Raises:
            BusError, AlertError: locked or out of space: what was deleted until then is.
        """
        now = self.clock()
        if now - self._last < self.every:
            return 0
        self._last = now
        gone = sum(self.bus.delete_before(topic, now - kept, readers) for topic, (kept, readers) in TOPICS.items())
        return gone + self.store.forget_sent(now - SENT)
