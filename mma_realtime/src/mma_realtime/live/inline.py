"""All stages as threads of one process."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from mma_realtime.alerts.database import TryAgain
from mma_realtime.alerts.outbox import relay
from mma_realtime.bus.base import EXTERNAL, NOTICES
from mma_realtime.crossmatch.matcher import GROUP
from mma_realtime.errors import AlertError, BusError
from mma_realtime.gw.units import Seconds
from mma_realtime.live import stages
from mma_realtime.live.system import STORE, System, position
from mma_realtime.status import serve
from mma_realtime.status.beats import Heart
from mma_realtime.status.watch import Watch

LOOK: Seconds = 0.1
LAST: Seconds = 30.0  # that what is found last gets for its map and its way onto the bus, after the strain has ended


def run(system: System, bound: socket.socket, token: str, stop: threading.Event, seconds: Seconds | None) -> str:
    """Until the strain or the time ends, or `stop` is set; what was done, in a line.

    Args:
        bound: where the status service listens; token: that it asks for.
        seconds: to run; None: no end.

    Raises:
        UserError: that of the stage that ended with it.
    """
    ending = threading.Event()
    failed: list[Exception] = []

    def stage(name: str) -> None:
        try:
            stages.run(name, system, ending)
        except Exception as error:
            failed.append(error)

    threads = {
        name: threading.Thread(target=stage, args=(name,), name=name, daemon=True) for name in stages.STAGES_IN_ORDER
    }
    begin = time.monotonic()
    with system.bus() as bus, serve.service(bound, Watch(system.folder / STORE, bus), token):
        heart = Heart(bus, "status")
        for thread in threads.values():
            thread.start()
        while not failed and threads["stream"].is_alive() and not over(stop, begin, seconds):
            heart.beat()
            stop.wait(LOOK)
        until = time.monotonic() + LAST
        while not failed and not over(stop, begin, seconds) and time.monotonic() < until and left(system):
            heart.beat()
            stop.wait(LOOK)
        ending.set()
        for thread in threads.values():
            thread.join()
        heart.beat("ended", now=True)
    if failed:
        raise failed[0]
    return summary(system)


def over(stop: threading.Event, begin: float, seconds: Seconds | None) -> bool:
    return stop.is_set() or (seconds is not None and time.monotonic() - begin >= seconds)


def left(system: System) -> bool:
    """Whether something that was found waits for its map, for the bus, or for being compared with others' events."""
    try:
        with system.store() as store, system.bus() as bus:
            made = store.rows_made()
            if store.waiting(1) or store.unlocated() or any(bus.behind(topic, GROUP) for topic in (NOTICES, EXTERNAL)):
                return True
            return store.rows_made() > made  # a coincidence was told between these looks
    except (TryAgain, BusError):  # locked, or out of space: what waits there will go on
        return True


def summary(system: System) -> str:
    """What was done; sends what a stage wrote after the relay had ended."""
    with system.store() as store, system.bus() as bus:
        with contextlib.suppress(BusError, AlertError):
            relay(store, bus)
        found = store.superevents()
        versions = sum(len(store.versions(id)) for id in found)
        waiting = len(store.waiting(10**6))
        done = position(store, system.feed)
    rest = f"; {waiting} rows of the outbox wait for the next start" if waiting else ""
    return f"{done:,.0f} s searched, {len(found)} superevents in {versions} versions{rest}"
