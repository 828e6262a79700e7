"""Superevents against external events and survey alerts, as they come over the bus (section 10).

What is known is not kept: after a restart the topics are read again from their beginning, and only a pair with a record
that was not committed before is told. A crash between telling and committing tells a pair again: its header `id` is the
same.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mma_realtime.alerts.notice import Notice
from mma_realtime.alerts.outbox import Deduplicator
from mma_realtime.bus.base import EXTERNAL, NOTICES, Bus, RangeLost, Record, bury
from mma_realtime.crossmatch.external import ExternalEvent, Externals, read_notice
from mma_realtime.crossmatch.filter import SurveyFilter
from mma_realtime.crossmatch.joint import OPTICAL
from mma_realtime.crossmatch.pair import Candidate, compare
from mma_realtime.crossmatch.survey import Region
from mma_realtime.errors import CrossMatchError
from mma_realtime.sky.fits import read_fits
from mma_realtime.times import gps_from_utc

JOINT = "crossmatch.joint"  # topic
GROUP = "cross-match"
BATCH = 50  # notices at once: one with a map is large
log = logging.getLogger(__name__)


class Matcher:
    """Args:
        bus: with all topics.
        memory: file of the notices of superevents that were seen.

    Attributes:
        candidates: superevents that stand, by id, with the version that they are of.
        pairs: told so far.
    """

    def __init__(self, bus: Bus, memory: Path) -> None:
        self.bus, self.seen = bus, Deduplicator(memory)
        self.candidates: dict[str, tuple[int, Candidate]] = {}
        self.externals = Externals()
        self.survey = SurveyFilter(bus)
        self.pairs = 0
        self._new = {topic: bus.committed(GROUP, topic) for topic in (NOTICES, EXTERNAL)}
        for topic in self._new:
            bus.seek(GROUP, topic, 0)

    def step(self) -> int:
        """One round; how many records were read."""
        done = self._read(NOTICES, self._superevent)
        return done + self._read(EXTERNAL, self._external) + self.survey.step().read

    def behind(self) -> int:
        """Records that wait."""
        return sum(max(0, self.bus.end(topic) - self.bus.committed(GROUP, topic)) for topic in self._new)

    def _read(self, topic: str, handle: Callable[[Record, bool], None]) -> int:
        try:
            records = self.bus.fetch(topic, GROUP, BATCH)
        except RangeLost as lost:
            log.warning("%s", lost)
            self.bus.seek(GROUP, topic, lost.next)
            return 0
        for record in records:
            new = record.offset >= self._new[topic]
            try:
                handle(record, new)
            except ValueError as error:
                if new:
                    bury(self.bus, record, f"{type(error).__name__}: {error}")
        if records and records[-1].offset >= self._new[topic]:
            self.bus.commit(GROUP, topic, records[-1].offset + 1)
        return len(records)

    def _superevent(self, record: Record, new: bool) -> None:
        if new:
            with self.seen.once(record) as first:
                pass
            if not first:
                return
        notice = Notice.from_json(record.value)
        id, version = notice.superevent_id, int(record.headers["version"])
        if notice.event is None:
            self.candidates.pop(id, None)
            self.survey.regions.pop(id, None)
            return
        gps = gps_from_utc(notice.event.time)
        candidate = Candidate(id, gps, notice.event.far)
        if notice.event.skymap:
            candidate = replace(candidate, sky_map=read_fits(notice.event.skymap))
            self.survey.regions[id] = Region(candidate.sky_map, gps, OPTICAL)  # type: ignore[arg-type]
        self.candidates[id] = (version, candidate)
        for event in self.externals.standing():
            self._compare(version, candidate, event, new)

    def _external(self, record: Record, new: bool) -> None:
        for event in read_notice(record.value):
            if self.externals.add(event) and (holds := self.externals.get(event.id)) is not None:
                for version, candidate in self.candidates.values():
                    self._compare(version, candidate, holds, new)

    def _compare(self, version: int, candidate: Candidate, event: ExternalEvent, new: bool) -> None:
        try:
            joint = compare(candidate, event)
        except CrossMatchError as error:
            log.warning("%s and %s: %s", candidate.id, event.id, error)
            return
        if joint is None or not new:
            return
        # Places without anything in common have an infinite rate, which JSON has no word for: none is told.
        rates = {key: None if value == math.inf else value for key, value in joint.as_dict().items()}
        content = {"superevent_id": candidate.id, "version": version, "external_id": event.id} | rates
        name = f"{candidate.id} {version} {event.id}"
        self.bus.append(JOINT, candidate.id, json.dumps(content, allow_nan=False).encode(), {"id": name})
        self.pairs += 1
