"""Files as if they were a stream: what `python -m mma_realtime.stream` runs, and can be stopped and go on.

A hole longer than a minute begins a new engine: noise from before it says nothing about noise after it. A stretch that
cannot be searched is told and passed over; where none can, it is an error.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from shared.runs.store import write_atomic

from mma_realtime.data.strain import BLOCK, Strain
from mma_realtime.data.strain_files import Stretch, span
from mma_realtime.data.strain_parts import by_detector, gather, spans
from mma_realtime.errors import SearchError
from mma_realtime.gw.units import GPS, Seconds
from mma_realtime.search.coincidence import Trigger
from mma_realtime.search.model_file import SearchModel
from mma_realtime.search.scores import Noise
from mma_realtime.search.series import Scores, joined
from mma_realtime.search.stream import StreamEngine, StreamState
from mma_realtime.search.stretch import FileStretch

FORMAT = 2
FAILED = 3  # exit status: some stretches failed, the others' triggers are told
SNAPSHOT: Seconds = 10.0  # of the clock on the wall, between two snapshots at least


class Searched(NamedTuple):
    """A stretch that is through: GPS range in s, `trailing` or `file` PSD, and why it could not be searched."""

    gps_start: int
    gps_end: int
    psd: str
    failed: str = ""

    @property
    def where(self) -> str:
        return span(self.gps_start, self.gps_end)


@dataclass
class Progress:
    """What a replay has done: scores of each stretch, triggers, and the engine that goes on.

    Args:
        settings: what it was made of and with; only the same goes on from here.
        done: stretches that are through, with those that failed. finished: scores of the others.
        parts: scores of the stretch that is not through. state: of its engine.
        hops: pushed so far.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    triggers: list[Trigger] = field(default_factory=list)
    done: list[Searched] = field(default_factory=list)
    finished: list[Scores] = field(default_factory=list)
    parts: list[Scores] = field(default_factory=list)
    state: StreamState | None = None
    hops: int = 0

    @property
    def stretches(self) -> list[Scores]:
        return self.finished + ([joined(self.parts)] if self.parts else [])

    @property
    def searched(self) -> list[Searched]:
        return [each for each in self.done if not each.failed]

    @property
    def failed(self) -> list[Searched]:
        return [each for each in self.done if each.failed]

    def to_bytes(self) -> bytes:
        stretches = self.stretches
        head = {
            "format": FORMAT,
            "settings": self.settings,
            "triggers": [trigger.as_dict() for trigger in self.triggers],
            "done": self.done,
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
        """Raises:
        SearchError: not a state, a torn one, or one of another version.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as found:
                head = json.loads(found["head"].tobytes())
                if head.get("format") != FORMAT:
                    raise SearchError(
                        f"{path} was written by another version of this program: name another file, or delete it to "
                        "start anew"
                    )
                scores = [
                    Scores(tuple(names), start, hop, found[f"values{i}"], found[f"valid{i}"], window)
                    for i, (names, start, hop, window) in enumerate(head["stretches"])
                ]
                state = StreamState.from_bytes(found["engine"].tobytes()) if "engine" in found.files else None
            triggers = [Trigger.from_dict(each) for each in head["triggers"]]
            done = [Searched(*each) for each in head["done"]]
        except SearchError:
            raise
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile):
            raise SearchError(f"{path} is no state of a replay: name another file, or delete it") from None
        parts = [scores.pop()] if head["open"] else []
        return cls(head["settings"], triggers, done, scores, parts, state, head["hops"])


@dataclass
class Replay:
    """Args:
    model: networks.
    paths: files and folders.
    hop: s of strain that are pushed at a time.
    noise: which PSD; `auto`: that of the whole stretch where it is shorter than a minute, else a trailing one.
    threshold: of triggers; the model's unless given.
    state: file of snapshots; a replay that finds it goes on from there.

    Raises:
        SearchError: such a hop cannot be; the state is of another replay. StrainError: files that cannot be read.
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
        self.parts = gather(self.paths)
        self.spans = spans(self.parts)
        if self.state is not None:
            self.progress.settings = self._settings()
            if self.state.exists():
                self.progress = Progress.from_bytes(self.state.read_bytes(), self.state)
                check_same(self.progress.settings, self._settings(), self.state)
        self._saved = time.monotonic()
        self._running: StreamEngine | None = None

    def _settings(self) -> dict[str, Any]:
        """All that decides what is found, in the words of the message about a change."""
        threshold = self.model.recipe.threshold if self.threshold is None else self.threshold
        return {
            "model": f"SHA-256 {self.model.checksum}",
            "threshold": threshold,
            "PSD": self.noise,
            "hop": self.hop,
            "strain": "; ".join(sorted(f"{p.detector} {span(p.gps_start, p.gps_end)}" for p in self.parts)),
            "contents of the files": f"SHA-256 {_contents(self.parts)}",
        }

    def run(self, real_time: bool = False) -> Iterator[tuple[Seconds, list[Trigger]]]:
        """Push hop after hop; yields seconds of strain done and the triggers of each hop.

        Args:
            real_time: wait for the clock on the wall.

        Raises:
            StrainError: a file that cannot be read, or is no strain.
        """
        for number, (first, last) in enumerate(self.spans):
            if number < len(self.progress.done):
                yield float(last - first), []  # was through before the snapshot
                continue
            stretch = self.stretch(first, last)
            try:
                engine = self._running = self._engine(stretch)
            except SearchError as error:
                if self.progress.state is not None:
                    raise  # it was searched before, and cannot go on: that is no matter of its strain
                self._failed(stretch, str(error))
                yield float(last - first), []
                continue
            yield from self._pushed(engine, stretch, real_time)
        self.save()

    def _pushed(
        self, engine: StreamEngine, stretch: FileStretch, real_time: bool
    ) -> Iterator[tuple[Seconds, list[Trigger]]]:
        """One stretch, from where its engine is."""
        progress = self.progress
        before = max((t.event for t in progress.triggers), default=0) - engine.clusterer.superevents.number
        through = int(engine.next_gps - stretch.gps_start) // BLOCK * BLOCK  # s of blocks that need not be read again
        yield float(through), []
        for block in stretch.blocks(through):
            for gps, values, valid in _hops(block, self.hop):
                if gps + self.hop <= engine.next_gps + 1e-6:
                    yield self.hop, []
                    continue
                begin = time.monotonic()
                found = [_numbered(t, before) for t in engine.push(values, valid, gps)]
                self._took(engine, found)
                yield self.hop, found
                if real_time:
                    time.sleep(max(0.0, self.hop - (time.monotonic() - begin)))
        found = [_numbered(t, before) for t in engine.finish()]
        progress.triggers += found
        scores = joined(progress.parts) if progress.parts else None
        if scores is None or not scores.valid.all(axis=0).any():
            self._failed(stretch)
        else:
            progress.finished.append(scores)
            progress.done.append(Searched(stretch.gps_start, stretch.gps_end, engine.conditioner.psd))
        progress.parts, progress.state, self._running = [], None, None
        yield 0.0, found

    def stretch(self, first: int, last: int) -> FileStretch:
        """The strain of one of `spans`."""
        return FileStretch(self.parts, tuple(by_detector(self.parts)), first, last)

    def _engine(self, stretch: FileStretch) -> StreamEngine:
        conditioner = stretch.conditioner(self.model, self.noise)
        if self.progress.state is not None:
            return StreamEngine.resume(self.model, conditioner, self.progress.state)
        begin = float(stretch.gps_start)
        return StreamEngine(self.model, conditioner, stretch.detectors, begin, threshold=self.threshold)

    def _failed(self, stretch: FileStretch, why: str = "") -> None:
        """A stretch without a score."""
        searched = (stretch.gps_start, stretch.gps_end, stretch.psd(self.noise))
        self.progress.done.append(Searched(*searched, stretch.complaint(why)))

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
        if self.state is not None:
            if self._running is not None:
                self.progress.state = self._running.state()
            write_atomic(self.state, self.progress.to_bytes())
            self._saved = time.monotonic()


def check_same(then: dict[str, Any], now: dict[str, Any], state: Path) -> None:
    """Raises:
    SearchError: a snapshot was made of other strain, or with other networks or settings; says what differs.
    """
    told = [f"{name} ({_short(then.get(name))} then, {_short(is_)} now)" for name, is_ in now.items()
            if then.get(name) != is_]  # fmt: skip
    if told:
        raise SearchError(
            f"{state} is the state of another replay: other {', '.join(told)}: give another --state, or delete this "
            "one to start anew"
        )


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _contents(parts: Sequence[Stretch]) -> str:
    """SHA-256 of the files, wherever they are and whatever their names."""
    digests = []
    for path in dict.fromkeys(part.path for part in parts):
        with path.open("rb") as handle:
            digests.append(hashlib.file_digest(handle, "sha256").hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def psd_text(stretches: Sequence[Searched]) -> str:
    """Which PSD each stretch was whitened with, in a line."""
    names = {"file": "of the whole stretch", "trailing": "of the seconds before each second"}
    lines = []
    for psd, count in Counter(each.psd for each in stretches).items():
        where = [each.where for each in stretches if each.psd == psd]
        told = ", ".join(where) if count <= 3 else f"{count} stretches from {where[0]} to {where[-1]}"
        lines.append(f"psd: {psd}, {names[psd]} ({told})")
    return "\n".join(lines)


def stretch_dicts(stretches: Sequence[Searched], scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """For JSON: GPS range, PSD and livetime (s) of each stretch."""
    return [
        {"gps_start": each.gps_start, "gps_end": each.gps_end, "psd": each.psd, "livetime_s": mine.livetime}
        for each, mine in zip(stretches, scores, strict=True)
    ]


def _numbered(trigger: Trigger, before: int) -> Trigger:
    return replace(trigger, event=trigger.event + before)


def _hops(block: Strain, hop: Seconds) -> Iterator[tuple[GPS, np.ndarray, np.ndarray]]:
    n = round(hop * block.sample_rate)
    for i, at in enumerate(range(0, block.values.shape[1], n)):
        second = at // block.sample_rate
        yield block.gps_start + i * hop, block.values[:, at : at + n], block.valid[:, second]
