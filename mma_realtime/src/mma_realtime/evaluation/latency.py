"""E9: from an event to its preliminary notice on the bus, step by step, while survey alerts come as fast as LSST's.

Strain goes through the real pipeline as fast as it goes. The latency of an event is then the strain that had to come
after it (which takes as long as it is, whatever the speed) and what the computer took from the last of it on. It is
counted from the merger, before the event's last sample. Beside it: does memory grow? That is asked of a process that
did nothing before.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mma_realtime.alerts.outbox import Store, keep_relaying
from mma_realtime.bus.base import NOTICES, SURVEY, Row
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.filter import SurveyFilter
from mma_realtime.crossmatch.joint import OPTICAL
from mma_realtime.crossmatch.made_up import LSST as LSST_SCHEMA
from mma_realtime.crossmatch.made_up import packets
from mma_realtime.crossmatch.survey import PacketReader, Region
from mma_realtime.errors import AlertError
from mma_realtime.gw.units import GPS, Hertz, Seconds
from mma_realtime.live.feed import GPS_START, Simulated, Stretch, StretchSource
from mma_realtime.live.timed import TimedPipeline
from mma_realtime.search import report
from mma_realtime.search.scores import conditioner_for
from mma_realtime.sky.skymap import SkyMap

LSST: Hertz = 350.0  # alerts a second, the mean of a night (section 12)
PACKET = 20_000  # bytes of images in each
RETAINED: Seconds = 5.0  # of survey alerts on the bus
LONGEST: Seconds = 10.0  # that the last notice may take onto the bus
STARTING: Seconds = 120.0  # that the survey's process may take to begin
MEMORY_EVERY = 10  # s of strain
EVENT, BUS = "last strain needed", "onto the bus"


@dataclass
class Latency:
    """What was measured.

    Attributes:
        total: s from the merger to the preliminary notice on the bus, of each event.
        steps: s, by step.
        memory: (s of strain, bytes resident), `MEMORY_EVERY` apart.
        strain, wall: s searched, and that it took, without making the strain. survey: alerts filtered meanwhile.
    """

    total: list[Seconds] = field(default_factory=list)
    steps: dict[str, list[Seconds]] = field(default_factory=dict)
    memory: list[tuple[Seconds, int]] = field(default_factory=list)
    strain: Seconds = 0.0
    wall: Seconds = 0.0
    survey: int = 0

    @property
    def growth(self) -> float:
        """MB per hour of strain: a line through the second half, when every buffer has its size."""
        half = np.array([each for each in self.memory if each[0] >= self.strain / 2])
        return float(np.polyfit(half[:, 0] / 3600, half[:, 1] / 1e6, 1)[0]) if len(half) > 2 else math.nan

    def as_dict(self) -> dict[str, float]:
        """Metrics by name; s, but for the counts and the memory."""
        out = {"latency_p50": _at(self.total, 50), "latency_p99": _at(self.total, 99), "events": float(len(self.total))}
        for step, values in self.steps.items():
            out |= {f"latency/{step}_p50": _at(values, 50), f"latency/{step}_p99": _at(values, 99)}
        speed = self.strain / self.wall if self.wall else math.nan
        most = max((size for _, size in self.memory), default=math.nan)
        return out | {
            "memory_mb_per_hour": self.growth, "memory_mb_most": most / 1e6,
            "real_time_factor": speed, "survey_alerts": float(self.survey),
        }  # fmt: skip


def measure_alone(folder: Path, seed: int, **settings: Any) -> Latency:
    """`measure_latency` in a process of its own, new for it.

    A process that ran something else before holds memory of that, and gives freed memory to the search again: neither
    the size nor the growth of its memory would be the search's own.

    Args:
        folder, seed, settings: as of `measure_latency`, but `progress`.

    Raises:
        AlertError: the process was killed. Others as `measure_latency`.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, context, _end_with_parent) as pool:
            return pool.submit(measure_latency, folder, seed, **settings).result()
    except BrokenProcessPool as error:
        raise AlertError("the process that measures latency was killed (out of memory?): run it again") from error


