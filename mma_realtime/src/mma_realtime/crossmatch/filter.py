"""Survey alerts from the bus against the regions of superevents (section 10), as fast as they come.

The filter takes what it can hold and leaves the rest on the bus, which keeps it: back-pressure loses nothing. How far
behind it is, it says with every batch.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass, field

import numpy as np

from mma_realtime.bus.base import SURVEY, Bus, RangeLost, Record, bury, handled
from mma_realtime.crossmatch.survey import Cuts, PacketReader, Region, SurveyAlert, columns
from mma_realtime.errors import CrossMatchError
from mma_realtime.gw.units import Seconds

MATCHES = "survey.matches"
GROUP = "survey-filter"
BATCH = 500  # packets held at a time: at most 40 MB
BEHIND: Seconds = 30.0  # from which on a lag is a warning
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """What a step did.

    Args:
        read, matched, dead: packets. waiting: that the bus still holds.
        lag: s that the last packet waited on the bus; 0 where none was there.
    """

    read: int
    matched: int
    dead: int
    waiting: int
    lag: Seconds


@dataclass
class SurveyFilter:
    """Args:
    bus: with packets in `survey.alerts`; matches go to `survey.matches`, what cannot be read to `survey.alerts.dead`.
    regions: of superevents, by their id; may change between steps.
    cuts: which alerts are looked at.
    lost: packets that retention deleted before they were read.
    """

    bus: Bus
    regions: dict[str, Region] = field(default_factory=dict)
    cuts: Cuts = field(default_factory=Cuts)
    reader: PacketReader = field(default_factory=PacketReader)
    batch: int = BATCH
    lost: int = 0
    _warned: float = -math.inf

    def step(self, timeout: Seconds = 0.0) -> Batch:
        """One batch: read, match, publish, commit.

        A crash between publishing and committing publishes a match again: its header `id` tells it is the same.
        """
        try:
            records = self.bus.fetch(SURVEY, GROUP, self.batch, timeout)
        except RangeLost as lost:  # said once and counted; what is still there is looked at
            log.warning("%s", lost)
            self.lost += lost.next - lost.first
            self.bus.seek(GROUP, SURVEY, lost.next)
            return Batch(0, 0, 0, self.bus.behind(SURVEY, GROUP), 0.0)
        if not records:
            return Batch(0, 0, 0, 0, 0.0)
        alerts: list[SurveyAlert] = []
        dead = 0
        with handled(self.bus, GROUP, records):
            for record in records:
                try:
                    alerts.append(self.reader.read(record.value))
                except CrossMatchError as error:
                    bury(self.bus, record, str(error))
                    dead += 1
            rows = self._matches(alerts)
            if rows:
                self.bus.append_many(MATCHES, rows)
        return self._told(records, len(rows), dead, self.bus.behind(SURVEY, GROUP))

    def _matches(self, alerts: list[SurveyAlert]) -> list[tuple[str, bytes, dict[str, str]]]:
        table = columns(alerts)
        good = self.cuts.keep(table["real"], table["star"])
        rows = []
        for superevent, region in self.regions.items():
            inside = good & region.holds(table["ra"], table["dec"], table["gps"])
            for at in np.flatnonzero(inside):
                alert = alerts[at]
                content = alert._asdict() | {
                    "superevent_id": superevent, "after_s": alert.gps - region.gps, "level": region.level,
                }  # fmt: skip
                content = {key: None if value != value else value for key, value in content.items()}  # NaN: not said
                rows.append((superevent, json.dumps(content).encode(), {"id": f"{superevent} {alert.id}"}))
        return rows

    def _told(self, records: list[Record], matched: int, dead: int, waiting: int) -> Batch:
        lag = max(0.0, time.time() - records[-1].time) if records[-1].time else 0.0
        if lag > BEHIND and time.monotonic() - self._warned > BEHIND:
            self._warned = time.monotonic()
            log.warning("survey alerts: %.0f s behind, %d wait on the bus; none is lost", lag, waiting)
        return Batch(len(records), matched, dead, waiting, lag)
