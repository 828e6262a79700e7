"""Files of strain (section 3): what is in them, without the samples, and then the samples of some seconds.

    .npz           `strain_e21` [detector, time] (strain x 1e21), `sample_rate`, `gps_start`, `detectors`
    GWOSC HDF5     one detector: `strain/Strain` with `Xspacing`, `meta/GPSstart`, bits of `quality/simple/DQmask` and
                   of `quality/injections/Injmask`
    challenge HDF5 a data set `H1/<gps>` per stretch, attributes `start_time` and `delta_t` (MLGWSC-1)

The kind is told from the bytes, not from the name. A file is cut to whole GPS seconds.
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Bool, Float64

from mma_realtime.errors import StrainError
from mma_realtime.gw.constants import SCALE
from mma_realtime.gw.detectors import DETECTORS

SAMPLE_RATE = 2048  # Hz, of strain in the package
RMS_LIMIT = 1e-15  # of strain: above it the unit is another one
QUALITY = ("DATA", "CBC_CAT1")  # bits of a GWOSC file that a second must have to be searched
NO_INJECTION = "NO_CBC_HW_INJ"  # bit of a second in which no mirror was moved as if by a compact binary
SUFFIXES = (".npz", ".hdf5", ".h5", ".hdf")  # taken from a folder
HDF5, ZIP, FRAME = b"\x89HDF\r\n\x1a\n", b"PK", b"IGWD"

logger = logging.getLogger(__name__)


def span(gps_start: float, gps_end: float) -> str:
    """A GPS range as messages name it."""
    return f"GPS {gps_start:.10g} to {gps_end:.10g}"


def runs(flags: Bool[np.ndarray, " n"]) -> list[tuple[int, int]]:
    """The maximal stretches [first, last) in which the flags are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


@dataclass(frozen=True)
class Seconds:
    """Whole seconds of one detector as they came from a file.

    Attributes:
        values: strain x 1e21, 0 in seconds that are not valid.
        valid: whether a second can be used.
        reason: why none of the seconds can be used; empty where one can.
    """

    values: Float64[np.ndarray, " time"]
    valid: Bool[np.ndarray, " second"]
    reason: str


@dataclass(frozen=True)
class Stretch:
    """One detector's contiguous samples in a file.

    Attributes:
        path: the file.
        detector: its name.
        gps_start: GPS second of the first whole second.
        sample_rate: Hz.
        duration: whole seconds.
        key: of the data set in an HDF5 file, the row in an .npz.
        skip: samples before the first whole second.
        quality: whether a second has the bits `QUALITY`; None where the file says nothing.
        injected: whether a second holds a hardware injection of a compact binary; None where the file says nothing.
    """

    path: Path
    detector: str
    gps_start: int
    sample_rate: int
    duration: int
    key: str | int
    skip: int = 0
    quality: Bool[np.ndarray, " second"] | None = None
    injected: Bool[np.ndarray, " second"] | None = None

    @property
    def gps_end(self) -> int:
        return self.gps_start + self.duration

    @property
    def where(self) -> str:
        return f"{self.path}, {self.detector}, {span(self.gps_start, self.gps_end)}"

    def load(self, first: int = 0, last: int | None = None) -> Seconds:
        """The seconds [first, last), counted from `gps_start`. NaN, zeros throughout and flagged seconds are gaps.

        Raises:
            StrainError: unreadable; infinite values; strain so large that the unit must be another.
        """
        last = self.duration if last is None else last
        begin, end = self.skip + first * self.sample_rate, self.skip + last * self.sample_rate
        with _reading(self.path):
            if isinstance(self.key, str):
                with h5py.File(self.path) as file:
                    values = file[self.key][begin:end].astype(np.float64) * SCALE
            else:
                with np.load(self.path, allow_pickle=False) as archive:
                    values = archive["strain_e21"][self.key, begin:end].astype(np.float64)
        seconds = values.reshape(last - first, self.sample_rate)
        here = f"{self.path}, {self.detector}, {span(self.gps_start + first, self.gps_start + last)}"
        if np.isinf(seconds).any():
            second = self.gps_start + first + int(np.isinf(seconds).any(1).argmax())
            raise StrainError(f"{here}: infinite strain in GPS second {second}: mark missing samples by NaN")
        gaps = {
            "NaN": np.isnan(seconds).any(1),
            "one constant value": seconds.max(1) == seconds.min(1),
            "flagged as bad": np.zeros(last - first, bool) if self.quality is None else ~self.quality[first:last],
        }
        valid = ~np.any(list(gaps.values()), axis=0)
        seconds[~valid] = 0.0
        rms = np.sqrt((seconds[valid] ** 2).mean()) / SCALE if valid.any() else 0.0
        if rms > RMS_LIMIT:
            raise StrainError(
                f"{here}: rms {rms:.1e} is no strain (limit {RMS_LIMIT:.0e}): give dimensionless strain, "
                "or strain x 1e21 as strain_e21 of an .npz"
            )
        found = {name: flags for name, flags in gaps.items() if flags.any()}
        if found:
            zero = self.gps_start + first
            told = "; ".join(
                f"{name}: {', '.join(span(zero + a, zero + b) for a, b in runs(flags))}"
                for name, flags in found.items()
            )
            logger.warning("%s: gaps (%s)", here, told)
        if self.injected is not None and (there := self.injected[first:last] & valid).any():
            zero = self.gps_start + first
            told = ", ".join(span(zero + a, zero + b) for a, b in runs(there))
            logger.warning(
                "%s: hardware injections of compact binaries (%s): what is found there is no event", here, told
            )
        return Seconds(values, valid, "" if valid.any() else " and ".join(found))


