"""Files as if they were a stream: what `python -m mma_realtime.stream` runs, and can be stopped and go on.

A hole longer than a minute begins a new engine: noise from before it says nothing about noise after it.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from shared.runs.store import write_atomic

from mma_realtime.data.strain import Strain, replay
from mma_realtime.errors import SearchError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.search.coincidence import Trigger
from mma_realtime.search.conditioning import Conditioner
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.scores import conditioner_for
from mma_realtime.search.series import Scores, joined
from mma_realtime.search.stream import StreamEngine, StreamState

Noise = Literal["auto", "trailing", "file"]
SHORT: Seconds = 64.0  # a stretch as short as this has the PSD of all of it, else that of the seconds before
SNAPSHOT: Seconds = 10.0  # of the clock on the wall, between two snapshots at least


@dataclass
class Progress:
    """What a replay has done: scores of each stretch, triggers, and the engine that goes on.

    Args:
        finished: scores of stretches that are through. parts: of the one that is not.
        state: of the engine. hops: pushed so far.
    """

    triggers: list[Trigger] = field(default_factory=list)
    finished: list[Scores] = field(default_factory=list)
    parts: list[Scores] = field(default_factory=list)
    state: StreamState | None = None
    hops: int = 0

    @property
    def stretches(self) -> list[Scores]:
        return self.finished + ([joined(self.parts)] if self.parts else [])

    def to_bytes(self) -> bytes:
        stretches = self.stretches
        head = {
            "triggers": [trigger.as_dict() for trigger in self.triggers],
            "stretches": [[s.detectors, s.gps_start, s.hop, s.window] for s in stretches],
            "open": bool(self.parts),
            "hops": self.hops,
        }
        arrays = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
        if self.state is not None:
            arrays["engine"] = np.frombuffer(self.state.to_bytes(), np.uint8)
        for i, s in enumerate(stretches):
            arrays |= {f"values{i}": s.values, f"valid{i}": s.valid}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> Progress:
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as found:
                head = json.loads(found["head"].tobytes())
                scores = [
                    Scores(tuple(names), start, hop, found[f"values{i}"], found[f"valid{i}"], window)
                    for i, (names, start, hop, window) in enumerate(head["stretches"])
                ]
                state = StreamState.from_bytes(found["engine"].tobytes()) if "engine" in found.files else None
            triggers = [Trigger.from_dict(each) for each in head["triggers"]]
        except (ValueError, KeyError, OSError, EOFError):
            raise SearchError(f"{path} is no state of a replay: name another file, or delete it") from None
        parts = [scores.pop()] if head["open"] else []
        return cls(triggers, scores, parts, state, head["hops"])


@dataclass
class Replay:
    """Args:
    model: networks.
    paths: files and folders.
    hop: s of strain that are pushed at a time.
    noise: which PSD; `auto`: that of the whole stretch where it is shorter than a minute, else a trailing one.
    threshold: of triggers; the model's unless given.
    state: file of snapshots; a replay that finds it goes on from there.
    """

    model: SearchModel
    paths: Sequence[Path]
    hop: Seconds = 1.0
    noise: Noise = "auto"
    threshold: float | None = None
    state: Path | None = None
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        if not 0.25 <= self.hop <= 1.0 or 1.0 % self.hop:
            raise SearchError(f"--hop is {self.hop:g} s: use 1, 0.5 or 0.25")
        if self.state is not None and self.state.exists():
            self.progress = Progress.from_bytes(self.state.read_bytes(), self.state)
        self._saved = time.monotonic()
        self._running: StreamEngine | None = None

    def run(self, real_time: bool = False) -> Iterator[tuple[Seconds, list[Trigger]]]:
        """Push hop after hop; yields seconds of strain done and the triggers of each hop.

        Args:
            real_time: wait for the clock on the wall.
        """
        progress = self.progress
        for stretch in _stretches(replay(*self.paths)):
            first = next(stretch)
            if progress.state is not None and first.gps_start < progress.state.gps_start:
                for block in chain([first], stretch):
                    yield float(block.duration), []  # was through before the snapshot
                continue
            engine = self._running = self._engine(first)
            last_event = max((t.event for t in progress.triggers), default=0) - engine.clusterer.superevents.number
            for block in chain([first], stretch):
                for gps, values, valid in _hops(block, self.hop):
                    if gps + self.hop <= engine.next_gps + 1e-6 and progress.state is not None:
                        yield self.hop, []
                        continue
                    begin = time.monotonic()
                    found = [_numbered(t, last_event) for t in engine.push(values, valid, gps)]
                    self._took(engine, found)
                    yield self.hop, found
                    if real_time:
                        time.sleep(max(0.0, self.hop - (time.monotonic() - begin)))
            found = [_numbered(t, last_event) for t in engine.finish()]
            progress.triggers += found
            if progress.parts:
                progress.finished.append(joined(progress.parts))
                progress.parts = []
            progress.state = engine.state()
            yield 0.0, found
        self.save()

    def _engine(self, first: Strain) -> StreamEngine:
        conditioner = self._conditioner(first)
        state = self.progress.state
        if state is not None and state.gps_start == first.gps_start:
            return StreamEngine.resume(self.model, conditioner, state)
        return StreamEngine(self.model, conditioner, first.detectors, first.gps_start, threshold=self.threshold)

    def _conditioner(self, first: Strain) -> Conditioner:
        trailing = conditioner_for(self.model, first.sample_rate)
        if self.noise == "file" or (self.noise == "auto" and first.duration < SHORT):
            return trailing.fitted(first)
        return trailing

    def _took(self, engine: StreamEngine, found: list[Trigger]) -> None:
        progress = self.progress
        progress.hops += 1
        progress.triggers += found
        if engine.scores is not None:
            progress.parts.append(engine.scores)
        if self.state is not None and time.monotonic() - self._saved > SNAPSHOT:
            self.save()

    def save(self) -> None:
        """A snapshot of everything up to the last hop, whole or not at all."""
        if self.state is not None and self._running is not None:
            self.progress.state = self._running.state()
            write_atomic(self.state, self.progress.to_bytes())
            self._saved = time.monotonic()


def _numbered(trigger: Trigger, before: int) -> Trigger:
    return replace(trigger, event=trigger.event + before)


def _stretches(blocks: Iterable[Strain]) -> Iterator[Iterator[Strain]]:
    """Blocks in groups between which there is a hole longer than `SHORT`, or other detectors."""
    waiting: list[Strain] = []
    source = iter(blocks)

    def group(first: Strain) -> Iterator[Strain]:
        last = first
        yield first
        for block in source:
            if block.gps_start - last.gps_start - last.duration > SHORT or block.detectors != first.detectors:
                waiting.append(block)
                return
            last = block
            yield block

    for block in source:
        waiting.append(block)
        while waiting:
            yield group(waiting.pop())


def _hops(block: Strain, hop: Seconds) -> Iterator[tuple[GPS, np.ndarray, np.ndarray]]:
    n = round(hop * block.sample_rate)
    for i, at in enumerate(range(0, block.values.shape[1], n)):
        second = at // block.sample_rate
        yield block.gps_start + i * hop, block.values[:, at : at + n], block.valid[:, second]