def _end_with_parent() -> None:
    """Has a process end when the one that started it has, even by kill -9."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def measure_latency(
    folder: Path, seed: int, duration: int = 3600, survey: Hertz = LSST, hop: Seconds = 1.0,
    progress: Callable[[Seconds], None] = lambda seconds: None,
) -> Latency:  # fmt: skip
    """An hour of simulated strain through search, store, relay and bus, beside a survey's alerts.

    Args:
        folder: an empty one, for store and bus.
        seed: of the strain.
        duration: s of it.
        survey: alerts a second, in a process of their own; 0: none.
        hop: s of strain that come at once.
        progress: called with s of strain.

    Raises:
        SearchError: no search model. AlertError, BusError: no space. AlertError: the survey's process does not live.
    """
    torch.set_num_threads(1)
    model, feed = report.load_model(None), Simulated(seed)
    source = StretchSource(feed, Stretch("latency", GPS_START, GPS_START + duration, 0), hop)
    out, told = Latency(strain=float(duration)), {}
    with Store(folder / "store.sqlite") as store, SqliteLog(folder / "bus.sqlite") as bus:
        pipeline = TimedPipeline(store, model, conditioner_for(model), source, feed.origin, "latency")
        with _surveyed(folder / "bus.sqlite", survey, out), relayed(store, folder / "bus.sqlite"):
            for block in source.blocks(0):
                due, begin = time.time(), time.monotonic()
                for event in pipeline.hop(block):
                    if event.version == 1:
                        told[event.id] = (block.gps + hop - event.preferred.gps, due)
                out.wall += time.monotonic() - begin
                if block.gps >= GPS_START + MEMORY_EVERY * len(out.memory):
                    out.memory.append((block.gps - GPS_START, resident()))
                progress(hop)
            wait_for(lambda: not store.waiting(1))
        out.steps = pipeline.took
        out.steps[EVENT] = [waited for waited, _ in told.values()]
        out.steps[BUS] = store.sending_times()
        seen = set()
        while records := bus.fetch(NOTICES, "latency"):
            for record in records:
                id = record.headers["superevent_id"]
                if record.headers["version"] == "1" and id in told and id not in seen:
                    seen.add(id)
                    waited, due = told[id]
                    out.total.append(waited + record.time - due)
    return out


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _at(values: list[Seconds], q: float) -> float:
    return float(np.percentile(values, q)) if values else math.nan


def wait_for(done: Callable[[], bool], longest: Seconds = LONGEST) -> None:
    """Until it is done, or for as long."""
    until = time.monotonic() + longest
    while not done() and time.monotonic() < until:
        time.sleep(0.01)


@contextlib.contextmanager
def relayed(store: Store, bus: Path) -> Iterator[None]:
    """A thread that sends the store's outbox onto the bus."""
    stop = threading.Event()

    def relay() -> None:
        with SqliteLog(bus) as log:
            keep_relaying(store, log, stop.wait, idle=0.02)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def _surveyed(bus: Path, rate: Hertz, out: Latency) -> Iterator[None]:
    """A survey and the filter of its alerts in a process of their own, on the same bus."""
    if not rate:
        yield
        return
    context = multiprocessing.get_context("spawn")
    stop, count = context.Event(), context.Value("q", 0)
    process = context.Process(target=survey_night, args=(bus, rate, GPS_START, stop, count), daemon=True)
    process.start()
    wait_for(lambda: count.value > 0 or not process.is_alive(), STARTING)
    try:
        yield
    finally:
        stop.set()
        process.join()
        out.survey = count.value
    if process.exitcode or not out.survey:
        raise AlertError(f"the survey's process ended with status {process.exitcode}, {out.survey} alerts filtered")


def survey_night(bus: Path, rate: Hertz, gps: GPS, stop: Any, count: Any) -> None:
    """Appends `rate` alerts a second and filters them, until `stop` is set; `count`: alerts filtered.

    Raises:
        AlertError: an alert could not be read.
    """
    some = [content for content, _ in packets(200, 0, gps, PACKET, "LSST")]
    with SqliteLog(bus) as log:
        regions = {"all": Region(SkyMap.isotropic(), gps, OPTICAL, 0.5)}
        filtering = SurveyFilter(log, regions, reader=PacketReader({1: LSST_SCHEMA}))
        begin, sent, kept = time.monotonic(), 0, time.time()
        parent = multiprocessing.parent_process()
        while not stop.is_set() and (parent is None or parent.is_alive()):  # a killed run leaves no survey behind
            due = int((time.monotonic() - begin) * rate) - sent
            if due:
                rows: list[Row] = [("", some[(sent + k) % len(some)], {}) for k in range(min(due, 500))]
                log.append_many(SURVEY, rows)
                sent += len(rows)
            step = filtering.step()
            if step.dead:
                raise AlertError(f"{step.dead} of {step.read} made-up alerts could not be read: this is no load")
            count.value += step.read
            if time.time() - kept > RETAINED:
                kept = time.time()
                log.delete_before(SURVEY, kept - RETAINED)
            stop.wait(0.05)
