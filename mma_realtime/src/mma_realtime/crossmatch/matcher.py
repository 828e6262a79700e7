"""Superevents beside external events as they come over the bus, and notices that say so (section 10).

    matcher = CrossMatcher(store, bus, Origin.REPLAYED)
    while not stopped: matcher.step()

The latest notice of a superevent carries its best coincidence, or none: that is all that is kept true here, and it does
not depend on what came first, twice or again. What holds of a superevent is read from the store; a further version,
the rows of its notice and what was told are written in one transaction, which looks at what was told before. External
notices are kept in a file beside the store before their place on the bus is committed. A process that dies between two
of these steps compares all with all when it starts again, and finds what is left to tell.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

import numpy as np

from mma_realtime.alerts.database import Database, TryAgain, patiently
from mma_realtime.alerts.notice import LARGEST, ExternalCoincidence
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.pipeline import tell, utc_now
from mma_realtime.alerts.store import Store
from mma_realtime.alerts.superevent import State, Superevent
from mma_realtime.bus.base import EXTERNAL, NOTICES, Bus, RangeLost, Record, bury, handled
from mma_realtime.crossmatch.external import ExternalEvent, Externals, read_notice, spot
from mma_realtime.crossmatch.filter import SurveyFilter
from mma_realtime.crossmatch.joint import OPTICAL
from mma_realtime.crossmatch.pair import POINT, Candidate, Joint, compare
from mma_realtime.crossmatch.survey import PacketReader, Region
from mma_realtime.errors import AlertError, BusError, CrossMatchError, SkyMapError
from mma_realtime.gw.units import Hertz, Seconds
from mma_realtime.sky.fits import read_fits, to_bytes
from mma_realtime.sky.moc import ranges
from mma_realtime.sky.skymap import SkyMap

GROUP = "cross-match"
NOTICES_AT_ONCE, EXTERNAL_AT_ONCE = 50, 1000  # a notice with a map takes a megabyte
KEPT: Seconds = OPTICAL.high + 86400.0  # that external notices and superevents are remembered
WORDS = 100_000  # bytes of a notice without its maps, at most
TENSES = ("test", "injection")  # of external events that may stand beside ours, which are all tests
MEMORY = "CREATE TABLE notice (digest BLOB PRIMARY KEY, arrived REAL NOT NULL, content BLOB NOT NULL) WITHOUT ROWID;"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Told:
    """What a version of a superevent said of other messengers: of which event, and the rates (Hz)."""

    external: str
    temporal: Hertz | None
    spatiotemporal: Hertz | None


class CrossMatcher:
    """Args:
        store: of the superevents; its relay sends what is told here. External notices are kept in `<path>.crossmatch`.
        bus: with `gw.notices`, `external.notices` and `survey.alerts`.
        origin: of the strain.
        now, wait: as of `AlertPipeline`.
        reader: of survey packets.

    Attributes:
        survey: the filter of survey alerts; its regions are those of the superevents that stand and have a map.
        told: versions that were written by this object.
        lost: records that retention deleted before they were read.
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        origin: Origin,
        now: Callable[[], str] | None = None,
        wait: Callable[[Seconds], object] = time.sleep,
        reader: PacketReader | None = None,
    ) -> None:
        self.store, self.bus, self.origin = store, bus, origin
        self.now, self.wait = now or utc_now, wait
        self.survey = SurveyFilter(bus, reader=reader or PacketReader())
        self.told = self.lost = 0
        self._memory = Database(f"{store.path}.crossmatch", 0x6D6D6178, 1, MEMORY, "memory of external notices", 30.0)
        self._externals, self._loaded, self._arrived = Externals(), 0.0, 0.0
        self._events: dict[str, Superevent] = {}  # that stand, as of the last look at the store
        self._candidates: dict[str, Candidate] = {}
        self._pairs: dict[str, dict[str, tuple[Joint, ExternalEvent]]] = {}
        # What is left to do where a step ends in an error: external events to compare, superevents to tell.
        self._changed: dict[str, None] = {}
        self._untold: dict[str, None] = {}
        self._load()
        for id in self._recent():
            self._look(id)
            self._tell(id)

    def step(self, timeout: Seconds = 0.0) -> int:
        """One round; how many records were read. Waits up to `timeout` where nothing has come.

        Raises:
            BusError: the bus is down; the same records come again.
        """
        done = self._read(NOTICES, NOTICES_AT_ONCE, 0.0, self._superevents)
        done += self.survey.step().read
        return done + self._read(EXTERNAL, EXTERNAL_AT_ONCE, 0.0 if done else timeout, self._external)

    def behind(self) -> int:
        """Notices that wait on the bus: ours, and external ones.

        Raises:
            BusError: the bus does not say.
        """
        return sum(self.bus.behind(topic, GROUP) for topic in (NOTICES, EXTERNAL))

    def close(self) -> None:
        self._memory.close()

    def _read(self, topic: str, most: int, timeout: Seconds, take: Callable[[list[Record]], None]) -> int:
        try:
            records = self.bus.fetch(topic, GROUP, most, timeout)
        except RangeLost as lost:
            log.warning("%s", lost)
            self.lost += lost.next - lost.first
            self.bus.seek(GROUP, topic, lost.next)
            return 0
        if records:
            with handled(self.bus, GROUP, records):
                take(records)
        return len(records)

    def _superevents(self, records: list[Record]) -> None:
        """A notice is only the news that a superevent has changed: what holds is in the store, whatever came first."""
        changed = dict.fromkeys(record.headers.get("superevent_id", "") for record in records)
        known = {id: self._look(id) for id in changed}
        for record in records:
            if not known[id := record.headers.get("superevent_id", "")]:
                bury(self.bus, record, f"{self.store.path} has no superevent {id!r}: the notice is not of this search")
        for id in changed:
            self._tell(id)
        self._forget()

    def _external(self, records: list[Record]) -> None:
        good, found = [], []
        for record in records:
            events, wrong = heard(record.value)
            if wrong:
                bury(self.bus, record, wrong)
            else:
                good.append(record)
                found += events
        self._keep(good)
        for event in found:
            if why := left_out(event):
                log.warning("%s is not compared: %s", event.id, why)
        self._changed |= dict.fromkeys(name for event in found for name in self._externals.add(event))
        for id in list(self._candidates):
            for name in self._changed:
                self._pair(id, name, self._externals.get(name))
        self._changed.clear()
        for id in list(self._untold):
            self._tell(id)
            del self._untold[id]
        if self._arrived - self._loaded > 86400.0:
            self._load()

    def _keep(self, records: Sequence[Record]) -> None:
        """External notices in one transaction; one that is there stays as it is."""
        rows = [(hashlib.sha256(record.value).digest(), record.time, record.value) for record in records]

        def written() -> None:
            with self._memory.writing():
                self._memory.connection.executemany("INSERT OR IGNORE INTO notice VALUES (?, ?, ?)", rows)

        if rows:
            patiently(written, self.wait)
            self._arrived = max(self._arrived, *(record.time for record in records))

    def _load(self) -> None:
        """What is known of external events, from the file: without those whose notices came long before the last."""

        def cleared() -> None:
            with self._memory.writing():
                old = "DELETE FROM notice WHERE arrived < (SELECT max(arrived) FROM notice) - ?"
                self._memory.connection.execute(old, (KEPT,))

        patiently(cleared, self.wait)
        rows = self._memory.rows("SELECT content, arrived FROM notice")
        self._externals = Externals(event for content, _ in rows for event in heard(content)[0])
        self._loaded = self._arrived = max((arrived for _, arrived in rows), default=0.0)

    def _recent(self) -> list[str]:
        """Superevents within two weeks of the last one."""
        names = self.store.superevents()[::-1]
        last = self.store.superevent(names[0]).opened_at if names else 0.0
        recent = takewhile(lambda event: event.opened_at >= last - KEPT, map(self.store.superevent, names))
        return [event.id for event in recent][::-1]

    def _look(self, id: str) -> bool:
        """Takes a superevent over as it is in the store, and compares it with all; False: it is not there."""
        try:
            event = self.store.superevent(id)
        except TryAgain:  # it may well be there
            raise
        except AlertError:
            return False
        before = self._events.get(id)
        if event.state is State.RETRACTION:
            self._drop(id)
        elif before is None or (before.preferred, before.localisation) != (event.preferred, event.localisation):
            self._events[id] = event
            candidate = candidate_of(event)
            self._candidates[id], self._pairs[id] = candidate, {}
            self.survey.regions.pop(id, None)
            if candidate.sky_map is not None:
                self.survey.regions[id] = Region(candidate.sky_map, candidate.gps, OPTICAL)
            for external in self._externals.standing():
                self._pair(id, external.id, external)
        else:
            self._events[id] = event
        return True

    def _pair(self, id: str, name: str, external: ExternalEvent | None) -> None:
        """Compares a superevent with an external event as both are now; what changes by it is left to tell."""
        if self._pairs[id].pop(name, None) is not None:
            self._untold[id] = None
        if external is None or left_out(external):
            return
        try:
            joint = compare(self._candidates[id], external)
        except Exception as error:  # of whatever kind: it is this pair's, and the others go on
            _set_aside(id, name, "compared", error)
            return
        if joint is not None and joint.best is None:
            log.warning("%s fits %s, but has no rate to be told with: it is told nowhere", name, id)
        elif joint is not None and joint.best is not None and joint.best < self._candidates[id].far:
            self._pairs[id][name] = joint, external
            self._untold[id] = None

    def _tell(self, id: str) -> None:
        """A further version, if the latest notice does not say what holds; that of one that is gone is not asked."""
        if id not in self._events:
            return
        event, said = self._events[id], self._said(self._events[id])
        while True:
            best = min(self._pairs[id].values(), key=lambda pair: (pair[0].best, pair[1].id), default=None)
            told = best and Told(best[1].id, best[0].temporal, best[0].spatiotemporal)
            if told == said:
                return
            try:
                external = best and coincidence(self._candidates[id], *best, room_of(event))
            except Exception as error:  # as in `_pair`: what cannot be told leaves its place to the next best
                assert best is not None
                _set_aside(id, best[1].id, "told", error)
                del self._pairs[id][best[1].id]
                continue
            break
        patiently(partial(self._written, event, told, external), self.wait)

    def _said(self, event: Superevent) -> Told | None:
        """What a version's notice says of other messengers: nothing, unless it was written here."""
        found = self.store.state(_stream(event.id))
        if found is None or found[0] != event.version:
            return None
        content = json.loads(found[1])
        return content and Told(**content)

    def _written(self, event: Superevent, told: Told | None, external: ExternalCoincidence | None) -> None:
        with self.store.transaction() as write:
            if write.latest(event.id).version != event.version:
                return  # another process was faster: its notice is on its way here
            version = event.coincident()
            tell(write, version, event, self.origin, self.now(), external)
            write.state(_stream(event.id), version.version, json.dumps(told and vars(told), allow_nan=False).encode())
        self._events[event.id] = version
        self.told += 1

    def _forget(self) -> None:
        """Superevents more than two weeks before the last one."""
        last = max((event.opened_at for event in self._events.values()), default=0.0)
        for id in [id for id, event in self._events.items() if event.opened_at < last - KEPT]:
            self._drop(id)

    def _drop(self, id: str) -> None:
        for known in (self._events, self._candidates, self._pairs, self.survey.regions):
            known.pop(id, None)


