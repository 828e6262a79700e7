"""Strain from files of every kind: one clock, gaps that stay gaps, and every bad input named."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mma_realtime.data import strain as module
from mma_realtime.data import strain_files
from mma_realtime.data.mlgwsc import write_strain
from mma_realtime.data.strain import (
    Strain,
    blocks,
    decimate,
    event_files,
    read_event,
    read_strain,
    time_reversed,
    write_npz,
)
from mma_realtime.data.strain_parts import HOLE, gather, spans
from mma_realtime.errors import StrainError

RATE = 64  # of most files here: nothing below depends on it
START = 1_126_259_446
S, E = START, START + 12


def noise(seconds: int, rate: int = RATE, seed: int = 0, size: float = 1e-21) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=seconds * rate) * size


def gwosc(
    path: Path,
    detector: str = "H1",
    start: float = START,
    values: np.ndarray | None = None,
    rate: float = RATE,
    mask: np.ndarray | None = None,
    injections: np.ndarray | None = None,
    **changed: object,
) -> Path:
    """A file as GWOSC writes it; `changed` replaces `Xstart`, `Duration`."""
    values = noise(12, round(rate)) if values is None else values
    mask = np.full(int(len(values) / rate), 127, np.uint32) if mask is None else mask
    with h5py.File(path, "w") as file:
        data = file.create_dataset("strain/Strain", data=values)
        data.attrs.update({"Xspacing": 1 / rate, "Xstart": changed.get("Xstart", start)})
        file["meta/GPSstart"], file["meta/Detector"] = start, np.bytes_(detector)
        file["meta/Duration"] = changed.get("Duration", len(values) / rate)
        file["quality/simple/DQmask"] = mask
        file["quality/simple/DQShortnames"] = np.array(
            [b"DATA", b"CBC_CAT1", b"CBC_CAT2", b"CBC_CAT3", b"BURST_CAT1", b"BURST_CAT2", b"BURST_CAT3"]
        )
        if injections is not None:
            file["quality/injections/Injmask"] = injections
            file["quality/injections/InjShortnames"] = np.array([b"NO_BURST_HW_INJ", b"NO_CBC_HW_INJ"])
    return path


def npz(path: Path, values: np.ndarray, start: float = START, rate: float = RATE, detectors=("H1", "L1")) -> Path:
    np.savez(path, strain_e21=values, sample_rate=rate, gps_start=start, detectors=np.array(detectors))
    return path


def read(*paths: Path, **options) -> Strain:
    return read_strain(*paths, **{"sample_rate": RATE, "psd_seconds": 4, **options})


# -- what is read -----------------------------------------------------------------------------------------------------


def test_three_kinds_of_files_hold_the_same(tmp_path):
    h, l = noise(12, seed=1), noise(12, seed=2)
    files = [gwosc(tmp_path / "L.hdf5", "L1", values=l), gwosc(tmp_path / "H.hdf5", values=h)]
    first = read(*files)
    assert (first.detectors, first.gps_start, first.duration) == (("H1", "L1"), START, 12)
    assert first.values == pytest.approx(1e21 * np.stack([h, l]), rel=1e-12)
    assert first.segments() == [(START, START + 12)]
    write_strain(tmp_path / "challenge.hdf", first)
    write_npz(first, tmp_path / "both.npz")
    assert read(tmp_path / "challenge.hdf").values == pytest.approx(first.values, rel=1e-12)
    assert np.array_equal(read(tmp_path / "both.npz").values, first.values.astype(np.float32))
    mixed = read(tmp_path / "both.npz", gwosc(tmp_path / "V.hdf5", "V1"))
    assert mixed.detectors == ("H1", "L1", "V1")


def test_seconds_without_data_are_gaps_not_zeros(tmp_path, caplog):
    h, l = noise(12, seed=1), noise(12, seed=2)
    mask = np.full(12, 127, np.uint32)
    h[2 * RATE + 5] = np.nan  # one sample spoils its second
    h[4 * RATE : 5 * RATE] = 0.0
    mask[6] -= 1  # no data
    mask[7] -= 2  # fails category 1
    mask[8] -= 4  # fails category 2: may be searched
    got = read(gwosc(tmp_path / "H", values=h, mask=mask), gwosc(tmp_path / "L", "L1", values=l), psd_seconds=1)
    bad = np.isin(np.arange(12), [2, 4, 6, 7])
    assert np.array_equal(got.valid, [~bad, np.ones(12, bool)])
    seconds = got.values.reshape(2, 12, RATE)
    assert not seconds[0, bad].any()
    assert np.array_equal(seconds[0, ~bad], 1e21 * h.reshape(12, RATE)[~bad])
    assert got.segments() == [(START + a, START + b) for a, b in ((0, 2), (3, 4), (5, 6), (8, 12))]
    assert "NaN: GPS 1126259448 to 1126259449" in caplog.text
    assert "flagged as bad: GPS 1126259452 to 1126259454" in caplog.text


def test_hardware_injections_of_binaries_are_told_and_stay(tmp_path, caplog):
    mask, injections = np.full(12, 127, np.uint32), np.full(12, 3, np.uint32)
    injections[2] -= 1  # a burst: no business of this search
    read(gwosc(tmp_path / "clean", mask=mask, injections=injections))
    assert not caplog.records
    injections[[5, 6, 9]] -= 2
    mask[9] -= 1  # without data nothing is found anyway
    path = gwosc(tmp_path / "H", mask=mask, injections=injections)
    assert read(path).valid[0].sum() == 11
    (line,) = [r.getMessage() for r in caplog.records if "hardware injections of" in r.getMessage()]
    assert str(path) in line
    assert "hardware injections of compact binaries (GPS 1126259451 to 1126259453)" in line
    caplog.clear()
    next(blocks(gather([path], RATE), START, START + 12, RATE, block=4))
    assert "hardware injections of" not in caplog.text  # only of the seconds that are read
    with pytest.raises(StrainError, match=r"5 quality flags \(injections/Injmask\) for 12 seconds"):
        read(gwosc(tmp_path / "short", injections=injections[:5]))


def test_a_gap_between_files_stays_one(tmp_path):
    got = read(
        gwosc(tmp_path / "a", values=noise(5)), gwosc(tmp_path / "b", start=START + 8, values=noise(4)), psd_seconds=5
    )
    assert np.array_equal(got.valid, [np.isin(np.arange(12), [5, 6, 7], invert=True)])
    assert not got.values[0, 5 * RATE : 8 * RATE].any()


def test_whole_seconds_are_cut_out_and_times_stay(tmp_path, caplog):
    values = noise(8)[: 6 * RATE + 32 + 7]
    got = read(npz(tmp_path / "a.npz", values[None], START - 0.5, detectors=("H1",)))
    assert (got.gps_start, got.duration) == (START, 6)
    assert np.array_equal(got.values[0], values[RATE // 2 :][: 6 * RATE])
    assert "39 samples outside whole GPS seconds are left out" in caplog.text


def chirp(rate: int, seconds: int) -> np.ndarray:
    """Tones below 0.45 of 64 Hz on a wall of 1e4 times their size at 1 Hz."""
    t = np.arange(seconds * rate) / rate
    return 1e4 * np.sin(2 * np.pi * t + 1) + np.sin(2 * np.pi * 7.3 * t) + np.cos(2 * np.pi * 28.0 * t)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_resampling_keeps_times_and_what_the_new_rate_can_hold(factor):
    got = decimate(chirp(factor * RATE, 10), np.ones(10, bool), factor)
    inside = slice(2 * RATE, -2 * RATE)
    assert np.abs(got - chirp(RATE, 10))[inside].max() < 0.2  # of tones of 1 on a wall of 1e4
    above = decimate(
        np.sin(2 * np.pi * 36 * np.arange(10 * factor * RATE) / (factor * RATE)), np.ones(10, bool), factor
    )
    assert np.abs(above[inside]).max() < 1e-3  # 36 Hz would come back as 28 Hz


def test_resampling_never_looks_across_a_gap():
    values, valid = chirp(2 * RATE, 9), np.ones(9, bool)
    valid[4] = False
    poisoned = values.copy()
    poisoned[8 * RATE : 10 * RATE] = 1e12
    assert np.array_equal(decimate(values, valid, 2), decimate(poisoned, valid, 2))
    # and the wall does not ring at the edge of the gap
    edge = decimate(values, valid, 2)[4 * RATE - 8 : 4 * RATE] - chirp(RATE, 9)[4 * RATE - 8 : 4 * RATE]
    assert np.abs(edge).max() < 30


def test_strain_in_blocks_is_the_whole_read_at_once(tmp_path):
    rng = np.random.default_rng(3)
    for k, length in enumerate((7, 6)):
        for name in ("H1", "L1"):
            gwosc(
                tmp_path / f"{name}-{9 - k}.hdf5",  # names tell nothing of the order
                name,
                START + 7 * k,
                rng.normal(size=length * 4 * RATE) * 1e-21,
                4 * RATE,
            )
    np.savez(tmp_path / "other.npz", f=np.arange(3))
    whole = read(tmp_path)
    found = list(blocks(gather([tmp_path], RATE), START, START + 13, RATE, block=4))
    assert [(b.gps_start - START, b.duration) for b in found] == [(0, 4), (4, 4), (8, 4), (12, 1)]
    assert np.concatenate([b.values for b in found], 1) == pytest.approx(whole.values, rel=1e-12, abs=1e-12)


def test_files_of_other_rates_are_resampled_each_by_itself(tmp_path):
    rng = np.random.default_rng(3)
    values = [rng.normal(size=6 * rate) * 1e-21 for rate in (4 * RATE, RATE, 2 * RATE)]
    files = [
        gwosc(tmp_path / f"{i}.hdf5", "H1", START + 6 * i, x, len(x) // 6) for i, x in enumerate(values)
    ]  # fmt: skip
    got = read(*files)
    assert got.valid.all()
    alone = [decimate(1e21 * x, np.ones(6, bool), len(x) // 6 // RATE) for x in values]
    assert got.values[0] == pytest.approx(np.concatenate(alone), rel=1e-12)


def test_of_the_same_seconds_in_two_kinds_of_file_one_is_taken(tmp_path, caplog):
    h, l = noise(12, 2 * RATE, seed=1), noise(12, 2 * RATE, seed=2)
    mask = np.full(12, 127, np.uint32)
    mask[5] -= 2
    npz(tmp_path / "both.npz", 1e21 * np.stack([h[::2], l[::2]]))
    one = read(gwosc(tmp_path / "H.hdf5", values=h, rate=2 * RATE, mask=mask), tmp_path / "both.npz")
    assert one.valid.sum(1).tolist() == [11, 12]  # the file of H1 that knows which seconds are bad; L1 is there once
    assert np.array_equal(one.values[1], 1e21 * l[::2])
    (line,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert f"{tmp_path}/both.npz, H1, GPS {S} to {E}: left out, the same seconds are in {tmp_path}/H.hdf5" in line
    gwosc(tmp_path / "H16.hdf5", values=noise(12, 4 * RATE), rate=4 * RATE, mask=mask)
    caplog.clear()
    folder = read(tmp_path)
    assert np.array_equal(folder.values, one.values)  # and of two such files the one with the lower rate
    assert f"{tmp_path}/H16.hdf5, H1, GPS {S} to {E}: left out" in caplog.text


def test_a_folder_may_hold_files_of_other_things(tmp_path):
    gwosc(tmp_path / "H.hdf5")
    np.savez(tmp_path / "psds.npz", f=np.arange(3))
    with h5py.File(tmp_path / "injections.hdf", "w") as file:
        file["tc"] = np.arange(3.0)
    assert read(tmp_path).detectors == ("H1",)


def test_one_stretch_of_files_far_apart_is_read_by_its_gps_range(tmp_path):
    files = [gwosc(tmp_path / "a"), gwosc(tmp_path / "b", start=E + 10**9, values=noise(12, seed=4))]
    parts = gather(files, RATE)
    assert spans(parts) == [(S, E), (E + 10**9, E + 10**9 + 12)]
    got = read(*files, gps=spans(parts)[1])
    assert (got.gps_start, got.duration, got.source) == (E + 10**9, 12, "b")
    assert np.array_equal(got.values[0], 1e21 * noise(12, seed=4))
    near = [files[0], gwosc(tmp_path / "near", start=E + HOLE)]
    assert spans(gather(near, RATE)) == [(S, E + HOLE + 12)]
    assert spans(gather(near, RATE), 0) == [(S, E), (E + HOLE, E + HOLE + 12)]
    assert read(*near).duration == 24 + HOLE


def test_a_file_of_a_dead_detector_among_good_ones_is_a_gap(tmp_path):
    files = [gwosc(tmp_path / "a"), gwosc(tmp_path / "b", start=E, values=np.zeros(12 * RATE))]
    assert read(*files).valid.sum() == 12
    with pytest.raises(StrainError, match=rf"/b, H1, GPS {E} to {E + 12}: every second is a gap \(one constant value"):
        read(files[1])


def test_blocks_mark_what_a_detector_lacks_and_have_a_row_of_each_that_is_asked_for(tmp_path):
    gwosc(tmp_path / "a.hdf5", "H1", START, noise(4))
    gwosc(tmp_path / "b.hdf5", "L1", START + 2, noise(4, seed=1))
    gwosc(tmp_path / "c.hdf5", "H1", START + 9, noise(2))
    gwosc(tmp_path / "d.hdf5", "L1", START + 9, np.zeros(2 * RATE))  # a dead detector stops nothing
    parts = gather([tmp_path], RATE)
    (first,) = blocks(parts, START, START + 6, RATE)
    (second,) = blocks(parts, START + 9, START + 11, RATE, detectors=("H1", "L1", "V1"))
    assert first.valid.astype(int).tolist() == [[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]
    assert second.valid.astype(int).tolist() == [[1, 1], [0, 0], [0, 0]]


def test_samples_of_a_gap_never_leave_the_file(tmp_path):
    values = noise(4)
    values[RATE + 3] = np.nan
    seconds = strain_files.stretches(gwosc(tmp_path / "a", values=values))[0].load(1, 3)
    assert seconds.valid.tolist() == [False, True]
    assert not seconds.values[:RATE].any()


# -- what is done with it ---------------------------------------------------------------------------------------------


def make(valid: np.ndarray, seed: int = 0, rate: int = 8) -> Strain:
    values = np.random.default_rng(seed).normal(size=(*valid.shape, rate))
    values[~valid] = 0.0
    return Strain(("H1", "L1"), 1000.0, rate, values.reshape(len(valid), -1), valid, "made")


VALID = arrays(bool, st.tuples(st.just(2), st.integers(2, 12)))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALID)
def test_npz_round_trip(tmp_path, valid):
    valid[:, [0, -1]] = True
    write_npz(made := make(valid), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:  # what reads it and knows no flags is not to take a gap for quiet
        assert np.array_equal(np.isnan(file["strain_e21"]).reshape(2, -1, 8).all(2), ~valid)
    got = read_strain(tmp_path / "a.npz", sample_rate=8, psd_seconds=1)
    assert np.array_equal(got.valid, valid)
    assert np.array_equal(got.values, made.values.astype(np.float32))


@settings(max_examples=50, deadline=None)
@given(VALID, st.data())
def test_segments_slices_and_reversal(valid, data):
    made = make(valid)
    covered = np.zeros(made.duration, bool)
    for a, b in made.segments():
        covered[int(a - 1000) : int(b - 1000)] = True
        assert made.slice(a, b).valid.all()
    assert np.array_equal(covered, valid.all(0))
    a = data.draw(st.integers(0, made.duration - 1))
    b = data.draw(st.integers(a + 1, made.duration))
    part = made.slice(1000.0 + a, 1000.0 + b)
    assert np.array_equal(part.values, made.values[:, 8 * a : 8 * b])
    twice = time_reversed(time_reversed(made))
    assert twice.fingerprint == made.fingerprint
    assert np.array_equal(time_reversed(made).values[:, -1], made.values[:, 0])
    assert np.array_equal(time_reversed(made).valid, valid[:, ::-1])


def test_fingerprint_sees_everything_a_search_sees():
    made = make(np.ones((2, 3), bool))
    other = make(np.ones((2, 3), bool))
    other.values[1, -1] += 1e-9
    changed = [
        other,
        Strain(("H1", "L1"), 1000.0, 8, made.values, np.array([[True, True, False], [True, True, True]])),
        Strain(("H1", "V1"), 1000.0, 8, made.values, made.valid),
        Strain(("H1", "L1"), 1001.0, 8, made.values, made.valid),
        Strain(("H1", "L1"), 1000.0, 12, np.zeros((2, 24)), np.ones((2, 2), bool)),
    ]
    assert len({made.fingerprint, *(strain.fingerprint for strain in changed)}) == 6
    assert Strain(("H1", "L1"), 1000.0, 8, made.values, made.valid, "elsewhere").fingerprint == made.fingerprint


def test_select_and_slice_say_what_is_not_there():
    made = make(np.ones((2, 3), bool))
    uneven = make(np.array([[True, True, False], [True, True, True]]))
    assert np.array_equal(uneven.select("L1", "H1").values, uneven.values[::-1])
    assert np.array_equal(uneven.select("L1").valid, uneven.valid[1:])
    with pytest.raises(StrainError, match="made has no K1, it has H1, L1"):
        made.select("H1", "K1")
    for ends in ((999, 1002), (1000, 1004), (1001, 1001), (1000.5, 1002)):
        with pytest.raises(StrainError, match=r"GPS 1000 to 1003: cannot take GPS .*: give whole seconds within it"):
            made.slice(*ends)
    with pytest.raises(
        StrainError, match=r"values are float64 \[2, 24\], float64 \[2, 32\] are expected of H1, L1, 4 s"
    ):
        Strain(("H1", "L1"), 1000.0, 8, made.values, np.ones((2, 4), bool))


# -- what is refused --------------------------------------------------------------------------------------------------

Maker = Callable[[Path], list[Path]]


def two(path: Path, **changed) -> list[Path]:
    """H1 as it should be, L1 with something changed."""
    return [
        gwosc(path / "H.hdf5"),
        gwosc(path / "L.hdf5", **{"detector": "L1", "values": noise(12, seed=2), **changed}),
    ]


def spoilt(values: float | np.ndarray, first: int = 0, last: int = 12) -> np.ndarray:
    out = noise(12, seed=2)
    out[first * RATE : last * RATE] = values
    return out


BAD: dict[str, tuple[Maker, str]] = {
    "a sample rate that is no multiple": (
        lambda p: two(p, values=noise(12, 100), rate=100),
        rf"/L.hdf5, L1, GPS {S} to {E}: 100 Hz is no multiple of 64 Hz",
    ),
    "a lower sample rate": (lambda p: two(p, values=noise(12, 32), rate=32), "32 Hz is no multiple of 64 Hz"),
    "a rate that is no multiple in a later file": (
        lambda p: [gwosc(p / "a"), gwosc(p / "b", start=E, values=noise(12, 96), rate=96)],
        rf"/b, H1, GPS {E} to {E + 12}: 96 Hz is no multiple of 64 Hz",
    ),
    "a sample rate that is no whole number": (
        lambda p: two(p, rate=64.5),
        "/L.hdf5, L1, GPS .*: 64.5 samples a second",
    ),
    "samples between the seconds": (
        lambda p: [npz(p / "a.npz", np.ones((2, 640)), START + 0.001)],
        r"/a.npz, H1, GPS 1126259446: no sample falls on a GPS second at 64 Hz",
    ),
    "an unknown detector": (
        lambda p: two(p, detector="X1"),
        rf"/L.hdf5, X1, GPS {S}: unknown detector 'X1': known are H1, L1, V1, K1",
    ),
    "NaN throughout": (
        lambda p: two(p, values=spoilt(np.nan)),
        rf"/L.hdf5, L1, GPS {S} to {E}: every second is a gap \(NaN\)",
    ),
    "zeros throughout": (
        lambda p: two(p, values=spoilt(0.0)),
        rf"/L.hdf5, L1, GPS {S} to {E}: every second is a gap \(one constant value\)",
    ),
    "flagged throughout": (lambda p: two(p, mask=np.full(12, 126)), r"every second is a gap \(flagged as bad\)"),
    "infinite values": (
        lambda p: two(p, values=spoilt(np.inf, 3, 4)),
        rf"/L.hdf5, L1, GPS {S} to {E}: infinite strain in GPS second {S + 3}",
    ),
    "wrong units": (
        lambda p: two(p, values=noise(12, size=1.0)),
        rf"/L.hdf5, L1, GPS {S} to {E}: rms 1.0e\+00 is no strain \(limit 1e-15\)",
    ),
    "wrong units in an .npz": (
        lambda p: [npz(p / "a.npz", np.random.default_rng(0).normal(size=(2, 640)) * 1e7)],
        r"/a.npz, H1, GPS .* to .*: rms 1.0e-14 is no strain",
    ),
    "shorter than the noise is estimated from": (
        lambda p: [gwosc(p / "H.hdf5", values=noise(3))],
        rf"/H.hdf5, H1, GPS {S} to {S + 3}: the longest gapless stretch is 3 s, the noise is estimated from 4 s",
    ),
    "gaps that leave too little": (
        lambda p: two(p, values=np.concatenate([spoilt(np.nan, i, i + 1)[: 2 * RATE] for i in (1,) * 6])),
        rf"/L.hdf5, L1, GPS {S} to {E}: the longest gapless stretch is 1 s",
    ),
    "unsorted files": (
        lambda p: [gwosc(p / "late", start=E), gwosc(p / "early")],
        rf"not in order of time: .*/early, H1, GPS {S} to {E} comes after .*/late, H1, GPS {E} to {E + 12}: sort them",
    ),
    "overlapping files": (
        lambda p: [gwosc(p / "a"), gwosc(p / "b", start=E - 1)],
        rf"overlap in GPS {E - 1} to {E}: .*/a, H1, .*; .*/b, H1, .*: leave one of them out",
    ),
    "two files of the same seconds and kind": (
        lambda p: [gwosc(p / "a"), gwosc(p / "b", values=noise(12, seed=5))],
        rf"files overlap in GPS {S} to {E}: .*/a, H1, .*; .*/b, H1, .*: leave one of them out",
    ),
    "files far apart": (
        lambda p: [gwosc(p / "a"), gwosc(p / "b", start=E + 3600), gwosc(p / "c", start=E + 10**8)],
        rf"nothing between GPS {E} \(.*/a, H1, GPS {S} to {E}\) and GPS {E + 3600} \(.*/b, H1, GPS .*\): one stretch",
    ),
    "the same file twice": (lambda p: [gwosc(p / "a"), p / "a"], rf"files overlap in GPS {S} to {E}"),
    "detectors with different spans": (
        lambda p: two(p, start=START + 2),
        rf"different spans: H1 \(.*/H.hdf5\) GPS {S} to {E}, L1 \(.*/L.hdf5\) GPS {S + 2} to {E + 2}: .*partial=True",
    ),
    "detectors without a common second": (lambda p: two(p, start=E), "different spans: .* files of the same seconds$"),
    "a start that two places tell differently": (
        lambda p: two(p, Xstart=START + 1),
        rf"/L.hdf5: strain begins at GPS {S + 1} by its attribute, at {S} by meta/GPSstart",
    ),
    "a duration that does not fit": (lambda p: two(p, Duration=32), r"768 samples are 12 s, meta/Duration says 32"),
    "flags that do not fit": (
        lambda p: two(p, mask=np.full(5, 127)),
        r"5 quality flags \(simple/DQmask\) for 12 seconds",
    ),
    "no files": (lambda p: [], "no strain: name files"),
    "a folder without strain": (lambda p: [p], "holds no strain: files ending in .npz, .hdf5, .h5, .hdf"),
    "a missing file": (lambda p: [p / "none.hdf5"], "/none.hdf5 is missing: check the name"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(tmp_path, name):
    maker, message = BAD[name]
    with pytest.raises(StrainError, match=message) as caught:
        read(*maker(tmp_path))
    assert "\n" not in str(caught.value)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["hdf5", "npz"])
def test_truncated_files(tmp_path, kind):
    whole = (gwosc(tmp_path / "a") if kind == "hdf5" else npz(tmp_path / "a.npz", np.ones((2, 640)))).read_bytes()
    for length in (20, len(whole) // 3, len(whole) // 2, len(whole) - 9):
        with pytest.raises(StrainError, match=r"/cut is truncated or damaged \(.*\): fetch it again"):
            read(write(tmp_path / "cut", whole[:length]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no HDF5 file and no .npz"),
        (b"<html>log in</html>", "is no HDF5 file and no .npz"),
        (b"IGWD....", "is a frame file: fetch the HDF5 file"),
        (b"PK\x03\x04rubbish", "is truncated or damaged"),
    ],
)
def test_files_of_other_kinds(tmp_path, content, message):
    with pytest.raises(StrainError, match=rf"/file {message}"):
        read(write(tmp_path / "file", content))


def test_other_hdf5_and_npz(tmp_path):
    with h5py.File(tmp_path / "other", "w") as file:
        file["H1/x"] = np.ones(3)
    with pytest.raises(StrainError, match=r"other holds no strain: strain/Strain \(GWOSC\), or H1/<gps>"):
        read(tmp_path / "other")
    np.savez(tmp_path / "other.npz", strain_e21=np.ones((2, 640)), sample_rate=64)
    with pytest.raises(StrainError, match=r"has no gps_start, detectors: an .npz of strain has"):
        read(tmp_path / "other.npz")
    with pytest.raises(StrainError, match=r"strain_e21 is \[640\] where \[detector, time\] of 2"):
        read(npz(tmp_path / "flat.npz", np.ones(640)))
    np.savez(tmp_path / "pickle.npz", strain_e21=np.array([object()]), sample_rate=1, gps_start=1, detectors=["H1"])
    with pytest.raises(StrainError, match=r"pickle.npz is truncated or damaged"):
        read(tmp_path / "pickle.npz")


def test_different_spans_can_be_allowed(tmp_path):
    got = read(*two(tmp_path, start=START + 2), partial=True)
    assert got.segments() == [(START + 2, START + 12)]
    assert (got.gps_start, got.duration) == (START, 14)
    with pytest.raises(StrainError, match="different spans"):
        read(*two(tmp_path, start=E), partial=True)


# -- the public events ------------------------------------------------------------------------------------------------


def test_event_files_prefer_the_npz_and_take_the_originals(tmp_path):
    (tmp_path / "gwosc").mkdir()
    assert event_files("GW150914", tmp_path) == ()
    originals = tuple(tmp_path / "gwosc" / f"{s}-{s}1_LOSC_4_V2-1126259446-32.hdf5" for s in "HL")
    gwosc(originals[0], values=noise(32, 128), rate=128)
    assert event_files("GW150914", tmp_path) == ()  # one detector of two
    gwosc(originals[1], "L1", values=noise(32, 128, 1), rate=128)
    assert event_files("GW150914", tmp_path) == originals
    strain, gps = read_event(*originals, sample_rate=RATE)
    assert (gps, strain.duration, strain.sample_rate) == (1126259462.4, 32, RATE)
    file = npz(tmp_path / "gwosc" / "event_GW150914.npz", 1e21 * np.stack([noise(32), noise(32, seed=1)]))
    assert event_files("GW150914", tmp_path) == (file,)
    assert read_event(file, sample_rate=RATE)[1] == 1126259462.4
    with pytest.raises(StrainError, match="holds none of GW150914, GW170104: use read_strain"):
        read_event(gwosc(tmp_path / "a"), sample_rate=RATE)


def test_real_strain_from_both_kinds_of_file_agrees(caplog):
    if not os.environ.get("DATA_ROOT"):
        pytest.skip("DATA_ROOT is not set: no real strain")
    folder = Path(os.environ["DATA_ROOT"]) / "gwosc"
    originals = [folder / f"{s}-{s}1_{module.EVENTS['GW150914'][1]}" for s in "HL"]
    if not all(path.is_file() for path in (folder / "event_GW150914.npz", *originals)):
        pytest.skip(f"GW150914 is not in {folder}: run `make data`")
    with caplog.at_level(logging.WARNING):
        (a, gps), (b, near) = read_event(folder / "event_GW150914.npz"), read_event(*originals)
    assert abs(gps - near) < 0.1
    assert not caplog.records
    # The same samples but for the filters' ends: in the band that is searched they agree to a part in a thousand.
    window = np.hanning(30 * 2048)
    one, other = (np.fft.rfft(s.values[:, 2048:-2048] * window) for s in (a, b))
    band = slice(30 * 20, 30 * 400)
    assert (np.abs(one - other)[:, band] ** 2).sum() < 1e-6 * (np.abs(one)[:, band] ** 2).sum()
