"""E9: how many survey alerts a second pass the filter, through the durable log, while strain is searched beside it.

Packets like those of ZTF wait on the bus, the filter takes them all, again and again. Another process searches the
strain of two detectors as it comes, a second each second, and puts its notices onto the same bus. The filter's rate is
counted by wall clock, and by its own CPU time: the wall clock is also of whatever else the machine does.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mma_realtime.alerts.outbox import Store
from mma_realtime.alerts.pipeline import AlertPipeline
from mma_realtime.bus.base import SURVEY, Row
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.external import spot
from mma_realtime.crossmatch.filter import BATCH, GROUP, SurveyFilter
from mma_realtime.crossmatch.joint import OPTICAL
from mma_realtime.crossmatch.made_up import packets
from mma_realtime.crossmatch.survey import Region
from mma_realtime.errors import AlertError
from mma_realtime.evaluation.latency import STARTING, relayed, wait_for
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.live.feed import GPS_START, Simulated, Stretch, StretchSource
from mma_realtime.search import report
from mma_realtime.search.scores import conditioner_for

GPS_AT: GPS = 1187008882.43
DIFFERENT = 500  # packets that are made; they come again and again
SIZE = 60_000  # bytes of images in each
PASSES = 10  # times that the filter takes them all
LEAD: Seconds = 150.0  # of strain that is searched at once before: from then on every hop has its scores
STRAIN = 3600  # s of it that are there
PLACES = {"S1": (197.45, -23.38, 5.0), "S2": (40.0, 20.0, 15.0), "S3": (300.0, 60.0, 2.0)}  # deg, and error radius


def regions() -> dict[str, Region]:
    """Those of three superevents."""
    return {name: Region(spot(*place), GPS_AT, OPTICAL) for name, place in PLACES.items()}


def filter_rate(folder: Path, count: int = 12_000, passes: int = PASSES, seed: int = 0) -> dict[str, float]:
    """The filter on packets that wait, beside a search.

    Args:
        folder: for the bus and the search's store.
        count: of packets. passes: how often the filter takes them all.
        seed: of the strain.

    Returns:
        `survey/packets` that were filtered, `survey/matched`, `survey/packet_bytes` (mean), `alerts_per_second` (by the
        clock), `survey/alerts_per_core_second` (of the filter's CPU time), `survey/search_real_time`: s of strain that
        were searched in a second meanwhile, 1 where the search kept up.

    Raises:
        BusError: no space. SearchError: no search model. AlertError: the search's process does not live.
    """
    rows: list[Row] = [("ztf", content, {}) for content, _ in packets(min(DIFFERENT, count), 1, GPS_AT, SIZE)]
    path = folder / "bus.sqlite"
    with SqliteLog(path) as log:
        waiting = 0
        while waiting < count:
            some = rows[: count - waiting]
            log.append_many(SURVEY, some)
            waiting += len(some)
        worker, done, matched = SurveyFilter(log, regions(), batch=BATCH), 0, 0
        with _searched(folder, seed) as searched:
            wall, cpu, strain = time.perf_counter(), time.process_time(), searched.value
            for _ in range(passes):
                log.seek(GROUP, SURVEY, 0)
                while (step := worker.step()).read:
                    done, matched = done + step.read, matched + step.matched
            wall, cpu, strain = time.perf_counter() - wall, time.process_time() - cpu, searched.value - strain
    return {
        "survey/packets": float(done), "survey/matched": float(matched),
        "survey/packet_bytes": float(np.mean([len(content) for _, content, _ in rows])),
        "alerts_per_second": done / wall, "survey/alerts_per_core_second": done / cpu,
        "survey/search_real_time": strain / wall,
    }  # fmt: skip


@contextlib.contextmanager
def _searched(folder: Path, seed: int) -> Iterator[Any]:
    """A search in a process of its own; gives the s of strain that it has searched, as a shared value."""
    context = multiprocessing.get_context("spawn")
    stop, begun, searched = context.Event(), context.Event(), context.Value("d", 0.0)
    process = context.Process(target=search_night, args=(folder, seed, stop, begun, searched), daemon=True)
    process.start()
    wait_for(lambda: begun.is_set() or not process.is_alive(), STARTING)
    try:
        yield searched
    finally:
        stop.set()
        process.join()
    if process.exitcode or not begun.is_set():
        raise AlertError(f"the search beside the filter ended with status {process.exitcode}")


def search_night(folder: Path, seed: int, stop: Any, begun: Any, searched: Any) -> None:
    """Searches simulated strain, the first `LEAD` at once and then as it comes, until `stop` is set.

    Args:
        folder: with the bus; for the store.
        begun: set when it has caught up. searched: s of strain, in hops of 1 s.
    """
    torch.set_num_threads(1)
    model, feed, parent = report.load_model(None), Simulated(seed), multiprocessing.parent_process()
    source = StretchSource(feed, Stretch("beside", GPS_START, GPS_START + STRAIN, 0), 1.0)
    with Store(folder / "store.sqlite") as store:
        pipeline = AlertPipeline(store, model, conditioner_for(model), source, feed.origin, "beside")
        with relayed(store, folder / "bus.sqlite"):
            caught_up = 0.0
            for block in source.blocks(0):
                pipeline.hop(block)
                searched.value += 1.0
                if searched.value < LEAD:
                    continue
                if not begun.is_set():
                    caught_up = time.monotonic() - searched.value
                    begun.set()
                stop.wait(max(0.0, caught_up + searched.value - time.monotonic()))
                if stop.is_set() or (parent is not None and not parent.is_alive()):
                    break
