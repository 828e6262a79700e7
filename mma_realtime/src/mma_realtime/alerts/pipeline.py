"""From strain to alerts, a hop at a time, each in one transaction (section 9).

    pipeline = AlertPipeline(store, model, conditioner, StrainSource(strain), Origin.REPLAYED)
    for superevents in pipeline.run(): ...            # resumes where the store says
    MapWorker(store, localiser, Origin.REPLAYED).work()    # elsewhere: sky maps as further versions

A trigger is told at once, as PRELIMINARY; its sky map follows through the store and never delays the stream.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from jaxtyping import Bool, Float64
from numpy import ndarray

from mma_realtime.alerts.database import patiently
from mma_realtime.alerts.faults import FINISH, point
from mma_realtime.alerts.notice import ExternalCoincidence, headers_of, notice_of, unified_of
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.ranker import MEMORY, REFRESH, SlidRanker, pack, unpack
from mma_realtime.alerts.store import Store, Transaction
from mma_realtime.alerts.superevent import Candidate, Localisation, State, Superevent
from mma_realtime.alerts.voevent import voevent_of
from mma_realtime.bus.base import NOTICES
from mma_realtime.data.strain import Strain
from mma_realtime.errors import AlertError, SkyMapError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.search.coincidence import Trigger
from mma_realtime.search.conditioning import Conditioner
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.report import Slider
from mma_realtime.search.stream import StreamEngine, StreamState
from mma_realtime.times import utc_iso

UNIFIED, VOEVENTS = f"{NOTICES}.unified", "gw.voevents"  # topics of the other flavours
Masses = Callable[[Trigger], tuple[float, float] | None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """Strain x 1e21 from sample `offset` of the source on, its GPS time, and of which detectors it is valid."""

    offset: int
    gps: GPS
    values: Float64[ndarray, "detector n"]
    valid: Bool[ndarray, " detector"]


class Source(Protocol):
    """Strain that can be read again from any sample on."""

    @property
    def detectors(self) -> tuple[str, ...]: ...
    @property
    def gps_start(self) -> GPS: ...
    def blocks(self, offset: int) -> Iterator[Block]: ...


@dataclass(frozen=True)
class StrainSource:
    """A stretch of strain as a source, in blocks of `hop` s: 1, 0.5 or 0.25."""

    strain: Strain
    hop: Seconds = 1.0

    def __post_init__(self) -> None:
        if self.hop not in (1.0, 0.5, 0.25):
            raise AlertError(f"a hop of {self.hop:g} s: use 1, 0.5 or 0.25")

    @property
    def detectors(self) -> tuple[str, ...]:
        return self.strain.detectors

    @property
    def gps_start(self) -> GPS:
        return self.strain.gps_start

    def blocks(self, offset: int) -> Iterator[Block]:
        fs, n = self.strain.sample_rate, round(self.hop * self.strain.sample_rate)
        for at in range(offset, self.strain.values.shape[1], n):
            valid = self.strain.valid[:, at // fs]
            yield Block(at, self.gps_start + at / fs, self.strain.values[:, at : at + n], valid)


class AlertPipeline:
    """Args:
        store: what it goes on from, and writes to.
        model, conditioner: of the search.
        source: of strain.
        origin: of the strain; whichever it is, every alert is a test.
        stream: name of the stream in the store.
        masses: estimates the components' masses of a trigger, where something can.
        refresh, memory: hops between two backgrounds, and that each is made of.
        now: UTC, for the notices.
        wait: between attempts on a store that is locked or out of space.

    Attributes:
        engine, ranker: as the store has them.

    Raises:
        SearchError, AlertError: the store is of another model or conditioning, or damaged.
    """

    def __init__(
        self,
        store: Store,
        model: SearchModel,
        conditioner: Conditioner,
        source: Source,
        origin: Origin,
        stream: str = "gw",
        masses: Masses = lambda trigger: None,
        refresh: int = REFRESH,
        memory: int = MEMORY,
        now: Callable[[], str] | None = None,
        wait: Callable[[Seconds], object] = time.sleep,
    ) -> None:
        self.store, self.source, self.origin, self.stream = store, source, origin, stream
        self.model, self.masses, self.now, self.wait = model, masses, now or utc_now, wait
        found = store.state(stream)
        if found is None:
            self.engine = StreamEngine(model, conditioner, source.detectors, source.gps_start)
        else:
            state = StreamState.from_bytes(found[1])
            detectors = tuple(state.header["detectors"])
            if (state.gps_start, detectors) != (source.gps_start, source.detectors):
                raise AlertError(
                    f"{store.path} goes on with strain of {' and '.join(detectors)} from GPS {state.gps_start:.0f}, "
                    "this is other strain: give the same, or another store"
                )
            self.engine = StreamEngine.resume(model, conditioner, state)
        cluster = self.engine.clusterer
        self.ranker = SlidRanker(Slider(cluster.threshold, cluster.single_threshold), refresh, memory)
        self.ranker.restore([(number, unpack(content)) for number, content in store.scores(stream)])

    @property
    def offset(self) -> int:
        """Of the sample to read next."""
        return self.engine.conditioning.consumed

    def run(self) -> Iterator[list[Superevent]]:
        """Hop after hop from where the store is, and what is still open at the end; yields the new versions of each."""
        for block in self.source.blocks(self.offset):
            yield self.hop(block)
        yield self.finish()

    def hop(self, block: Block) -> list[Superevent]:
        """One block: when this returns, all that it caused is durable.

        Raises:
            SearchError: a block that does not follow, or statistics that are no numbers.
        """
        triggers = self.engine.push(block.values, block.valid, block.gps)
        kept = None
        if self.engine.scores is not None:
            self.ranker.take(self.engine.scores)
            kept = pack(self.engine.scores)
        told = self._commit(triggers, kept)
        if kept is not None:
            self.ranker.slide_when_due()  # takes up to 0.2 s for an hour: nothing waits for it
        return told

    @property
    def finished(self) -> bool:
        """Whether `finish` is durable, and no strain has followed."""
        found = self.store.state(_end_of(self.stream))
        return found is not None and found[0] == self.offset

    def finish(self) -> list[Superevent]:
        """What is still open when no more strain will come; that the stream has ended becomes durable with it."""
        point(FINISH)
        return self._commit(self.engine.finish(), None, end=True)

    def _commit(self, triggers: list[Trigger], scores: bytes | None, end: bool = False) -> list[Superevent]:
        candidates = [(trigger, self._candidate(trigger)) for trigger in triggers]
        snapshot = self.engine.state().to_bytes()

        def written() -> list[Superevent]:
            with self.store.transaction() as write:
                told = [event for each in candidates if (event := self._take(write, *each))]
                if scores is not None:
                    write.scores(self.stream, self.ranker.number, scores, self.ranker.keep)
                write.state(self.stream, self.offset, snapshot)
                if end:
                    write.state(_end_of(self.stream), self.offset, b"")
            return told

        return patiently(written, self.wait)

    def _candidate(self, trigger: Trigger) -> Candidate:
        far = self.ranker.far(trigger.statistic)
        candidate = Candidate(
            trigger.gps, utc_iso(trigger.gps), trigger.statistic, far.value_hz, far.upper_limit, trigger.detectors,
            trigger.duration, self.model.checksum,
        )  # fmt: skip
        try:
            return replace(candidate, masses=self.masses(trigger))
        except AlertError as error:
            log.warning("the masses are not used: %s", error)
            return candidate

    def _take(self, write: Transaction, trigger: Trigger, candidate: Candidate) -> Superevent | None:
        before = write.at(candidate.gps)
        if before is None:
            number = write.next_number(candidate.utc)
            event = Superevent.opened(candidate, number)
            write.open(event, number)
        else:  # what was taken back stays so: nothing follows a retraction
            event = before if before.state is State.RETRACTION else before.joined(candidate)
        write.trigger(event.id, candidate.gps, trigger.as_dict())
        if event is before:
            return None
        tell(write, event, before, self.origin, self.now())
        return event


def _end_of(stream: str) -> str:
    """Where the store keeps that a stream has ended, and at which sample."""
    return f"{stream} end"


class MapWorker:
    """Gives superevents their sky maps, as further versions.

    Args:
        localiser: a sky map of the preferred candidate; may take its time. SkyMapError: there is none to be had.
        now, wait: as of `AlertPipeline`.
        stopped: whether to leave what has no map yet to the next start.
    """

    def __init__(
        self,
        store: Store,
        localiser: Callable[[Superevent], Localisation],
        origin: Origin,
        now: Callable[[], str] | None = None,
        wait: Callable[[Seconds], object] = time.sleep,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.store, self.localiser, self.origin = store, localiser, origin
        self.now, self.wait, self.stopped = now or utc_now, wait, stopped
        self.failed: set[tuple[str, Candidate]] = set()

    def work(self) -> list[Superevent]:
        """Maps for all that have none; returns the new versions. One that fails is not tried again."""
        told = []
        for event in self.store.unlocated():
            if self.stopped():
                break
            if (event.id, event.preferred) in self.failed:
                continue
            try:
                place = self.localiser(event)
            except SkyMapError as error:
                log.warning("no sky map for version %d of %s: %s", event.version, event.id, error)
                self.failed.add((event.id, event.preferred))
                continue
            located = patiently(partial(self._located, event, place), self.wait)
            told += [located] if located else []
        return told

    def _located(self, event: Superevent, place: Localisation) -> Superevent | None:
        with self.store.transaction() as write:
            latest = write.latest(event.id)
            # A version that only says more of other messengers may have come meanwhile: the map is of it as well.
            if latest.state is State.RETRACTION or latest.preferred != event.preferred or latest.localisation:
                return None
            located = latest.located(place)
            tell(write, located, latest, self.origin, self.now())
        return located


def retract(store: Store, id: str, origin: Origin, created: str) -> Superevent:
    """Takes a superevent back, in a further version.

    Raises:
        AlertError: there is none of that name, or it is already taken back.
    """
    store.superevent(id)
    with store.transaction() as write:
        before = write.latest(id)
        event = before.retracted()
        tell(write, event, before, origin, created)
    return event


def tell(
    write: Transaction, event: Superevent, before: Superevent | None, origin: Origin, created: str,
    external: ExternalCoincidence | None = None,
) -> None:  # fmt: skip
    """A superevent's new version, in the store and in all flavours in the outbox."""
    headers = headers_of(event, origin)
    write.version(event)
    write.send(NOTICES, event.id, notice_of(event, created, external).to_json(), headers)
    write.send(UNIFIED, event.id, unified_of(event, created).to_json(), headers)
    write.send(VOEVENTS, event.id, voevent_of(event, origin, created, before), headers)


def utc_now() -> str:
    """ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
