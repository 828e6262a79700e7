"""What the store and the bus say about the system, as one JSON-like value (read-only).

The store's file is opened so that nothing can be written to it; of the bus nothing is committed.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mma_realtime.alerts.origin import ROLE
from mma_realtime.bus.base import NOTICES, Bus, RangeLost, Record
from mma_realtime.errors import StatusError
from mma_realtime.gw.units import Seconds
from mma_realtime.search.significance import FalseAlarmRate
from mma_realtime.status.beats import LATE, LOST, STAGES, Beat

GROUP, MISSED = "status", "status missed"
MEMORY: Seconds = 600.0  # of the stages' beats that a service reads when it starts
SHOWN: Seconds = 120.0  # of scores
TRIGGERS, ALERTS, SAMPLES = 12, 40, 2000  # shown; shown; of each step's latency
RECENT = 200  # notices that a service reads when it starts
BATCH = 50  # records at once: a notice with a map is large
SPARE = 100e6  # bytes of free space below which the page warns
WAITING: Seconds = 10.0  # of a row in the outbox, from which on the page says that the bus is down
RELAY, MAP = "notice on the bus", "sky map"  # steps that the store tells of
Key = tuple[str, int, str]
ORDER = ("stream", "relay", "localiser", "cross-match", "status")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """A version of a superevent as it was told on the bus. `offset`: of its first record."""

    offset: int
    superevent_id: str
    version: int
    alert_type: str
    time: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "offset": self.offset, "superevent_id": self.superevent_id, "version": self.version,
            "alert_type": self.alert_type, "time": self.time,
        }  # fmt: skip


class Watch:
    """Args:
        store: file of the store; need not be there yet.
        bus: of the same system.
        clock: s since 1970.

    Attributes:
        alerts: the last, oldest first, each version once.
    """

    def __init__(self, store: Path, bus: Bus, clock: Any = time.time) -> None:
        self.store, self.bus, self.clock = store, bus, clock
        self.beats: dict[str, Beat] = {}
        self.latency: dict[str, deque[float]] = {}
        self.scores: dict[float, float | None] = {}
        self.alerts: deque[Alert] = deque(maxlen=ALERTS)
        self.origin = ""
        self.duplicates = 0
        self._missing = threading.Lock()
        bus.seek(GROUP, STAGES, time=clock() - MEMORY)
        bus.seek(GROUP, NOTICES, max(0, bus.end(NOTICES) - RECENT))

    def look(self) -> dict[str, Any]:
        """All that is known now."""
        for record in self._new(STAGES):
            self._hear(record)
        for record in self._new(NOTICES):
            self._count(record)
        now = self.clock()
        stored = self._stored()
        stages = [self._stage(beat, now) for beat in sorted(self.beats.values(), key=_place)]
        numbers = [beat.numbers for beat in self.beats.values()]
        last = max(self.scores, default=0.0)
        return {
            "role": ROLE,
            "trouble": self._trouble(stored["outbox"]),
            "origin": self.origin,
            "now": now,
            "gps": _first(numbers, "gps"),
            "real_time_factor": next(
                (each["real_time_factor"] for each in numbers if "real_time_factor" in each), None
            ),
            "threshold": _first(numbers, "threshold"),
            "stages": stages,
            "scores": [[gps, value] for gps, value in self.scores.items() if gps > last - SHOWN],
            "alerts": [alert.as_dict() for alert in reversed(self.alerts)],
            "duplicates_dropped": self.duplicates,
            "gaps": int(sum(each.get("gaps", 0) for each in numbers)),
            "latency": self._latencies(stored.pop("steps")),
            **stored,
        }

    def told_after(self, offset: int) -> list[Alert]:
        """All that the bus still has beyond an offset, oldest first, each version once; takes as long as there is much.

        Raises:
            BusError: the bus is down.
        """
        found: dict[Key, Alert] = {}
        with self._missing:  # of several clients, each has the group's place for itself
            self.bus.seek(MISSED, NOTICES, offset + 1)
            for record in self._new(NOTICES, MISSED):
                if key := _key(record):
                    found.setdefault(key, Alert(record.offset, *key, record.time))
        return list(found.values())

    def _new(self, topic: str, group: str = GROUP) -> Iterator[Record]:
        while True:
            try:
                records = self.bus.fetch(topic, group, BATCH)
            except RangeLost as lost:  # retention took what is too old to show
                self.bus.seek(group, topic, lost.next)
                continue
            yield from records
            if len(records) < BATCH:
                return

    def _hear(self, record: Record) -> None:
        try:
            beat = Beat.from_bytes(record.value)
        except StatusError as error:
            log.warning("%s", error)
            return
        self.beats[beat.stage] = beat
        self.origin = beat.origin or self.origin
        for step, values in beat.latency.items():
            self.latency.setdefault(step, deque(maxlen=SAMPLES)).extend(values)
        self.scores |= dict(beat.scores)
        self.scores = {gps: value for gps, value in self.scores.items() if gps > max(self.scores) - SHOWN}

    def _count(self, record: Record) -> None:
        """A version is shown once, however often it is delivered: what a relay sent twice is dropped, and counted."""
        key = _key(record)
        if key is None:
            return
        if key in [(alert.superevent_id, alert.version, alert.alert_type) for alert in self.alerts]:
            self.duplicates += 1
        else:
            self.alerts.append(Alert(record.offset, *key, record.time))

    def _stage(self, beat: Beat, now: float) -> dict[str, Any]:
        silent = max(0.0, now - beat.time)
        health = {"died": "down", "ended": "ended", "waiting": "waiting", "starting": "starting"}.get(beat.state, "ok")
        if health not in ("down", "ended") and silent > LATE:
            health = "lost" if silent > LOST else "late"
        return {
            "name": beat.stage, "health": health, "silent": silent, "pid": beat.pid, "note": beat.note,
            "restarts": beat.restarts, "lag": beat.lag, "queue": beat.queue,
        }  # fmt: skip

    def _latencies(self, steps: Mapping[str, list[float]]) -> list[dict[str, Any]]:
        return [
            {"step": step, "n": len(values), "p50": _percentile(values, 50), "p99": _percentile(values, 99)}
            for step, values in {**self.latency, **steps}.items()
            if len(values)
        ]

    def _trouble(self, outbox: Mapping[str, float]) -> str:
        """What a person has to mend, where there is something."""
        said = []
        free = shutil.disk_usage(self.store.parent).free if self.store.parent.is_dir() else math.inf
        if free < SPARE:
            said.append(
                f"{free / 1e6:,.0f} MB are left on the disk of {self.store.parent}: free some space; what cannot be "
                "written is tried again, nothing is lost"
            )
        if outbox["oldest"] > WAITING:
            said.append(
                f"{outbox['waiting']} rows wait to be sent, the oldest for {outbox['oldest']:,.0f} s: the bus or its "
                "relay is down; they are sent in order when it is back"
            )
        return "; ".join(said)

    def _stored(self) -> dict[str, Any]:
        """What the store says; nothing where it is not made yet."""
        nothing: dict[str, Any] = {
            "triggers": [], "superevent": None, "outbox": {"waiting": 0, "oldest": 0.0}, "alerts_per_version": {},
            "steps": {},
        }  # fmt: skip
        try:
            connection = _read_only(self.store)
        except sqlite3.OperationalError:
            return nothing
        try:
            waiting, oldest = connection.execute("SELECT count(*), min(made) FROM outbox WHERE sent IS NULL").fetchone()
            return {
                "triggers": _triggers(connection),
                "superevent": _latest(connection),
                "outbox": {"waiting": waiting, "oldest": max(0.0, self.clock() - oldest) if waiting else 0.0},
                "alerts_per_version": _versions(connection),
                "steps": _steps(connection),
            }
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # another process is making it
                return nothing
            raise StatusError(f"{self.store} cannot be read ({error}): is it a store of alerts?") from error
        except sqlite3.DatabaseError as error:
            raise StatusError(f"{self.store} is damaged or no store of alerts ({error})") from error
        finally:
            connection.close()

    def sky_map(self, id: str, version: int) -> bytes | None:
        """The map's file of a version; None where it has none."""
        try:
            connection = _read_only(self.store)
        except sqlite3.OperationalError:
            return None
        try:
            sql = "SELECT fits FROM version WHERE superevent = ? AND version = ?"
            row = connection.execute(sql, (id, version)).fetchone()
        finally:
            connection.close()
        return row[0] if row else None