def stretches(path: Path) -> list[Stretch]:
    """What a file holds, in order of detector and time; no sample is read.

    Raises:
        StrainError: missing, truncated, of no known kind, or not as its kind has to be.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(HDF5))
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise StrainError(f"{path} is missing: check the name, or run `make data` for the public events") from None
        raise StrainError(f"cannot read {path} ({error.strerror or error}): check its permissions") from None
    if head.startswith(ZIP):
        return _npz(path)
    if head.startswith(FRAME):
        raise StrainError(f"{path} is a frame file: fetch the HDF5 file of the same seconds from gwosc.org")
    if head != HDF5:
        raise StrainError(f"{path} is no HDF5 file and no .npz (or damaged from its first byte): fetch it again")
    with _reading(path), h5py.File(path) as file:
        return _gwosc(path, file) if "strain" in file else _challenge(path, file)


def holds_strain(path: Path) -> bool:
    """Whether a file is one of strain: noise curves and lists of injections have the same endings."""
    with _reading(path):
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                return any(isinstance(item, h5py.Group) for item in file.values())
        if zipfile.is_zipfile(path):
            with np.load(path, allow_pickle=False) as archive:
                return "strain_e21" in archive
    return True  # for `stretches` to say what is wrong with it


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Around reading: what the libraries raise for a damaged file becomes one line."""
    try:
        yield
    except StrainError:
        raise
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        told = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise StrainError(f"{path} is truncated or damaged ({told}): fetch it again") from None


def _npz(path: Path) -> list[Stretch]:
    with _reading(path), np.load(path, allow_pickle=False) as archive:
        missing = [k for k in ("strain_e21", "sample_rate", "gps_start", "detectors") if k not in archive]
        if missing:
            raise StrainError(
                f"{path} has no {', '.join(missing)}: an .npz of strain has strain_e21 [detector, time], sample_rate, "
                "gps_start and detectors"
            )
        shape, names = archive["strain_e21"].shape, [str(name) for name in archive["detectors"].ravel()]
        rate, start = float(archive["sample_rate"]), float(archive["gps_start"])
    if len(shape) != 2 or shape[0] != len(names):
        raise StrainError(f"{path}: strain_e21 is {list(shape)} where [detector, time] of {len(names)} is expected")
    return [_stretch(path, name, start, rate, shape[1], row) for row, name in enumerate(names)]