def heard(content: bytes) -> tuple[list[ExternalEvent], str]:
    """The events of a notice, or none and why.

    An error that the reader does not declare is its own fault, and is logged as that; it must not stop what follows.
    """
    try:
        return read_notice(content), ""
    except CrossMatchError as error:
        return [], str(error)
    except Exception as error:
        log.exception("the reader of external notices failed on one of %d bytes", len(content))
        return [], f"{type(error).__name__}: {error}"


def left_out(event: ExternalEvent) -> str:
    """Why an external event does not stand beside our superevents; empty: it may."""
    if event.superevent is not None:
        return (
            f"NOT SUPPORTED: a follow-up of {event.superevent} has a p-value for that superevent's map, which is not "
            "ours, and no rate"
        )
    if event.tense not in TENSES:
        return f"its tense is {event.tense}, and all superevents here are tests"
    return ""


def _set_aside(id: str, name: str, what: str, error: Exception) -> None:
    """Logs a pair that cannot be used; a bus or store that is down is no fault of a pair, and comes through."""
    if isinstance(error, TryAgain | BusError):
        raise error
    declared = isinstance(error, CrossMatchError | SkyMapError | AlertError)
    log.warning("%s and %s are not %s: %s", id, name, what, error, exc_info=None if declared else error)


def _stream(id: str) -> str:
    """Where the store keeps what was told of a superevent."""
    return f"{GROUP} {id}"


