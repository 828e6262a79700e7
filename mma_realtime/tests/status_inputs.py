"""A store and a bus as a running system leaves them, for tests of the status service."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
from mma_realtime.alerts.notice import headers_of
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.outbox import relay
from mma_realtime.alerts.store import Store
from mma_realtime.alerts.superevent import Candidate, Localisation, Superevent
from mma_realtime.bus.base import NOTICES
from mma_realtime.bus.log import SqliteLog
from mma_realtime.sky import healpix
from mma_realtime.sky.fits import to_bytes
from mma_realtime.sky.skymap import SkyMap
from mma_realtime.status.beats import Heart

GPS = 1_187_008_882.0
MODEL = "ab" * 32


def candidate(number: int = 0, statistic: float = 12.5) -> Candidate:
    return Candidate(
        GPS + 30 * number, f"2017-08-17T12:4{number}:04.400Z", statistic, 3.1e-7, True, ("H1", "L1"), 0.25, MODEL
    )


def spot(ra: float = 197.4, dec: float = -23.4, sigma: float = 9.0) -> Localisation:
    """A map like a round spot; all in deg."""
    lon, lat = healpix.centre(32, np.arange(12 * 32**2))
    a, b = math.radians(ra), math.radians(dec)
    apart = np.arccos((np.sin(lat) * np.sin(b) + np.cos(lat) * np.cos(b) * np.cos(lon - a)).clip(-1, 1))
    sky = SkyMap.from_flat(np.exp(-0.5 * (apart / math.radians(sigma)) ** 2))
    return Localisation(to_bytes(sky), ra, dec, 2.1 * sigma)


def tell(store: Store, superevent: Superevent, number: int | None = None) -> Superevent:
    """Writes a version as the pipeline does; `number`: it is a new superevent, the day's so-and-so-manieth."""
    with store.transaction() as write:
        if number is not None:
            write.open(superevent, number)
        write.version(superevent)
        write.send(NOTICES, superevent.id, b"{}", headers_of(superevent, Origin.SIMULATED))
    return superevent


def system(folder: Path) -> tuple[Store, SqliteLog]:
    """One superevent in two versions, both on the bus, and four stages that run."""
    store, bus = Store(folder / "store.sqlite"), SqliteLog(folder / "bus.sqlite")
    first = tell(store, Superevent.opened(candidate(), 0), 0)
    tell(store, first.located(spot()))
    relay(store, bus)
    stream = Heart(bus, "stream", origin="simulated")
    stream.numbers = {"gps": GPS + 100, "real_time_factor": 1.0, "threshold": 6.0, "gaps": 3}
    stream.took("search", [0.04, 0.05, 0.06])
    stream.scores = [(GPS - 20 + 0.25 * k, None if 200 < k < 220 else _score(k)) for k in range(480)]
    stream.beat(lag=0.4, queue=0, now=True)
    for name in ("relay", "localiser", "cross-match"):
        Heart(bus, name).beat(now=True, lag=0.0)
    return store, bus


def _score(k: int) -> float:
    return float(-6 + 3 * math.sin(k / 3) * math.cos(k / 7) + 19 * math.exp(-((k - 320) ** 2) / 8))


def wait_for(condition, seconds: float = 10.0) -> None:  # type: ignore[no-untyped-def]
    """Until it holds; an assertion error where it never does."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)
