"""A process for each stage, and a small supervisor that starts again what dies.

A stage that dies is started again after 0.5 s, then ever later up to 10 s; what ran for a minute counts as well again.
One that dies five times at once has something that no restart mends: the system ends and says what it said. Stages end
when they are told to, and when their supervisor dies: the end of their standard input tells them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from mma_realtime.bus.base import Bus
from mma_realtime.errors import StatusError
from mma_realtime.gw.units import Seconds
from mma_realtime.live import stages
from mma_realtime.live.inline import LAST, left, over, summary
from mma_realtime.live.system import STORE, System
from mma_realtime.status import serve
from mma_realtime.status.beats import Heart
from mma_realtime.status.watch import Watch

FIRST, LONGEST, WELL = 0.5, 10.0, 60.0  # s: pauses before a restart; of life, after which it counts as well
MOST = 5  # deaths in a row without a well life between them, each younger than `YOUNG`
YOUNG: Seconds = 10.0
LOOK, GRACE = 0.1, 10.0  # s: between two looks; until a stage that does not end is killed
NAMES = (*stages.STAGES_IN_ORDER, "status")


@dataclass
class Child:
    """A stage's process, as often as it has to be started."""

    name: str
    command: list[str]
    log: Path
    fds: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None
    restarts: int = -1
    started: float = 0.0
    due: float = 0.0
    pause: Seconds = FIRST
    young: int = field(default=0)
    ended: bool = False

    def start(self) -> None:
        self.restarts += 1
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "--restarts", str(self.restarts)], stdin=subprocess.PIPE, stdout=log, stderr=log,
                pass_fds=self.fds, start_new_session=True,
            )  # fmt: skip

    def died(self, status: int) -> str:
        """Plans the next start; what to say of it."""
        lived = time.monotonic() - self.started
        self.young = self.young + 1 if lived < YOUNG else 0
        self.pause = FIRST if lived > WELL else min(LONGEST, self.pause * (2 if self.restarts else 1))
        self.due, self.process = time.monotonic() + self.pause, None
        how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"{how}; starts again in {self.pause:g} s"

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def run(
    system: System, bound: socket.socket, token_file: Path | None, stop: threading.Event, seconds: Seconds | None
) -> str:
    """Until the strain or the time ends, or `stop` is set; what was done, in a line.

    Args:
        bound: where the status service listens: it stays open while that service is started again.
        token_file: as given to the command.
        seconds: to run; None: no end.

    Raises:
        StatusError: a stage that dies at once, again and again.
    """
    base = [sys.executable, "-m", "mma_realtime.live", "--state", str(system.folder)]
    base += ["--token-file", str(token_file)] if token_file else []
    children = [
        Child(
            name, [*base, "--stage", name, *(["--fd", str(bound.fileno())] if name == "status" else [])],
            system.folder / f"{name}.log", (bound.fileno(),) if name == "status" else (),
        )
        for name in NAMES
    ]  # fmt: skip
    begin, until = time.monotonic(), float("inf")
    with system.bus() as bus:
        try:
            while not over(stop, begin, seconds) and time.monotonic() < until:
                for child in children:
                    _tend(child, bus)
                if children[0].ended:  # the stream: what it found last gets its map, and its way onto the bus
                    until = min(until, time.monotonic() + LAST)
                    if not left(system):
                        break
                stop.wait(LOOK)
        finally:
            _end(children)
            for child in children:
                Heart(bus, child.name, max(0, child.restarts)).beat("ended", now=True)
    return summary(system)


def _tend(child: Child, bus: Bus) -> None:
    """Starts what is due, and says what has died."""
    if child.process is None:
        if not child.ended and time.monotonic() >= child.due:
            child.start()
        return
    status = child.process.poll()
    if status is None:
        return
    if status == 0:
        child.ended, child.process = True, None
        return
    said = child.died(status)
    Heart(bus, child.name, max(0, child.restarts)).beat("died", said, now=True)
    if child.young >= MOST:
        raise StatusError(f"{child.name} died {MOST} times at once; the last it said: {child.last_words()}")


def _end(children: list[Child]) -> None:
    """All at once, then those that do not."""
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    until = time.monotonic() + GRACE
    for process in running:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_input_ends(stop: threading.Event) -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock a thread must not hold at the end
        pass
    stop.set()


def child(
    name: str, system: System, restarts: int, fd: int | None, token_file: Path | None, stop: threading.Event
) -> int:
    """What a stage's process does."""
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_until_input_ends, args=(stop,), daemon=True).start()
    if name != "status":
        stages.run(name, system, stop, restarts)
        return 0
    assert fd is not None
    bound = socket.socket(fileno=fd)
    token = serve.token_for(bound.getsockname()[0], token_file)
    with system.bus() as bus, serve.service(bound, Watch(system.folder / STORE, bus), token):
        heart = Heart(bus, "status", restarts)
        while not stop.wait(LOOK):
            heart.beat()
    return 0
