"""The challenge's files: what is written is read back, and what cannot be evaluated is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mma_realtime.data.mlgwsc import (
    Events,
    chirp_mass,
    read_events,
    read_injections,
    write_events,
    write_injections,
    write_strain,
)
from mma_realtime.data.strain import Strain, read_strain
from mma_realtime.errors import SearchError

RATE = 64


def strain(valid: np.ndarray, start: float = 1000.0, seed: int = 0) -> Strain:
    detectors = ("H1", "L1")[: len(valid)]
    values = np.random.default_rng(seed).normal(size=(len(valid), valid.shape[1], RATE))
    values[~valid] = 0.0
    return Strain(detectors, start, RATE, values.reshape(len(valid), -1), valid, "test")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays(bool, (2, 9)), st.integers(10, 2_000_000_000))
def test_strain_round_trip_keeps_gaps(tmp_path, valid, start):
    valid[:, [0, -1]] = True
    written = strain(valid, float(start))
    write_strain(tmp_path / "s.hdf", written)
    read = read_strain(tmp_path / "s.hdf", sample_rate=RATE, psd_seconds=1)
    assert (read.detectors, read.gps_start, read.sample_rate) == (("H1", "L1"), start, RATE)
    assert np.array_equal(read.valid, valid)
    assert read.values == pytest.approx(written.values, rel=1e-14, abs=0)


def test_strain_is_written_as_the_challenge_has_it(tmp_path):
    valid = np.ones((2, 6), bool)
    valid[1, 3] = False
    write_strain(tmp_path / "s.hdf", written := strain(valid))
    with h5py.File(tmp_path / "s.hdf") as file:
        assert {name: sorted(group) for name, group in file.items()} == {"H1": ["1000"], "L1": ["1000", "1004"]}
        data = file["L1/1004"]
        assert (data.dtype, data.attrs["start_time"], data.attrs["delta_t"]) == (np.float64, 1004.0, 1 / RATE)
        assert data[:] * 1e21 == pytest.approx(written.values[1, 4 * RATE :], rel=1e-14)


FINITE = st.floats(-1e9, 1e9)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(FINITE, FINITE, st.floats(0, 10)), max_size=9))
def test_events_round_trip_in_order_of_time(tmp_path, rows):
    rows.sort(key=lambda row: row[0])
    columns = np.array(rows, dtype=np.float64).reshape(-1, 3)
    shuffled = columns[np.argsort(np.random.default_rng(0).random(len(columns)), kind="stable")] if rows else columns
    write_events(tmp_path / "e.hdf", Events(*shuffled.T))
    read = read_events(tmp_path / "e.hdf")
    assert np.array_equal(read.time, columns[:, 0])
    assert sorted(zip(*read)) == sorted(map(tuple, columns.tolist()))


GOOD = {"tc": [30.0, 10.0], "distance": [900.0, 500.0], "mass1": [36.0, 20.0], "mass2": [29.0, 10.0], "ra": [1.0, 2.0]}


def arrays_of(columns: dict) -> dict:
    return {key: np.array(column, dtype=np.float64) for key, column in columns.items()}


def test_injections_come_in_order_with_every_column(tmp_path):
    write_injections(tmp_path / "i.hdf", arrays_of(GOOD))
    read = read_injections(tmp_path / "i.hdf")
    assert (list(read["tc"]), list(read["mass1"]), list(read["ra"])) == ([10, 30], [20, 36], [2, 1])
    assert read["mchirp"] == pytest.approx([12.1673, 28.0956], abs=1e-4)
    assert chirp_mass(np.array([1.4]), np.array([1.4])) == pytest.approx(1.4 * 2**-0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mass2": None}, "has no mass2: injections have the columns tc, distance, mass1, mass2"),
        ({"mass1": [36.0, -1.0]}, "mass1 has values of 0 or below"),
        ({"tc": [30.0, np.nan]}, "tc has NaN or infinite values"),
        ({"ra": [1.0]}, "columns differ in length: .*ra 1"),
    ],
)
def test_injections_that_cannot_be(tmp_path, change, message):
    columns = {key: column for key, column in {**GOOD, **change}.items() if column is not None}
    write_injections(tmp_path / "i.hdf", arrays_of(columns))
    with pytest.raises(SearchError, match=rf"^{tmp_path}/i.hdf:? {message}"):
        read_injections(tmp_path / "i.hdf")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time": [1.0], "stat": [1.0]}, "has no var"),
        ({"time": [1.0], "stat": [np.inf], "var": [0.3]}, "stat has NaN or infinite"),
        ({"time": [1.0], "stat": [1.0], "var": [-0.3]}, "var has negative values"),
    ],
)
def test_events_that_cannot_be(tmp_path, columns, message):
    write_injections(tmp_path / "e.hdf", arrays_of(columns))
    with pytest.raises(SearchError, match=message):
        read_events(tmp_path / "e.hdf")


def test_files_that_cannot_be_read_or_written(tmp_path):
    write_events(tmp_path / "e.hdf", Events(*np.ones((3, 5000))))
    whole = (tmp_path / "e.hdf").read_bytes()
    (tmp_path / "e.hdf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.hdf").write_text("no HDF5")
    for name, message in (("e", "is truncated or no HDF5"), ("text", "is truncated or no HDF5"), ("x", "is missing")):
        with pytest.raises(SearchError, match=message):
            read_events(tmp_path / f"{name}.hdf")
    with pytest.raises(SearchError, match="cannot write"):
        write_events(Path(tmp_path / "text.hdf" / "in" / "e.hdf"), Events(*np.ones((3, 1))))
