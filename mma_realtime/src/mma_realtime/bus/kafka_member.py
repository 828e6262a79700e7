"""Who reads a Kafka topic for a group: one reader of all its partitions, or members that share them (section 9).

Partitions move between members one by one (cooperative rebalance): the others are read on meanwhile. Callbacks come
within `consume` and `close` alone, when a reader that handles and commits what it fetched before it fetches again has
nothing left to commit: so a member that comes or leaves has nothing read twice. What a member had not committed when it
was killed, or thrown out of the group, comes again at another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mma_realtime.bus.base import PARTITION, RangeLost

try:
    import confluent_kafka as ck
except ImportError:  # the extra is absent: said by KafkaBus, for whoever asks for one
    ck = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition

__all__ = ["MEMBER", "Member", "Reader", "ck"]
log = logging.getLogger(__name__)
MEMBER = {
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 10_000,  # after which the partitions of a member that died go to others
}


@dataclass
class Reader:
    """A group's consumer of one topic, and the next offset of each partition (None: wherever it begins)."""

    consumer: Consumer
    topic: str
    next: dict[int, int | None]
    lost: RangeLost | None = field(default=None, init=False)

    def assign(self) -> None:
        """Goes on at `next`."""
        self.consumer.assign(self._places(self.next))

    def _places(self, parts: Iterable[int]) -> list[TopicPartition]:
        nexts = [(part, self.next[part]) for part in parts]
        return [ck.TopicPartition(self.topic, part, ck.OFFSET_BEGINNING if at is None else at) for part, at in nexts]


@dataclass
class Member(Reader):
    """A reader to which the cluster gives part of the partitions; `next` holds those that it has now.

    Attributes:
        begins: the offset at which the group reads each of some partitions, or None.
        ask: does a request, again and again while no broker answers.
    """

    begins: Callable[[Sequence[int]], Sequence[int | None]]
    ask: Callable[[Callable[[], None]], None]
    _owed: dict[int, int] = field(default_factory=dict, init=False)  # commits that a rebalance has put off

    def join(self) -> None:
        self.consumer.subscribe([self.topic], on_assign=self._given, on_revoke=self._taken, on_lost=self._gone)

    def assign(self) -> None:
        places = self._places(self.next)
        self.consumer.incremental_unassign(places)
        self.consumer.incremental_assign(places)

    def commit(self, part: int, at: int) -> None:
        """As soon as the group takes it: while partitions move it takes none, and the next fetch tries again."""
        if part not in self.next:
            log.warning("%s: partition %d has moved to another member, where records come again", self.topic, part)
            return
        self._owed[part] = at
        self.commit_owed()

    def commit_owed(self) -> None:
        if self._owed:
            self.ask(self._commit)

    def _commit(self) -> None:
        codes = ck.KafkaError
        try:
            places = [ck.TopicPartition(self.topic, part, at) for part, at in self._owed.items()]
            self.consumer.commit(offsets=places, asynchronous=False)
        except ck.KafkaException as error:
            moving = (codes.REBALANCE_IN_PROGRESS, codes.ILLEGAL_GENERATION, codes.UNKNOWN_MEMBER_ID)
            if error.args[0].code() not in moving:
                raise
            log.debug("%s: partitions move, a commit waits (%s)", self.topic, error.args[0].str())
        else:
            self._owed.clear()

    def _given(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        parts = [place.partition for place in places]
        self.next |= dict(zip(parts, self.begins(parts), strict=True))
        consumer.incremental_assign(self._places(parts))

    def _taken(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self.commit_owed()
        self._gone(consumer, places)

    def _gone(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """They are another's already, as after the time in which this member should have fetched again."""
        for part in (place.partition for place in places):
            self.next.pop(part, None)
            self._owed.pop(part, None)
            if self.lost and self.lost.first >> PARTITION == part:
                self.lost = None
        consumer.incremental_unassign(places)
