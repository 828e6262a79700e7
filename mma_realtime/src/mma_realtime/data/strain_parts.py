"""Which stretches of which files make up the strain of a search: read from folders, sorted, and checked (section 3)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from mma_realtime.data.strain_files import SAMPLE_RATE, SUFFIXES, Stretch, holds_strain, runs, span, stretches
from mma_realtime.errors import StrainError
from mma_realtime.gw.detectors import DETECTORS

HOLE = 64  # s: a longer hole ends a stretch, the noise before it says nothing about the noise after it

logger = logging.getLogger(__name__)


def gather(paths: Sequence[str | Path], sample_rate: int = SAMPLE_RATE) -> list[Stretch]:
    """What the files hold, those of a detector in order of time.

    Raises:
        StrainError: no file; unreadable; of a rate that is no multiple; unsorted; overlapping.
    """
    if not paths:
        raise StrainError("no strain: name files (.npz, GWOSC or challenge HDF5) or folders of them")
    parts = preferred(listed(paths), sample_rate)
    check_parts(parts, sample_rate)
    return parts


def check_parts(parts: Sequence[Stretch], sample_rate: int = SAMPLE_RATE) -> None:
    """Raises:
    StrainError: of a rate that is no multiple; unsorted; overlapping.
    """
    for mine in by_detector(parts).values():
        for part in mine:
            if part.sample_rate % sample_rate:
                raise StrainError(
                    f"{part.where}: {part.sample_rate} Hz is no multiple of {sample_rate} Hz: resample the file, or "
                    "fetch the one of 4096 Hz"
                )
        for before, after in itertools.pairwise(mine):
            if after.gps_start < before.gps_start:
                raise StrainError(
                    f"files are not in order of time: {after.where} comes after {before.where}: sort them, or name "
                    "their folder"
                )
            if after.gps_start < before.gps_end:
                raise StrainError(
                    f"files overlap in {span(after.gps_start, min(before.gps_end, after.gps_end))}: {before.where}; "
                    f"{after.where}: leave one of them out"
                )


def listed(paths: Iterable[str | Path]) -> list[Stretch]:
    """What files hold, as they were named; of folders all strain, in order of time.

    Raises:
        StrainError: a file that cannot be read, a folder without strain.
    """
    parts: list[Stretch] = []
    for path in map(Path, paths):
        parts += _folder(path) if path.is_dir() else stretches(path)
    return parts


def _folder(folder: Path) -> list[Stretch]:
    """All strain of a folder, sorted; noise curves and lists of injections beside it are none."""
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    parts = [part for path in files if holds_strain(path) for part in stretches(path)]
    if not parts:
        raise StrainError(f"{folder} holds no strain: files ending in {', '.join(SUFFIXES)} are expected")
    return sorted(parts, key=lambda part: part.gps_start)


def preferred(parts: Sequence[Stretch], sample_rate: int) -> list[Stretch]:
    """Of the same seconds of a detector at several rates or in several kinds of file, one; the others are told.

    Taken is what can be resampled, knows which seconds are bad, and has the lowest rate. Two files of one kind and
    rate may differ in what they hold: both stay, for `gather` to refuse.
    """

    def kind(part: Stretch) -> tuple[bool, bool, int, bool]:
        return part.sample_rate % sample_rate > 0, part.quality is None, part.sample_rate, isinstance(part.key, str)

    best: dict[tuple[str, int, int], Stretch] = {}
    for part in sorted(parts, key=kind):
        best.setdefault((part.detector, part.gps_start, part.gps_end), part)
    kept = []
    for part in parts:
        taken = best[part.detector, part.gps_start, part.gps_end]
        if kind(part) == kind(taken):
            kept.append(part)
        else:
            logger.warning("%s: left out, the same seconds are in %s", part.where, taken.path)
    return kept


def spans(parts: Iterable[Stretch], hole: int = HOLE) -> list[tuple[int, int]]:
    """GPS ranges [first, last) in s that hold the strain of any detector, with holes longer than `hole` s between."""
    found: list[tuple[int, int]] = []
    for part in sorted(parts, key=lambda part: part.gps_start):
        if found and part.gps_start - found[-1][1] <= hole:
            found[-1] = found[-1][0], max(found[-1][1], part.gps_end)
        else:
            found.append((part.gps_start, part.gps_end))
    return found


def check_one_stretch(parts: Sequence[Stretch]) -> None:
    """Raises:
    StrainError: there is a hole longer than `HOLE`.
    """
    found = spans(parts)
    if len(found) > 1:
        last, first = found[0][1], found[1][0]
        before = next(part for part in parts if part.gps_end == last)
        after = next(part for part in parts if part.gps_start == first)
        raise StrainError(
            f"nothing between GPS {last} ({before.where}) and GPS {first} ({after.where}): one stretch is read at a "
            f"time, and a hole longer than {HOLE} s ends it: name the files of one, or use python -m "
            "mma_realtime.search, which searches each"
        )


def check_noise(parts: Sequence[Stretch], name: str, valid: Bool[np.ndarray, " second"], psd_seconds: float) -> None:
    """That the noise of a detector can be estimated from what is valid of it in one stretch.

    Args:
        parts: of the stretch.
        psd_seconds: s that have to follow each other without a gap.

    Raises:
        StrainError: no strain of it, none that is good, or none as long as that; names file, GPS range and reason.
    """
    first, last = spans(parts)[0]
    mine = [part for part in parts if part.detector == name]
    if not mine:
        raise StrainError(f"no file has strain of {name} in {span(first, last)}: give one, or leave these seconds out")
    where = f"{parts_of(parts, name)}, {name}, {span(mine[0].gps_start, mine[-1].gps_end)}"
    longest = max((b - a for a, b in runs(valid)), default=0)
    if not longest:
        why = ", ".join(dict.fromkeys(part.load().reason for part in mine))
        raise StrainError(f"{where}: every second is a gap ({why}): give a file with strain")
    if longest < psd_seconds:
        raise StrainError(
            f"{where}: the longest gapless stretch is {longest} s, the noise is estimated from {psd_seconds:g} s: give "
            "a longer file"
        )


def by_detector(parts: Sequence[Stretch]) -> dict[str, list[Stretch]]:
    """Detectors in the order of the table, each with its stretches."""
    return {name: mine for name in DETECTORS if (mine := [part for part in parts if part.detector == name])}


def parts_of(parts: Sequence[Stretch], name: str) -> str:
    files = list(dict.fromkeys(str(part.path) for part in parts if part.detector == name))
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
