"""Records of one bus onto another (section 9): from a machine's log to an observatory's Kafka cluster, and back.

In order and at least once: a batch is committed on the first bus when the second has it. Readers of the second drop
what they know, as of a relay that died.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mma_realtime.bus.base import Bus, RangeLost, append_or_bury, handled
from mma_realtime.errors import BusError

GROUP = "forward"
BATCH = 100
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 10.0  # s between two attempts on a bus that is down
log = logging.getLogger(__name__)


def forward(source: Bus, target: Bus, topic: str, group: str = GROUP) -> int:
    """A batch of a topic; how many records. What retention deleted before is said, and passed over.

    Raises:
        BusError: one of the buses is down; the same records come again.
    """
    try:
        records = source.fetch(topic, group, BATCH)
    except RangeLost as lost:
        log.error("%s", lost)
        source.seek(group, topic, lost.next)
        records = source.fetch(topic, group, BATCH)
    if records:
        with handled(source, group, records):
            append_or_bury(target, topic, [(record.key, record.value, record.headers) for record in records])
    return len(records)


def keep_forwarding(
    source: Bus, target: Bus, topics: Sequence[str], wait: Callable[[float], bool], idle: float | None = 0.05,
    group: str = GROUP,
) -> int:  # fmt: skip
    """Forwards topics until told to stop; a bus that is down is tried again, ever more rarely. How many records.

    Args:
        wait: waits so many seconds or less; True: stop (`threading.Event().wait`).
        idle: s between two looks for new records; None: end when none waits.
        group: for which the first bus keeps the place.
    """
    done, pause = 0, FIRST_PAUSE
    while True:
        try:
            found = sum(forward(source, target, topic, group) for topic in topics)
            done, pause = done + found, FIRST_PAUSE
            if not found and idle is None:
                return done
            rest = 0.0 if found else idle or 0.0
        except BusError as error:
            log.warning("%s: next attempt in %.3g s", error, pause)
            rest, pause = pause, min(2 * pause, LONGEST_PAUSE)
        if wait(rest):
            return done
