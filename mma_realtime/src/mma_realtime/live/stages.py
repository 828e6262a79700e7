"""The stages (section 1). Each runs until it is told to stop, says with a beat a second that it lives, and goes on from
store and bus wherever it, or one before it, was killed.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable

import torch

from mma_realtime.alerts.database import TryAgain, patiently
from mma_realtime.alerts.outbox import keep_relaying
from mma_realtime.alerts.pipeline import MapWorker
from mma_realtime.alerts.place import localisation_of
from mma_realtime.alerts.store import Store
from mma_realtime.alerts.superevent import Localisation, Superevent
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.matcher import CrossMatcher
from mma_realtime.crossmatch.matcher import run as keep_matching
from mma_realtime.data.challenge import CURVE
from mma_realtime.data.strain import SAMPLE_RATE
from mma_realtime.errors import BusError, SearchError, SkyMapError
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.units import Seconds
from mma_realtime.live.feed import Stretch, StretchSource
from mma_realtime.live.retention import Retention
from mma_realtime.live.system import System
from mma_realtime.live.timed import TimedPipeline
from mma_realtime.localise import BAND, FILTER, MASS_RATIO, MASSES, localise_candidate
from mma_realtime.search.bank import template_bank
from mma_realtime.search.coincidence import combine
from mma_realtime.search.matched_filter import MatchedFilterSearch
from mma_realtime.search.scores import conditioner_for, informed, psd_of
from mma_realtime.status.beats import LOST, STAGES, Beat, Heart

Stage = Callable[[System, threading.Event, Heart], None]
FIT = 0.25  # s: the largest score of so long is shown
BEFORE, AFTER = 16, 3  # s of strain about an event that its sky map is made of
MATCH = 0.9  # minimal, of the map's bank: 159 templates instead of 450, and a second instead of six to make them
PATIENCE: Seconds = 20.0  # that a sky map waits for the strain after its event where no stream runs that could give it
TAIL = 400  # beats at the end of the bus: more than a minute's
PAUSE: Seconds = 0.1


def stream(system: System, stop: threading.Event, heart: Heart) -> None:
    """Strain to alerts: as the strain comes, or as fast as it goes. Ends with the strain."""
    torch.set_num_threads(1)  # windows of a hop are few: threads only wait for each other
    heart.beat("starting", "reads model and strain", now=True)
    feed, model = system.feed, system.model()
    heart.origin = feed.origin.value
    heart.numbers = {"gaps": 0, "threshold": model.recipe.threshold}
    busy: deque[tuple[Seconds, Seconds]] = deque(maxlen=60)  # s of strain, s of work
    with system.store() as store:
        for stretch in feed.stretches:
            conditioner = conditioner_for(model)
            if psd_of(stretch.gps_end - stretch.gps_start, "auto") == "file":
                conditioner = informed(conditioner, feed.strain(stretch.gps_start, stretch.gps_end), "auto")
            source = StretchSource(feed, stretch, system.settings.hop)
            pipeline = TimedPipeline(
                store, model, conditioner, source, feed.origin, stretch.name, wait=_patience(stop, heart)
            )
            if pipeline.finished and pipeline.offset >= (stretch.gps_end - stretch.gps_start) * SAMPLE_RATE:
                continue
            for block in source.blocks(pipeline.offset):
                done = stretch.before + (block.offset + block.values.shape[1]) / SAMPLE_RATE
                due = system.clock.due(done) if math.isfinite(system.clock.speed) else time.time()
                while (early := due - time.time()) > 0:
                    heart.beat(lag=0.0)
                    if stop.wait(min(early, 0.5)):
                        break
                if stop.is_set():
                    return
                begin = time.monotonic()
                told = pipeline.hop(block)
                heart.numbers["gaps"] += system.settings.hop * (not block.valid.all())
                busy.append((system.settings.hop, time.monotonic() - begin))
                waited = [pipeline.offset / SAMPLE_RATE + source.gps_start - each.preferred.gps for each in told]
                _say(heart, pipeline, busy, waited, due)
            pipeline.finish()


def _say(
    heart: Heart, pipeline: TimedPipeline, busy: deque[tuple[Seconds, Seconds]], waited: list[Seconds], due: float
) -> None:
    """What a hop gave.

    Args:
        waited: s of strain from each told event to the end of the block that told it.
        due: when the block came (s since 1970).
    """
    scores, took = pipeline.engine.scores, time.time() - due
    for step, seconds in pipeline.took.items():
        heart.took(step, seconds)
    pipeline.took.clear()
    heart.took("strain after the event", waited)
    heart.took("event to stored notice", [seconds + took for seconds in waited])
    heart.numbers["gps"] = pipeline.source.gps_start + pipeline.offset / SAMPLE_RATE
    heart.numbers["real_time_factor"] = sum(s for s, _ in busy) / max(1e-9, sum(w for _, w in busy))
    if scores is not None:
        network = combine(scores)
        for at in range(0, len(network), n := max(1, round(FIT / scores.hop))):
            largest = float(network[at : at + n].max())
            heart.scores.append((float(scores.times[at]), largest if math.isfinite(largest) else None))
    heart.beat(lag=max(0.0, took))


def relay(system: System, stop: threading.Event, heart: Heart) -> None:
    """The outbox onto the bus, in order."""
    with system.store() as store, system.bus() as bus:

        def wait(seconds: Seconds) -> bool:
            note = "the bus takes nothing: tries again, nothing is lost" if seconds > PAUSE else ""
            with contextlib.suppress(TryAgain):
                waiting = store.waiting(1000)
                lag = time.time() - waiting[0].made if waiting else 0.0
                heart.beat("waiting" if note else "running", note, lag=lag, queue=len(waiting))
            return stop.wait(min(seconds, 1.0))

        keep_relaying(store, bus, wait, idle=0.02)


def localiser(system: System, stop: threading.Event, heart: Heart) -> None:
    """Sky maps, as further versions of what was found."""
    torch.set_num_threads(1)
    heart.beat("starting", "makes the bank of templates", now=True)
    feed = system.feed
    bank = template_bank(MASSES, MASS_RATIO, design_curve(CURVE), *BAND, minimal_match=MATCH)
    search = MatchedFilterSearch(bank, SAMPLE_RATE, filter_length=FILTER)
    with system.store() as store, system.bus() as bus:

        def place(event: Superevent) -> Localisation:
            begin = time.monotonic()
            gps = event.preferred.gps
            stretch = next(each for each in feed.stretches if each.gps_start <= gps < each.gps_end)
            last = _arrived(store, bus, stretch, gps, stop, heart)
            waited = time.monotonic()
            heart.beat("running", f"maps {event.id}", now=True, queue=len(store.unlocated()))
            try:
                strain = feed.strain(max(stretch.gps_start, int(gps) - BEFORE), last)
                found = localisation_of(localise_candidate(search, strain, gps))
            except SearchError as error:
                raise SkyMapError(str(error)) from error
            heart.took("wait for strain of the map", [waited - begin])
            heart.took("making of the map", [time.monotonic() - waited])
            return found

        patience = _patience(stop, heart)
        worker = MapWorker(store, place, feed.origin, wait=patience, stopped=stop.is_set)
        while not stop.is_set():
            patiently(worker.work, patience)
            heart.beat(lag=0.0, queue=0)
            stop.wait(PAUSE)


class _Stopped(Exception):
    """The stage was told to stop while it waited."""


def _patience(stop: threading.Event, heart: Heart) -> Callable[[Seconds], None]:
    """How a stage waits for a store that is locked or out of space: it says so, and ends when it is told to."""

    def wait(seconds: Seconds) -> None:
        heart.beat("waiting", "the store is locked or out of space: tries again, nothing is lost", now=True)
        if stop.wait(seconds):
            raise _Stopped

    return wait


def _stream_runs(bus: SqliteLog) -> bool:
    """Whether the stream lives or is started again, as its beats say; a bus that is down says nothing against it."""
    try:
        bus.seek("localiser", STAGES, max(bus.first(STAGES), bus.end(STAGES) - TAIL))
        beats = [Beat.from_bytes(record.value) for record in bus.fetch(STAGES, "localiser", TAIL)]
    except BusError:
        return True
    last = next((beat for beat in reversed(beats) if beat.stage == "stream"), None)
    return last is not None and last.state != "ended" and time.time() - last.time < LOST


def _arrived(store: Store, bus: SqliteLog, stretch: Stretch, gps: float, stop: threading.Event, heart: Heart) -> int:
    """Waits until the strain has come that a map needs after its event; the GPS second up to which it has."""
    enough = min(math.ceil(gps) + AFTER, stretch.gps_end)
    until = time.monotonic() + PATIENCE
    while True:
        state = store.state(stretch.name)
        last = stretch.gps_start + (state[0] // SAMPLE_RATE if state else 0)
        if last >= enough:
            return enough
        if time.monotonic() > until:
            if not _stream_runs(bus):
                return last
            until = time.monotonic() + PATIENCE
        heart.beat("running", f"waits for the strain after GPS {gps:.1f}")
        if stop.wait(PAUSE):
            raise _Stopped


def crossmatch(system: System, stop: threading.Event, heart: Heart) -> None:
    """External notices and survey alerts against superevents; what they have in common is told in a further version."""
    reader, wait = system.packet_reader(), _patience(stop, heart)
    with (
        system.store() as store,
        system.bus() as bus,
        contextlib.closing(CrossMatcher(store, bus, system.feed.origin, wait=wait, reader=reader)) as matcher,
    ):
        retention = Retention(store, bus)

        def stopped(pause: Seconds) -> bool:
            heart.numbers = {"told": float(matcher.told), "lost": float(matcher.lost + matcher.survey.lost)}
            down = pause > PAUSE
            with contextlib.suppress(BusError, TryAgain):  # no space: it is tried again in a minute
                heart.beat(
                    "waiting" if down else "running", "the bus gives nothing: tries again" if down else "",
                    queue=matcher.behind(),
                )  # fmt: skip
                retention.keep()
            return stop.wait(min(pause, 1.0))

        keep_matching(matcher, stopped, idle=PAUSE)


STAGES_IN_ORDER: dict[str, Stage] = {
    "stream": stream, "relay": relay, "localiser": localiser, "cross-match": crossmatch,
}  # fmt: skip


def run(name: str, system: System, stop: threading.Event, restarts: int = 0) -> None:
    """A stage, from its first beat to its last; an error ends it, with a beat that says so."""
    with system.bus() as bus:
        heart = Heart(bus, name, restarts)
        heart.beat("starting", now=True)
        try:
            with contextlib.suppress(_Stopped):
                STAGES_IN_ORDER[name](system, stop, heart)
        except Exception as error:
            heart.beat("died", f"{type(error).__name__}: {error}"[:300], now=True)
            raise
        heart.beat("ended", "" if stop.is_set() else "the strain has ended", now=True)