def _gwosc(path: Path, file: h5py.File) -> list[Stretch]:
    data, meta = file["strain/Strain"], file["meta"]
    start, name = float(meta["GPSstart"][()]), _text(meta["Detector"][()])
    if "Xstart" in data.attrs and float(data.attrs["Xstart"]) != start:
        raise StrainError(
            f"{path}: strain begins at GPS {float(data.attrs['Xstart']):.10g} by its attribute, at {start:.10g} by "
            "meta/GPSstart: fetch it again"
        )
    made = _stretch(path, name, start, 1.0 / float(data.attrs["Xspacing"]), len(data), "strain/Strain")
    if "Duration" in meta and float(meta["Duration"][()]) != len(data) / made.sample_rate:
        raise StrainError(
            f"{made.where}: {len(data)} samples are {len(data) / made.sample_rate:g} s, meta/Duration says "
            f"{float(meta['Duration'][()]):g}: fetch it again"
        )
    quality = _flags(file, "simple/DQ", QUALITY, made)
    clean = _flags(file, "injections/Inj", (NO_INJECTION,), made)
    return [replace(made, quality=quality, injected=None if clean is None else ~clean)]


def _flags(file: h5py.File, kind: str, bits: Sequence[str], made: Stretch) -> Bool[np.ndarray, " second"] | None:
    """Whether each second has all of these bits, of those that the mask knows; None where there is no such mask."""
    if f"quality/{kind}mask" not in file:
        return None
    mask = file[f"quality/{kind}mask"][:]
    names = [_text(n) for n in file[f"quality/{kind}Shortnames"][:]]
    if len(mask) != made.duration or made.skip:
        raise StrainError(
            f"{made.where}: {len(mask)} quality flags ({kind}mask) for {made.duration} seconds: fetch it again"
        )
    good = np.ones(len(mask), bool)
    for bit in bits:
        if bit in names:
            good &= (mask >> names.index(bit)) & 1 == 1
    return good


def _challenge(path: Path, file: h5py.File) -> list[Stretch]:
    groups = {name: group for name, group in file.items() if isinstance(group, h5py.Group)}
    found = [
        _stretch(path, name, float(data.attrs["start_time"]), 1.0 / float(data.attrs["delta_t"]), len(data), data.name)
        for name, group in groups.items()
        for data in group.values()
        if isinstance(data, h5py.Dataset) and {"start_time", "delta_t"} <= set(data.attrs)
    ]
    if not found:
        raise StrainError(
            f"{path} holds no strain: strain/Strain (GWOSC), or H1/<gps> with start_time and delta_t (challenge), is "
            "expected"
        )
    return sorted(found, key=lambda s: (s.detector, s.gps_start))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _stretch(path: Path, name: str, start: float, rate: float, samples: int, key: str | int) -> Stretch:
    """Cut to whole seconds; refused where samples do not fall on them, since times would be off."""
    place = f"{path}, {name}, GPS {start:.10g}"
    if name not in DETECTORS:
        raise StrainError(f"{place}: unknown detector {name!r}: known are {', '.join(DETECTORS)}")
    whole = round(rate) if np.isfinite(rate) else 0
    if whole < 1 or abs(rate / whole - 1) > 1e-9:
        raise StrainError(f"{place}: {rate:g} samples a second are no whole number: resample the file")
    first = int(np.ceil(start))
    skip = (first - start) * whole
    if abs(skip - round(skip)) > 1e-3:
        raise StrainError(f"{place}: no sample falls on a GPS second at {whole} Hz: times would be off, resample it")
    duration = (samples - round(skip)) // whole
    if duration < 1:
        raise StrainError(f"{place}: {samples} samples at {whole} Hz hold no whole second: give a longer stretch")
    left_over = samples - duration * whole
    if left_over:
        logger.warning("%s: %d samples outside whole GPS seconds are left out", place, left_over)
    return Stretch(path, name, first, whole, duration, key, round(skip))
