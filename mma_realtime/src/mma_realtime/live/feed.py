"""Strain that comes as if from detectors: simulated without an end, or recorded and replayed.

The same second has the same samples whenever and by whomever it is read, so a stage that died reads on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from scipy.signal import oaconvolve

from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.pipeline import Block
from mma_realtime.data import strain_files
from mma_realtime.data.challenge import CURVE, DETECTORS, MASSES, draw_injections, inject, noise_filter
from mma_realtime.data.mlgwsc import Injections
from mma_realtime.data.strain import SAMPLE_RATE, Strain, assemble
from mma_realtime.data.strain_parts import by_detector, gather, spans
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.units import GPS, Seconds

CHUNK = 64  # s that are made or read at once
GPS_START = 1_200_000_000  # of simulated strain
ENDLESS = 10**9  # s
EPOCH = 36_000  # s of injections that are drawn at once
EVERY = 4  # of the challenge's injections one is made: about one in 96 s, so that their slid pairs stay rare
REACH = 32  # s on either side of a chunk in which a merger may reach into it


class Stretch(NamedTuple):
    """GPS seconds without a long hole: one stream of the store. `before`: s of strain in the stretches before it."""

    name: str
    gps_start: int
    gps_end: int
    before: int


class Feed(Protocol):
    @property
    def origin(self) -> Origin: ...
    @property
    def detectors(self) -> tuple[str, ...]: ...
    @property
    def stretches(self) -> list[Stretch]: ...
    def strain(self, first: int, last: int) -> Strain:
        """The GPS seconds [first, last)."""


@dataclass(frozen=True)
class Simulated:
    """Gaussian noise with binaries of black holes in it. `seed`: of both."""

    seed: int = 0
    origin: Origin = Origin.SIMULATED
    detectors: tuple[str, ...] = DETECTORS

    @property
    def stretches(self) -> list[Stretch]:
        return [Stretch("simulated", GPS_START, GPS_START + ENDLESS, 0)]

    def injections(self, first: GPS, last: GPS) -> Injections:
        """Of mergers in the GPS seconds [first, last)."""
        epochs = range(int(first - GPS_START) // EPOCH, int(last - GPS_START) // EPOCH + 1)
        drawn = [self._epoch(epoch) for epoch in epochs if epoch >= 0]
        together = {key: np.concatenate([each[key] for each in drawn]) for key in drawn[0]}
        inside = (together["tc"] >= first) & (together["tc"] < last)
        return {key: column[inside] for key, column in together.items()}

    def _epoch(self, epoch: int) -> Injections:
        drawn = draw_injections(EPOCH, 1_000_003 * epoch + self.seed, MASSES, GPS_START + epoch * EPOCH)
        return {key: column[::EVERY] for key, column in drawn.items()}

    def strain(self, first: int, last: int) -> Strain:
        """The GPS seconds [first, last), of the whole chunks that hold them: the same bits however they are cut."""
        chunks = range((first - GPS_START) // CHUNK, -(-(last - GPS_START) // CHUNK))
        values = np.concatenate([self._chunk(chunk) for chunk in chunks], axis=1)
        a = (first - GPS_START - chunks[0] * CHUNK) * SAMPLE_RATE
        values = values[:, a : a + (last - first) * SAMPLE_RATE]
        valid = np.ones((len(self.detectors), last - first), dtype=bool)
        return Strain(self.detectors, float(first), SAMPLE_RATE, values, valid, f"simulated, seed {self.seed}")

    def _chunk(self, chunk: int) -> np.ndarray:
        return _simulated(self, chunk)


@lru_cache(maxsize=4)
def _simulated(feed: Simulated, chunk: int) -> np.ndarray:
    """Noise of one filter over white noise that is drawn second by second: chunks fit each other without a seam."""
    curve = design_curve(CURVE)
    kernel = noise_filter(curve, SAMPLE_RATE)
    tail = len(kernel) // SAMPLE_RATE
    begin = chunk * CHUNK
    rows = []
    for row in range(len(feed.detectors)):
        seconds = [
            np.random.default_rng([feed.seed, 1 + row, second]).standard_normal(SAMPLE_RATE)
            for second in range(begin, begin + CHUNK + tail)
        ]
        rows.append(oaconvolve(np.concatenate(seconds)[:-1], kernel, mode="valid")[: CHUNK * SAMPLE_RATE])
    noise = np.stack(rows)
    first = GPS_START + begin
    found = feed.injections(first - 4, first + CHUNK + REACH)
    if len(found["tc"]):
        signals = np.zeros((len(rows), (CHUNK + 2 * REACH) * SAMPLE_RATE))
        part = {key: torch.from_numpy(column) for key, column in found.items()}
        inject(signals, part, first - REACH, SAMPLE_RATE, curve)
        noise += signals[:, REACH * SAMPLE_RATE : (REACH + CHUNK) * SAMPLE_RATE]
    return noise


@dataclass(frozen=True)
class Replayed:
    """Recorded strain. `paths`: files and folders.

    Raises:
        StrainError: there is none, or it cannot be read.
    """

    paths: tuple[Path, ...]
    origin: Origin = Origin.REPLAYED

    def __post_init__(self) -> None:
        _ = self.stretches

    @cached_property
    def _parts(self) -> list[strain_files.Stretch]:
        return gather(self.paths)

    @property
    def detectors(self) -> tuple[str, ...]:
        return tuple(by_detector(self._parts))

    @cached_property
    def stretches(self) -> list[Stretch]:
        out: list[Stretch] = []
        before = 0
        for first, last in spans(self._parts):
            out.append(Stretch(f"replayed {first}", first, last, before))
            before += last - first
        return out

    def strain(self, first: int, last: int) -> Strain:
        return assemble(self._parts, first, last, SAMPLE_RATE)


@dataclass(frozen=True)
class StretchSource:
    """A stretch of a feed in blocks of `hop` s, as the pipeline reads it."""

    feed: Feed
    stretch: Stretch
    hop: Seconds = 1.0

    @property
    def detectors(self) -> tuple[str, ...]:
        return self.feed.detectors

    @property
    def gps_start(self) -> GPS:
        return float(self.stretch.gps_start)

    def blocks(self, offset: int) -> Iterator[Block]:
        n = round(self.hop * SAMPLE_RATE)
        start, end = self.stretch.gps_start, self.stretch.gps_end
        second = offset // SAMPLE_RATE
        while start + second < end:
            last = min(end - start, (second // CHUNK + 1) * CHUNK)
            strain = self.feed.strain(start + second, start + last)
            for at in range(max(offset, second * SAMPLE_RATE), last * SAMPLE_RATE, n):
                here = at - second * SAMPLE_RATE
                valid = strain.valid[:, here // SAMPLE_RATE]
                yield Block(at, start + at / SAMPLE_RATE, strain.values[:, here : here + n], valid)
            second = last


def feed_of(replay: Sequence[Path], seed: int) -> Feed:
    """Recorded strain where paths are given, else simulated."""
    return Replayed(tuple(replay)) if replay else Simulated(seed)
