"""What each stage says of itself, once a second, on the bus: the status service knows stages only by this.

A beat replaces the one before it; numbers are totals since the stage began, `latency` and `scores` what came since its
last beat.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from mma_realtime.bus.base import Bus
from mma_realtime.errors import BusError, StatusError
from mma_realtime.gw.units import GPS, Seconds

STAGES = "live.stages"  # topic
EVERY: Seconds = 1.0
LATE, LOST = 15.0, 60.0  # s without a beat; a sky map takes up to ten, in which its stage says nothing
STATES = ("starting", "running", "waiting", "died", "ended")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Beat:
    """Args:
    stage: its name.
    state: one of `STATES`; `waiting`: for something outside, `note` says for what.
    time: s since 1970.
    pid: of its process.
    note: a line for a person.
    restarts: by the supervisor, since the system was started.
    lag: s by which it is behind what it reads. queue: rows that wait for it.
    numbers: totals and levels by name.
    latency: s that steps took, by step.
    scores: (GPS s, statistic) of windows; None: the window has no score.
    origin: of the strain, where the stage knows it.
    """

    stage: str
    state: str
    time: float
    pid: int
    note: str = ""
    restarts: int = 0
    lag: Seconds | None = None
    queue: int | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    latency: dict[str, list[Seconds]] = field(default_factory=dict)
    scores: list[tuple[GPS, float | None]] = field(default_factory=list)
    origin: str = ""

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Beat:
        """Raises:
        StatusError: it is no beat.
        """
        try:
            beat = cls(**json.loads(content))
        except (ValueError, TypeError) as error:
            raise StatusError(f"{content[:80]!r} is no stage's beat: {error}") from None
        if not isinstance(beat.stage, str) or beat.state not in STATES:
            raise StatusError(f"{content[:80]!r} is no stage's beat: its stage or state is none")
        return beat


class Heart:
    """Sends a stage's beats, at most one in `every` s. A bus that takes none stops no stage.

    Args:
        bus: of the system.
        stage: name.
        restarts: of the stage so far.
        origin: of the strain, where it is known.
        every: s between beats.
    """

    def __init__(self, bus: Bus, stage: str, restarts: int = 0, origin: str = "", every: Seconds = EVERY) -> None:
        self.bus, self.stage, self.restarts, self.origin, self.every = bus, stage, restarts, origin, every
        self.numbers: dict[str, float] = {}
        self.latency: dict[str, list[Seconds]] = {}
        self.scores: list[tuple[GPS, float | None]] = []
        self._last = 0.0

    def took(self, step: str, seconds: Iterable[Seconds]) -> None:
        """Durations of a step."""
        self.latency.setdefault(step, []).extend(seconds)

    def beat(self, state: str = "running", note: str = "", *, now: bool = False, **more: Any) -> None:
        """A beat, if one is due or `now` is set; `more`: lag and queue."""
        clock = time.monotonic()
        if not now and clock - self._last < self.every:
            return
        self._last = clock
        latency = {step: values[-200:] for step, values in self.latency.items()}
        beat = Beat(
            self.stage, state, time.time(), os.getpid(), note, self.restarts, numbers=dict(self.numbers),
            latency=latency, scores=self.scores[-2400:], origin=self.origin, **more,
        )  # fmt: skip
        self.latency, self.scores = {}, []
        try:
            self.bus.append(STAGES, self.stage, beat.to_bytes(), {})
        except BusError as error:
            log.warning("%s: no beat: %s", self.stage, error)
