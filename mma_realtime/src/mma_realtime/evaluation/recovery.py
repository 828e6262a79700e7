"""E10: a replay is killed with SIGKILL at random times and goes on; what is told is what an undisturbed one tells.

Simulated strain with injections runs twice through `mma_realtime.alerts.replay`, as processes of their own: once left
alone, once killed. A subscriber that drops duplicates reads both buses.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mma_realtime.alerts.outbox import Deduplicator
from mma_realtime.bus.base import NOTICES
from mma_realtime.bus.log import SqliteLog
from mma_realtime.data.challenge import generate
from mma_realtime.data.strain import write_npz
from mma_realtime.errors import AlertError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.times import gps_from_utc

LOUDER = 2.0  # signals at half the challenge's distances: most are above threshold, and there is something to lose
NEAR: Seconds = 0.5  # of a superevent to its injection
STUCK: Seconds = 300.0  # of a process that makes no progress
Told = tuple[str, int, str, Any]  # superevent, version, alert type, the notice's event


@dataclass(frozen=True)
class Recovery:
    """What was measured.

    Args:
        kills: processes killed while they worked.
        injections: in the strain. alerted: of them, told by the undisturbed replay: those above threshold.
        alerted_once: of those, told by the killed one, as its subscriber heard it, in exactly one superevent.
        notices: of the undisturbed replay. missing, extra: of the killed one, in values or order, duplicates dropped.
        duplicates: records that the subscriber dropped.
        contiguous: offsets of the killed replay's bus have no gaps.
        recovery_s: from the start of a process to the first hop it commits, median. starts: of each.
        killed_s, injected_s, alerted_s: where in the strain the kills, the injections, and those of them that are told
            by the undisturbed replay, lie.
    """

    kills: int
    injections: int
    alerted: int
    alerted_once: int
    notices: int
    missing: int
    extra: int
    same_order: bool
    duplicates: int
    contiguous: bool
    recovery_s: Seconds
    starts: tuple[Seconds, ...] = ()
    killed_s: tuple[Seconds, ...] = ()
    injected_s: tuple[Seconds, ...] = ()
    alerted_s: tuple[Seconds, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Numbers by name."""
        return {key: value for key, value in asdict(self).items() if not isinstance(value, tuple)}

    def curves(self) -> dict[str, list[float]]:
        """Lists by name."""
        return {key: list(value) for key, value in asdict(self).items() if isinstance(value, tuple)}


