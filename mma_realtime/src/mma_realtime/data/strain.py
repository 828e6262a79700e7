"""Strain of several detectors on one clock, and how it is read from files (section 3).

    strain = read_strain("H-H1_LOSC_4_V2-1126259446-32.hdf5", "L-L1_LOSC_4_V2-1126259446-32.hdf5")
    for block in blocks(gather(["folder/"]), 1126259446, 1126263542): ...

A second that is missing, holds NaN, is constant or is flagged is a gap: its values are 0, `valid` is False there, and
nothing may look at them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from scipy.signal import firwin, resample_poly
from shared.data.images import fingerprint
from shared.data.root import data_root

from mma_realtime.data.strain_files import SAMPLE_RATE, Stretch, runs, span
from mma_realtime.data.strain_parts import by_detector, check_noise, check_one_stretch, gather, parts_of
from mma_realtime.errors import StrainError
from mma_realtime.gw.units import GPS, Seconds

PSD_SECONDS = 8.0  # the shortest stretch that noise is estimated from (section 4)
BLOCK = 4096  # seconds that a replay holds at once
# Public events: the published time of the merger, and the files that GWOSC has of 32 s around it.
EVENTS = {
    "GW150914": (1126259462.4, "LOSC_4_V2-1126259446-32.hdf5"),
    "GW170104": (1167559936.6, "LOSC_4_V1-1167559920-32.hdf5"),
}


@dataclass(frozen=True, eq=False)
class Strain:
    """Strain of one or several detectors.

    Attributes:
        detectors: their names.
        gps_start: GPS seconds of the first sample.
        sample_rate: Hz.
        values: strain x 1e21, 0 where not valid.
        valid: whether a second, counted from `gps_start`, can be used.
        source: where it comes from, for reports.
    """

    detectors: tuple[str, ...]
    gps_start: GPS
    sample_rate: int
    values: Float64[np.ndarray, "detector time"]
    valid: Bool[np.ndarray, "detector second"]
    source: str = ""

    def __post_init__(self) -> None:
        shape = (len(self.detectors), self.valid.shape[-1] * self.sample_rate)
        if self.values.shape != shape or self.valid.shape[0] != shape[0] or self.values.dtype != np.float64:
            raise StrainError(
                f"{self.source or 'strain'}: values are {self.values.dtype} {list(self.values.shape)}, float64 "
                f"{list(shape)} are expected of {', '.join(self.detectors)}, {self.valid.shape[-1]} s at "
                f"{self.sample_rate} Hz"
            )

    @property
    def duration(self) -> int:
        """Whole seconds, gaps included."""
        return int(self.valid.shape[1])

    @property
    def gps_end(self) -> GPS:
        return self.gps_start + self.duration

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that a search sees."""
        head = np.array([self.gps_start, self.sample_rate], dtype=np.float64)
        names = np.frombuffer(",".join(self.detectors).encode(), dtype=np.uint8)
        return fingerprint(names, head, self.values, self.valid)

    def segments(self) -> list[tuple[GPS, GPS]]:
        """GPS ranges in which every detector is valid."""
        return [(self.gps_start + a, self.gps_start + b) for a, b in runs(np.logical_and.reduce(self.valid))]

    def slice(self, gps_start: GPS, gps_end: GPS) -> Strain:
        """The seconds [gps_start, gps_end); shares memory with this one.

        Raises:
            StrainError: outside of this strain, empty, or not whole seconds from its start.
        """
        first, last = gps_start - self.gps_start, gps_end - self.gps_start
        if first != round(first) or last != round(last) or not 0 <= first < last <= self.duration:
            raise StrainError(
                f"{self.source or 'strain'}, {span(self.gps_start, self.gps_end)}: cannot take "
                f"{span(gps_start, gps_end)}: give whole seconds within it"
            )
        a, b = round(first), round(last)
        return dataclasses.replace(
            self,
            gps_start=gps_start,
            values=self.values[:, a * self.sample_rate : b * self.sample_rate],
            valid=self.valid[:, a:b],
        )

    def select(self, *detectors: str) -> Strain:
        """These detectors only, in this order.

        Raises:
            StrainError: one of them is not there.
        """
        missing = [name for name in detectors if name not in self.detectors]
        if missing:
            raise StrainError(
                f"{self.source or 'strain'} has no {', '.join(missing)}, it has {', '.join(self.detectors)}: give a "
                "file of each detector"
            )
        rows = [self.detectors.index(name) for name in detectors]
        return dataclasses.replace(self, detectors=detectors, values=self.values[rows], valid=self.valid[rows])