def candidate_of(event: Superevent) -> Candidate:
    """What a comparison needs of a superevent; without a map that cannot be read."""
    candidate = Candidate(event.id, event.preferred.gps, event.preferred.far)
    if event.localisation is None:
        return candidate
    try:
        return replace(candidate, sky_map=read_fits(event.localisation.fits))
    except SkyMapError as error:
        log.warning("%s is compared without its map: %s", event.id, error)
        return candidate


def room_of(event: Superevent) -> int:
    """Bytes that a notice has for a combined map beside the superevent's own; both are written in base64."""
    own = len(event.localisation.fits) if event.localisation else 0
    return (LARGEST - WORDS) * 3 // 4 - own


def coincidence(candidate: Candidate, joint: Joint, external: ExternalEvent, room: int) -> ExternalCoincidence:
    """A pair as a notice tells it: with the combined map as fine as there is room for it.

    Args:
        joint: with a rate.
        room: bytes for the combined map's file.
    """
    assert joint.temporal is not None
    content = None
    if joint.spatiotemporal is not None:
        made = (combined_map(candidate.sky_map, external, coarse) for coarse in (False, True))
        files = (to_bytes(combined) for combined in made if combined is not None)
        content = next((file for file in files if len(file) <= room), None)
        if content is None:
            log.warning(
                "%s and %s are told without their combined map: none has room in a notice", candidate.id, external.id
            )
    return ExternalCoincidence(
        None, external.ivorn or external.id, external.mission, search_of(joint, external), joint.time_difference,
        joint.temporal, joint.spatiotemporal, content,
    )  # fmt: skip


