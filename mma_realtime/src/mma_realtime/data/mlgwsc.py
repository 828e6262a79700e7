"""The files of the mock data challenge MLGWSC-1 (section 3): strain, injections, and the events that a search returns.

    strain      `H1/<gps>`, `L1/<gps>`: float64, attributes `start_time` (GPS s), `delta_t` (s); read by `read_strain`
    injections  `tc`, `distance` (Mpc), `mass1`, `mass2` (solar masses, detector frame), `chirp_distance`, `mchirp`, ...
    events      `time` (GPS s), `stat`, `var` (s: how far off the time may be)

A searching program reads the first and writes the last; the evaluator reads all but the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from jaxtyping import Float64
from shared.errors import disk_error

from mma_realtime.data.strain import Strain
from mma_realtime.data.strain_files import runs
from mma_realtime.errors import SearchError
from mma_realtime.gw.constants import SCALE

VAR = 0.3  # s, the challenge's tolerance of an event's time
NEEDED = ("tc", "distance", "mass1", "mass2")  # of an injection, to be evaluated
Injections = dict[str, Float64[np.ndarray, " n"]]


class Events(NamedTuple):
    """What a search found.

    Attributes:
        time: GPS s.
        stat: the larger the surer.
        var: s; an injection within it of `time` was found.
    """

    time: Float64[np.ndarray, " n"]
    stat: Float64[np.ndarray, " n"]
    var: Float64[np.ndarray, " n"]


def chirp_mass(mass1: Float64[np.ndarray, " n"], mass2: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """(m1 m2)^(3/5) / (m1 + m2)^(1/5), solar masses."""
    return (mass1 * mass2) ** 0.6 / (mass1 + mass2) ** 0.2


def write_strain(path: Path, strain: Strain) -> None:
    """Strain as the challenge has it, unscaled; each gapless stretch of a detector is a data set, gaps are left out."""
    with _writing(path) as file:
        for name, values, valid in zip(strain.detectors, strain.values, strain.valid, strict=True):
            group = file.create_group(name)
            for a, b in runs(valid):
                start = strain.gps_start + a
                data = group.create_dataset(
                    f"{start:.10g}", data=values[a * strain.sample_rate : b * strain.sample_rate] / SCALE
                )
                data.attrs["start_time"], data.attrs["delta_t"] = start, 1.0 / strain.sample_rate
        file.attrs["detectors"] = list(strain.detectors)


def read_injections(path: Path) -> Injections:
    """The numbers of every injection, in order of `tc`; `mchirp` is computed where it is not there.

    Raises:
        SearchError: missing, damaged, a key of `NEEDED` not there, lengths that differ, or values that cannot be.
    """
    columns = _columns(path, NEEDED, "injections")
    for key in NEEDED[1:]:
        if (columns[key] <= 0).any():
            raise SearchError(f"{path}: {key} has values of 0 or below: distances are in Mpc, masses in solar masses")
    columns.setdefault("mchirp", chirp_mass(columns["mass1"], columns["mass2"]))
    order = np.argsort(columns["tc"], kind="stable")
    return {key: column[order] for key, column in columns.items()}


def write_injections(path: Path, injections: Mapping[str, Float64[np.ndarray, " n"]]) -> None:
    """One data set a key."""
    with _writing(path) as file:
        for key, column in injections.items():
            file[key] = column


def read_events(path: Path) -> Events:
    """What a search wrote, in order of time.

    Raises:
        SearchError: missing, damaged, a key not there, lengths that differ, NaN, or a negative tolerance.
    """
    columns = _columns(path, Events._fields, "events")
    if (columns["var"] < 0).any():
        raise SearchError(f"{path}: var has negative values: it is the seconds that a time may be off")
    order = np.argsort(columns["time"], kind="stable")
    return Events(*(columns[key][order] for key in Events._fields))


def write_events(path: Path, events: Events) -> None:
    with _writing(path) as file:
        for key, column in zip(Events._fields, events, strict=True):
            file[key] = np.asarray(column, dtype=np.float64)


def _columns(path: Path, needed: tuple[str, ...], what: str) -> dict[str, Float64[np.ndarray, " n"]]:
    """The numeric columns of a file, all of one length, those needed without NaN."""
    if not path.is_file():
        raise SearchError(f"{path} is missing: name the HDF5 file of {what}")
    try:
        with h5py.File(path) as file:
            columns = {
                key: data[:].astype(np.float64)
                for key, data in file.items()
                if isinstance(data, h5py.Dataset) and data.ndim == 1 and data.dtype.kind in "iuf"
            }
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:  # h5py has one for every kind of damage
        raise SearchError(f"{path} is truncated or no HDF5 file ({str(error)[:80]}): write it anew") from None
    missing = [key for key in needed if key not in columns]
    if missing:
        raise SearchError(f"{path} has no {', '.join(missing)}: {what} have the columns {', '.join(needed)}")
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise SearchError(f"{path}: columns differ in length: {', '.join(f'{k} {n}' for k, n in lengths.items())}")
    for key in needed:
        if not np.isfinite(columns[key]).all():
            raise SearchError(f"{path}: {key} has NaN or infinite values: write it anew")
    return columns


def _writing(path: Path) -> h5py.File:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return h5py.File(path, "w")
    except OSError as error:
        raise disk_error(error, path) or SearchError(f"cannot write {path} ({error}): name another place") from None


def __getattr__(name: str) -> Any:
    """`MLGWSCDataModule` (section 3), which needs Lightning."""
    if name != "MLGWSCDataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("mma_realtime.search.windows").MLGWSCDataModule