def time_reversed(strain: Strain) -> Strain:
    """The same noise with every chirp falling: a control in which nothing may be found."""
    return dataclasses.replace(
        strain,
        values=np.ascontiguousarray(strain.values[:, ::-1]),
        valid=np.ascontiguousarray(strain.valid[:, ::-1]),
        source=f"{strain.source}, time-reversed",
    )


def read_strain(
    *paths: str | Path,
    sample_rate: int = SAMPLE_RATE,
    psd_seconds: Seconds = PSD_SECONDS,
    partial: bool = False,
    gps: tuple[int, int] | None = None,
) -> Strain:
    """Strain of all detectors in these files, on one clock: one stretch.

    Args:
        paths: files (see `strain_files`), those of a detector in order of time; or folders, read in that order.
        sample_rate: Hz; files with a multiple of it are resampled.
        psd_seconds: the shortest gapless stretch that each detector must have.
        partial: whether a detector may lack time that others have; it is a gap there.
        gps: the range, one of `spans`, of a stretch where the files hold several.

    Raises:
        StrainError: see the list of section 3; files with a hole longer than `HOLE` between them.
    """
    parts = gather(paths, sample_rate)
    if gps is not None:
        parts = [part for part in parts if gps[0] <= part.gps_start and part.gps_end <= gps[1]]
    check_one_stretch(parts)
    ends = {name: (mine[0].gps_start, mine[-1].gps_end) for name, mine in by_detector(parts).items()}
    first, last = min(a for a, _ in ends.values()), max(b for _, b in ends.values())
    common = max(a for a, _ in ends.values()) < min(b for _, b in ends.values())
    if len(set(ends.values())) > 1 and not (partial and common):
        told = ", ".join(f"{name} ({parts_of(parts, name)}) {span(*both)}" for name, both in ends.items())
        mend = "give files of the same seconds" + (", or allow gaps (partial=True)" if common else "")
        raise StrainError(f"the detectors have different spans: {told}: {mend}")
    strain = assemble(parts, first, last, sample_rate)
    for name, valid in zip(strain.detectors, strain.valid, strict=True):
        check_noise(parts, name, valid, psd_seconds)
    return strain


def blocks(
    parts: Sequence[Stretch],
    gps_start: int,
    gps_end: int,
    sample_rate: int = SAMPLE_RATE,
    block: int = BLOCK,
    detectors: tuple[str, ...] | None = None,
) -> Iterator[Strain]:
    """The GPS seconds [gps_start, gps_end), a block at a time; arguments else as of `assemble`.

    Together the blocks are what `read_strain` gives, so a month need not fit into memory.

    Args:
        block: seconds of a block, at most.

    Raises:
        StrainError: see `Stretch.load`; a detector that lacks time, or has none that is good, has gaps.
    """
    for start in range(gps_start, gps_end, block):
        yield assemble(parts, start, min(start + block, gps_end), sample_rate, detectors)


def read_event(*paths: str | Path, sample_rate: int = SAMPLE_RATE) -> tuple[Strain, GPS]:
    """The strain around a public event and the published time of its merger.

    Raises:
        StrainError: unreadable, or no event of `EVENTS` in it and none named by the file.
    """
    strain = read_strain(*paths, sample_rate=sample_rate)
    if len(paths) == 1 and Path(paths[0]).suffix == ".npz":
        with np.load(paths[0], allow_pickle=False) as archive:
            if "gps_event" in archive:
                return strain, float(archive["gps_event"])
    for time, _ in EVENTS.values():
        if strain.gps_start <= time < strain.gps_end:
            return strain, time
    raise StrainError(
        f"{strain.source}, {span(strain.gps_start, strain.gps_end)}: holds none of {', '.join(EVENTS)}: use read_strain"
    )


def event_files(name: str, root: Path | None = None) -> tuple[Path, ...]:
    """The files of a public event under the data root: the .npz, else the originals of GWOSC; empty if not there.

    Args:
        name: one of `EVENTS`.
        root: default `DATA_ROOT`, else `./data`.
    """
    folder = (data_root() if root is None else root) / "gwosc"
    for files in (
        (folder / f"event_{name}.npz",),
        tuple(folder / f"{site}-{site}1_{EVENTS[name][1]}" for site in ("H", "L")),
    ):
        if all(file.is_file() for file in files):
            return files
    return ()