def measure_recovery(
    folder: Path,
    seed: int,
    duration: int = 600,
    kills: int = 20,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Recovery:
    """Args:
        folder: empty, for the strain, stores and buses.
        seed: of strain and of the times of the kills.
        duration: s of strain.
        kills: at times uniform in the strain.
        checkpoint: search model; the cpu tier's where none is given.
        progress: called with the kills done.

    Raises:
        AlertError: a replay fails by itself, or makes no progress.
    """
    made = generate(duration, seed)
    signals = made.foreground.values - made.background.values
    write_npz(replace(made.foreground, values=made.background.values + LOUDER * signals), folder / "strain.npz")
    undisturbed, killed = _Replay(folder, "undisturbed", checkpoint), _Replay(folder, "killed", checkpoint)
    undisturbed.finish()
    rng = random.Random(seed)
    done = 0
    samples = made.foreground.sample_rate * duration
    for offset in sorted(rng.randrange(samples) for _ in range(kills)):
        done += killed.kill_after(offset, rng.uniform(0, 0.02))
        progress(done)
    killed.finish()
    before, after = undisturbed.told(), killed.told()
    alerted = [tc for tc in made.injections["tc"].tolist() if superevents_near(before, tc)]
    return Recovery(
        kills=done,
        injections=len(made.injections["tc"]),
        alerted=len(alerted),
        alerted_once=sum(len(superevents_near(after, tc)) == 1 for tc in alerted),
        notices=len(before),
        missing=sum(each not in after for each in before),
        extra=sum(each not in before for each in after) + len(after) - len({json.dumps(each) for each in after}),
        same_order=before == after,
        duplicates=killed.duplicates,
        contiguous=killed.contiguous(),
        recovery_s=float(np.median(killed.starts)) if killed.starts else 0.0,
        starts=tuple(killed.starts),
        killed_s=tuple(offset / made.foreground.sample_rate for offset in killed.killed_at),
        injected_s=tuple(tc - made.foreground.gps_start for tc in made.injections["tc"].tolist()),
        alerted_s=tuple(tc - made.foreground.gps_start for tc in alerted),
    )


def superevents_near(told: list[Told], tc: GPS) -> set[str]:
    """Superevents of which a subscriber was told that they lie at a merger's time, in any version."""
    return {id for id, _, _, event in told if event is not None and abs(gps_from_utc(event["time"]) - tc) < NEAR}


class _Replay:
    """A replay as processes, one after the other, on the same files."""

    def __init__(self, folder: Path, name: str, checkpoint: Path | None) -> None:
        self.store, self.bus = folder / f"{name}.store.db", folder / f"{name}.bus.db"
        self.seen = folder / f"{name}.seen.db"
        files = ["--store", str(self.store), "--bus", str(self.bus)]
        model = ["--checkpoint", str(checkpoint)] if checkpoint else []
        module = "mma_realtime.alerts.replay"
        self.command = [sys.executable, "-m", module, str(folder / "strain.npz"), *files, *model]
        self.starts: list[Seconds] = []
        self.killed_at: list[int] = []  # samples committed
        self.duplicates = 0

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self) -> None:
        """Lets it end by itself."""
        process = self._start()
        _, said = process.communicate()
        if process.returncode:
            raise AlertError(f"a replay failed by itself: {said.strip().splitlines()[-1:]}")

    def kill_after(self, offset: int, then: Seconds) -> bool:
        """Kills it `then` s after it has committed sample `offset`, and one hop at least; False: it had ended."""
        begun, first, process = time.monotonic(), self._offset(), self._start()
        reached = first
        while process.poll() is None and (reached <= first or reached < offset):
            if time.monotonic() - begun > STUCK:
                process.kill()
                raise AlertError(f"a replay made no progress in {STUCK:g} s, at sample {reached}")
            time.sleep(0.002)
            now = self._offset()
            if reached == first < now:
                self.starts.append(time.monotonic() - begun)
            reached = now
        time.sleep(then)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        if process.returncode > 0:
            raise AlertError(f"a replay failed by itself: {said.strip().splitlines()[-1:]}")
        if process.returncode != -signal.SIGKILL:
            return False
        self.killed_at.append(self._offset())
        return True

    def _offset(self) -> int:
        if not self.store.exists():
            return -1
        connection = sqlite3.connect(self.store, timeout=5.0)
        try:
            row = connection.execute("SELECT max(offset) FROM state").fetchone()
        except sqlite3.OperationalError:  # not yet made
            return -1
        finally:
            connection.close()
        return -1 if row[0] is None else int(row[0])

    def told(self) -> list[Told]:
        """What a subscriber gets of the bus."""
        out: list[Told] = []
        with SqliteLog(self.bus) as bus:
            seen = Deduplicator(self.seen)
            while records := bus.fetch(NOTICES, "subscriber", 1000):
                for record in records:
                    with seen.once(record) as first:
                        notice = json.loads(record.value)
                        if first:
                            version = int(record.headers["version"])
                            out.append((notice["superevent_id"], version, notice["alert_type"], notice["event"]))
                    bus.commit("subscriber", NOTICES, record.offset + 1)
            self.duplicates = seen.dropped
            seen.close()
        return out

    def contiguous(self) -> bool:
        """Whether the offsets of every topic are 0, 1, 2, ..."""
        with SqliteLog(self.bus) as bus:
            return all(
                [r.offset for r in bus.fetch(topic, "auditor", 10**6)] == list(range(bus.end(topic)))
                for topic in bus.topics()
            )