def _key(record: Record) -> Key | None:
    """Superevent, version and type of alert; None, and logged, where a record does not say them."""
    try:
        return record.headers["superevent_id"], int(record.headers["version"]), record.headers["alert_type"]
    except (KeyError, ValueError):
        log.warning("%s: record %d does not say which notice it is", record.topic, record.offset)
        return None


def _read_only(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    connection.execute("PRAGMA query_only=ON")
    return connection


def _triggers(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """The last candidates, newest first: of each superevent the one that its latest version prefers."""
    sql = (
        "SELECT superevent, content, alert_type FROM version v JOIN superevent s ON s.id = v.superevent WHERE "
        "version = (SELECT max(version) FROM version WHERE superevent = v.superevent) ORDER BY opened DESC LIMIT ?"
    )
    found = []
    for id, content, alert_type in connection.execute(sql, (TRIGGERS,)):
        preferred = json.loads(content)["preferred"]
        rate = FalseAlarmRate(preferred["far"], preferred["far_is_upper_limit"])
        found.append(
            {"superevent_id": id, "alert_type": alert_type, "far_text": str(rate)}
            | {key: preferred[key] for key in ("gps", "utc", "statistic", "far", "far_is_upper_limit", "instruments")}
        )
    return found


def _latest(connection: sqlite3.Connection) -> dict[str, Any] | None:
    """The superevent whose sky map was made last, with where it is."""
    sql = "SELECT superevent, version, content FROM version WHERE fits IS NOT NULL ORDER BY rowid DESC LIMIT 1"
    row = connection.execute(sql).fetchone()
    if row is None:
        return None
    content = json.loads(row[2])
    place = content["localisation"]
    return {
        "id": row[0], "version": row[1], "utc": content["preferred"]["utc"],
        "ra": place["ra"], "dec": place["dec"], "radius": place["radius"],
    }  # fmt: skip


def _versions(connection: sqlite3.Connection) -> dict[str, int]:
    """How many superevents have come to version 1, 2, ..."""
    rows = connection.execute("SELECT version, count(*) FROM version GROUP BY version ORDER BY version")
    return {str(version): count for version, count in rows}


def _steps(connection: sqlite3.Connection) -> dict[str, list[float]]:
    """Durations that the outbox tells of: from a row's making to its sending, from a first version to its map.

    The store's indices answer alone: a look, twice a second, must not read a day of sky maps.
    """
    sent = "SELECT sent - made FROM outbox WHERE sent IS NOT NULL ORDER BY sent DESC LIMIT ?"
    maps = (
        "SELECT min(o.made) - (SELECT min(made) FROM outbox WHERE key = o.key) FROM outbox o JOIN version v "
        "ON v.superevent = o.key AND v.version = json_extract(o.headers, '$.version') WHERE v.alert_type = 'INITIAL' "
        "GROUP BY o.key ORDER BY min(o.number) DESC LIMIT ?"
    )
    steps = {name: [x for (x,) in connection.execute(sql, (SAMPLES,))] for name, sql in ((RELAY, sent), (MAP, maps))}
    return {name: values for name, values in steps.items() if values}


def _first(numbers: list[dict[str, float]], name: str) -> float | None:
    return next((each[name] for each in numbers if name in each), None)


def _percentile(values: Any, q: float) -> float:
    return float(np.percentile(np.fromiter(values, dtype=np.float64), q))


def _place(beat: Beat) -> tuple[int, str]:
    return ORDER.index(beat.stage) if beat.stage in ORDER else len(ORDER), beat.stage