def write_npz(strain: Strain, path: Path) -> None:
    """Write an .npz that `read_strain` reads, in float32 as the data folder's; gaps are NaN."""
    values = strain.values.reshape(len(strain.detectors), strain.duration, -1).astype(np.float32)
    values[~strain.valid] = np.nan
    np.savez(
        path,
        strain_e21=values.reshape(len(strain.detectors), -1),
        sample_rate=strain.sample_rate,
        gps_start=strain.gps_start,
        detectors=np.array(strain.detectors),
    )


def assemble(
    parts: Sequence[Stretch],
    gps_start: int,
    gps_end: int,
    sample_rate: int,
    detectors: tuple[str, ...] | None = None,
) -> Strain:
    """The GPS seconds [gps_start, gps_end) of these stretches; what none has is a gap.

    Args:
        parts: sorted, not overlapping (`gather`).
        gps_start: s.
        gps_end: s.
        sample_rate: Hz, a divisor of that of each stretch.
        detectors: rows of the strain; None: those that the stretches are of.

    Raises:
        StrainError: see `Stretch.load`.
    """
    by_name = by_detector(parts)
    names_of_rows = tuple(by_name) if detectors is None else detectors
    duration = gps_end - gps_start
    values = np.zeros((len(names_of_rows), duration * sample_rate))
    valid = np.zeros((len(names_of_rows), duration), dtype=bool)
    for row, detector in enumerate(names_of_rows):
        mine = by_name.get(detector, [])
        for rate in sorted({part.sample_rate for part in mine}):
            here = [part for part in mine if part.sample_rate == rate]
            resampled, good = _at_rate(here, gps_start, gps_end, sample_rate)
            values[row] += resampled  # zero where no file of this rate is
            valid[row] |= good
    inside = [part for part in parts if part.gps_start < gps_end and part.gps_end > gps_start]
    names = list(dict.fromkeys(part.path.name for part in inside)) or ["strain"]
    source = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return Strain(names_of_rows, float(gps_start), sample_rate, values, valid, source)


def _at_rate(
    parts: Sequence[Stretch], gps_start: int, gps_end: int, sample_rate: int
) -> tuple[Float64[np.ndarray, " time"], Bool[np.ndarray, " second"]]:
    """What stretches of one detector and rate hold in the GPS seconds [gps_start, gps_end), resampled."""
    duration, rate = gps_end - gps_start, parts[0].sample_rate
    margin = 1 if rate > sample_rate else 0  # seconds on either side that the resampling filter may look at
    raw, good = np.zeros((duration + 2 * margin) * rate), np.zeros(duration + 2 * margin, dtype=bool)
    for part in parts:
        a, b = max(part.gps_start, gps_start - margin), min(part.gps_end, gps_end + margin)
        if a >= b:
            continue
        loaded = part.load(a - part.gps_start, b - part.gps_start)
        at = a - gps_start + margin
        raw[at * rate : (at + b - a) * rate] = loaded.values
        good[at : at + b - a] = loaded.valid
    inside = slice(margin * sample_rate, (margin + duration) * sample_rate)
    return decimate(raw, good, rate // sample_rate)[inside], good[margin : margin + duration]


def decimate(
    values: Float64[np.ndarray, " time"], valid: Bool[np.ndarray, " second"], factor: int
) -> Float64[np.ndarray, " fewer"]:
    """Every `factor`-th sample after a low-pass filter, each gapless run by itself; sample times stay.

    Runs go on beyond their ends by odd reflection: a step from the wall at low frequencies to zero would ring.

    Args:
        values: strain in any unit, a whole number of samples a second.
        valid: seconds to take.
        factor: of the sample rate.
    """
    if factor == 1:
        return values
    rate = len(values) // len(valid)
    out = np.zeros(len(values) // factor)
    for a, b in runs(valid):
        run = resample_poly(values[a * rate : b * rate], 1, factor, window=_lowpass(factor), padtype="antireflect")
        out[a * rate // factor : b * rate // factor] = run
    return out


@lru_cache
def _lowpass(factor: int) -> Float64[np.ndarray, " taps"]:
    """Half its height at the new Nyquist frequency, 80 dB down from 4 % above; 31 ms long on either side at 2048 Hz."""
    return firwin(128 * factor + 1, 1.0 / factor, window=("kaiser", 8.0))


__all__ = [
    "EVENTS", "PSD_SECONDS", "SAMPLE_RATE", "Strain", "blocks", "event_files", "read_event", "read_strain",
    "time_reversed", "write_npz",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """`StrainFileDataModule` (section 3), which needs Lightning."""
    if name != "StrainFileDataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("mma_realtime.search.windows").StrainFileDataModule