def search_of(joint: Joint, external: ExternalEvent) -> str:
    if external.kind != "GRB":
        return external.kind
    return "SubGRBTargeted" if joint.method == "targeted" else "SubGRB" if external.subthreshold else "GRB"


def combined_map(sky_map: SkyMap | None, external: ExternalEvent, coarse: bool = False) -> SkyMap | None:
    """The product of both maps, normalised, in the finer of their pixels; with the distances of the first.

    None where one of them has no place, or they have none in common.

    Args:
        coarse: in the pixels of the first: each has its probability in the product.
    """
    if sky_map is None:
        return None
    if external.sky_map is not None:
        other = read_fits(external.sky_map)
    elif external.ra is not None and external.dec is not None and external.sigma is not None:
        found = spot(external.ra, external.dec, max(external.sigma, POINT))
        other = SkyMap(found.uniq, found.probdensity)
    else:
        return None
    fine = sky_map.refined(other.uniq)
    density = fine.probdensity * other.refined(sky_map.uniq).probdensity
    total = float(np.dot(density, fine.pixel_area))
    if not total > 0:
        return None
    if not coarse:
        return replace(fine, probdensity=density / total)
    row = np.searchsorted(ranges(sky_map.uniq)[0], ranges(fine.uniq)[0], side="right") - 1
    prob = np.bincount(row, density * fine.pixel_area / total, len(sky_map.uniq))
    return replace(sky_map, probdensity=prob / sky_map.pixel_area)


def run(matcher: CrossMatcher, stopped: Callable[[Seconds], bool], idle: Seconds = 0.05) -> None:
    """Steps until told to stop; a bus or store that is down is tried again, ever more rarely.

    Args:
        stopped: waits so many seconds or less; True: stop (`threading.Event().wait`).
    """
    pause = idle
    while True:
        try:
            rest = 0.0 if matcher.step() else idle
            pause = idle
        except (BusError, TryAgain) as error:
            log.warning("%s: next attempt in %.3g s", error, pause)
            rest, pause = pause, min(2 * pause, 10.0)
        if stopped(rest):
            return


def catch_up(matcher: CrossMatcher) -> int:
    """Steps until nothing waits; how many records were read."""
    done = 0
    while found := matcher.step():
        done += found
    return done
