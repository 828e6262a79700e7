"""E9: how many survey alerts a second pass the filter, through the durable log.

Packets like those of ZTF wait on the bus, the filter takes them all. Its rate is counted by wall clock, and by this
process's own CPU time: the wall clock is also of whatever else the machine does.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from mma_realtime.bus.base import SURVEY, Row
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.external import spot
from mma_realtime.crossmatch.filter import BATCH, SurveyFilter
from mma_realtime.crossmatch.joint import OPTICAL
from mma_realtime.crossmatch.made_up import packets
from mma_realtime.crossmatch.survey import Region
from mma_realtime.gw.units import GPS

GPS_AT: GPS = 1187008882.43
DIFFERENT = 500  # packets that are made; they come again and again
SIZE = 60_000  # bytes of images in each
PLACES = {"S1": (197.45, -23.38, 5.0), "S2": (40.0, 20.0, 15.0), "S3": (300.0, 60.0, 2.0)}  # deg, and error radius


def regions() -> dict[str, Region]:
    """Those of three superevents."""
    return {name: Region(spot(*place), GPS_AT, OPTICAL) for name, place in PLACES.items()}


def filter_rate(folder: Path, count: int = 12_000) -> dict[str, float]:
    """The filter alone, on packets that wait.

    Args:
        folder: for the bus.
        count: of packets.

    Returns:
        `survey/packets`, `survey/matched`, `survey/packet_bytes` (mean), `alerts_per_second` (of one core's time),
        `survey/wall_alerts_per_second` (by the clock).

    Raises:
        BusError: no space.
    """
    rows: list[Row] = [("ztf", content, {}) for content, _ in packets(min(DIFFERENT, count), 1, GPS_AT, SIZE)]
    with SqliteLog(folder / "drained.sqlite") as log:
        waiting = 0
        while waiting < count:
            some = rows[: count - waiting]
            log.append_many(SURVEY, some)
            waiting += len(some)
        worker = SurveyFilter(log, regions(), batch=BATCH)
        wall, cpu, done, matched = time.perf_counter(), time.process_time(), 0, 0
        while (step := worker.step()).read:
            done, matched = done + step.read, matched + step.matched
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "survey/packets": float(done), "survey/matched": float(matched),
        "survey/packet_bytes": float(np.mean([len(content) for _, content, _ in rows])),
        "alerts_per_second": done / cpu, "survey/wall_alerts_per_second": done / wall,
    }  # fmt: skip
