"""Conditioning (section 4): a whitened second depends on the strain around it and on nothing else."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.data.strain import Strain, event_files, read_event
from mma_realtime.errors import SearchError
from mma_realtime.search.conditioning import Conditioner
from mma_realtime.search.periodograms import median_bias, periodogram, widened_lines

FS, RATE, START = 2048, 1024, 1_000_000_000.0


def coloured(seconds: int, seed: int = 0, detectors: int = 2, wall: float = 1e3) -> Strain:
    """Noise with a line at 60 Hz and, below 15 Hz, a wall `wall` times higher still: 17,000 times that at 100 Hz."""
    rng = np.random.default_rng(seed)
    n = seconds * FS
    f = np.fft.rfftfreq(n, 1 / FS)
    asd = 0.01 * (1 + (60 / np.maximum(f, 15)) ** 2) + 3.0 * np.exp(-(((f - 60) / 0.3) ** 2))
    asd = np.where(f < 15, asd * wall, asd)
    values = np.fft.irfft(np.fft.rfft(rng.normal(size=(detectors, n))) * asd, n) * np.sqrt(FS / 2)
    return Strain(("H1", "L1")[:detectors], START, FS, values, np.ones((detectors, seconds), bool), "coloured noise")


def whole(conditioner: Conditioner, strain: Strain) -> tuple[np.ndarray, np.ndarray]:
    parts = list(conditioner.whitened(strain))
    return np.concatenate([p.values for p in parts], 1), np.concatenate([p.valid for p in parts], 1)


def in_hops(conditioner: Conditioner, strain: Strain, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The same as a stream: `sizes` raw samples at a time, over and over."""
    state, values, valid, at, i = conditioner.start(strain.detectors, strain.gps_start), [], [], 0, 0
    ok = np.repeat(strain.valid, FS, axis=1)
    while at < strain.values.shape[1]:
        part = slice(at, at + sizes[i % len(sizes)])
        state, new = conditioner.advance(state, strain.values[:, part], ok[:, part])
        assert not new.values.shape[1] or new.start == sum(v.shape[1] for v in values)
        values.append(new.values)
        valid.append(new.valid)
        at, i = part.stop, i + 1
    return np.concatenate(values, 1), np.concatenate(valid, 1)


def with_gaps(strain: Strain, *gaps: tuple[int, int, int]) -> Strain:
    valid = strain.valid.copy()
    for detector, first, last in gaps:
        valid[detector, first:last] = False
    values = np.where(np.repeat(valid, FS, axis=1), strain.values, 1e9)  # must never be looked at
    return replace(strain, values=values, valid=valid)


@pytest.mark.parametrize("sizes", [[FS], [FS // 4], [FS // 2, 3 * FS], [1000, 37, 5000]])
def test_a_stream_whitens_as_the_offline_search_whatever_its_hops(sizes: list[int]) -> None:
    strain = with_gaps(coloured(40), (0, 17, 18), (1, 30, 33))
    conditioner = Conditioner()
    values, valid = whole(conditioner, strain)
    streamed, stream_valid = in_hops(conditioner, strain, sizes)
    assert (valid == stream_valid).all()
    np.testing.assert_allclose(streamed, values, atol=1e-9)
    assert valid.mean() > 0.5
    fixed = conditioner.fitted(strain)
    np.testing.assert_allclose(in_hops(fixed, strain, sizes)[0], whole(fixed, strain)[0], atol=1e-9)


@settings(max_examples=8, deadline=None)
@given(st.integers(9, 18), st.integers(1, 3))
def test_a_gap_takes_what_touches_it_and_nothing_else(first: int, length: int) -> None:
    strain, conditioner = coloured(24, detectors=1), Conditioner()
    values, valid = whole(conditioner, strain)
    gapped = with_gaps(strain, (0, first, first + length))
    after, ok = whole(conditioner, gapped)
    half = RATE // 2
    lost = slice(first * RATE - half, (first + length) * RATE + half)
    assert not ok[0, lost].any()
    before = slice(0, first * RATE - half)
    assert (ok[0, before] == valid[0, before]).all()
    np.testing.assert_allclose(after[0, before], values[0, before], atol=1e-9)
    assert (after[~ok] == 0).all()
    assert np.abs(after).max() < 10  # what stood in the gap was in no filter and no PSD
    if first >= 12:
        assert ok[0, lost.stop :].all()  # the PSD from before the gap still stands


def test_whitened_noise_is_white_of_unit_variance_and_nothing_is_outside_the_band() -> None:
    strain = coloured(120, seed=1)
    for conditioner in (Conditioner(), Conditioner().fitted(strain)):
        values, valid = whole(conditioner, strain)
        x = values[:, 40 * RATE : 119 * RATE]
        assert valid[:, 40 * RATE : 119 * RATE].all()
        np.testing.assert_allclose(x.std(axis=1), 1.0, atol=0.04)
        f, power = scipy.signal.welch(x, RATE, nperseg=2 * RATE)
        outside = (f < 17) | (f > 403)
        assert power[:, outside].sum() < 1e-3 * power.sum()
        smooth = power[:, (f >= 65) & (f < 395)].reshape(2, -1, 20).mean(axis=2)
        assert smooth.max() < 1.5 * smooth.min()
        assert power[:, (f > 55) & (f < 65)].max() < 4 * smooth.mean()  # the line


def test_the_scale_follows_noise_that_grows() -> None:
    strain = coloured(80, seed=2)
    louder = strain.values.copy()
    louder[:, 30 * FS :] *= 3.0
    values, _ = whole(Conditioner(), replace(strain, values=louder))
    for seconds in (slice(36, 42), slice(72, 79)):  # the PSD is still the old one, and the new one
        x = values[:, seconds.start * RATE : seconds.stop * RATE]
        np.testing.assert_allclose(x.std(axis=1), 1.0, atol=0.15)


def test_nothing_is_valid_before_noise_is_known() -> None:
    conditioner = Conditioner()
    _, valid = whole(conditioner, coloured(24, detectors=1))
    first = int(np.flatnonzero(valid[0])[0])
    assert conditioner.psd_least <= first / RATE <= conditioner.warm_up
    assert valid[0, first:].all()
    _, valid = whole(conditioner, with_gaps(coloured(24, detectors=1), (0, 5, 6)))
    assert not valid[0, : 13 * RATE].any()  # 8 s of segments without a gap come later


def test_time_is_kept() -> None:
    """A pulse in the strain is where it was, at the lower rate too."""
    strain = coloured(32, seed=3)
    values = strain.values.copy()
    at = 25.25
    t = np.arange(values.shape[1]) / FS - at
    values += 8.0 * np.exp(-((t / 0.004) ** 2)) * np.cos(2 * np.pi * 150 * t)
    x, _ = whole(Conditioner(), replace(strain, values=values))
    near = slice(round((at - 0.1) * RATE), round((at + 0.1) * RATE))
    for row in x[:, near]:
        assert abs(near.start + np.abs(row).argmax() - at * RATE) <= 1
        assert np.abs(row).max() > 8


def test_the_periodogram_and_the_bias_of_the_median_are_those_of_welch() -> None:
    x = np.random.default_rng(0).normal(size=12 * FS)
    f, expected = scipy.signal.welch(x, FS, nperseg=4 * FS, average="median")
    frames = np.stack([x[a * 2 * FS : (a * 2 + 4) * FS] for a in range(5)])
    np.testing.assert_allclose(np.median(periodogram(frames, FS), axis=0) / median_bias(5), expected, rtol=1e-9)
    assert len(f) == expected.size


def test_lines_are_widened_and_noise_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    psd = np.median(rng.exponential(size=(7, 1600)), axis=0) * np.linspace(5, 1, 1600)
    assert (widened_lines(psd, 4, 1.5) == psd).all()
    psd[800] = 1e4
    wide = widened_lines(psd, 4, 1.5)
    assert (wide[794:807] == 1e4).all()
    assert (np.delete(wide, slice(794, 807)) == np.delete(psd, slice(794, 807))).all()


def test_a_line_narrower_than_the_filter_resolves_is_taken_out() -> None:
    strain = coloured(40, detectors=1)
    t = np.arange(strain.values.shape[1]) / FS
    loud = replace(strain, values=strain.values + 3.0 * np.sin(2 * np.pi * 179.7 * t))  # SNR of thousands
    for conditioner in (Conditioner(), Conditioner().fitted(loud)):
        values, _ = whole(conditioner, loud)
        f, power = scipy.signal.welch(values[0, 20 * RATE : 39 * RATE], RATE, nperseg=2 * RATE)
        assert power[np.abs(f - 179.7) < 2].max() < 10 * np.median(power[(f > 25) & (f < 395)])


def repeating(strain: Strain, first: float, last: float, length: float) -> Strain:
    """The detector's buffer is stuck: from `first` to `last` s its last `length` s come over and over."""
    a, b, n = round(first * FS), round(last * FS), round(length * FS)
    values = strain.values.copy()
    values[0, a:b] = np.resize(values[0, a - n : a], b - a)
    return replace(strain, values=values)


@pytest.mark.parametrize("length", [1.0, 0.25, 1 / 16])
@pytest.mark.parametrize("sizes", [[FS], [FS // 4], [40 * FS], [1000, 37, 5000]])
def test_a_buffer_that_is_stuck_is_a_gap(length: float, sizes: list[int]) -> None:
    strain, conditioner = coloured(30), Conditioner()
    expected, valid = in_hops(conditioner, with_gaps(strain, (0, 18, 21)), sizes)
    values, ok = in_hops(conditioner, repeating(strain, 18, 21, length), sizes)
    lost = slice(round(17.6 * RATE), round(21.5 * RATE))
    assert not ok[0, lost].any()
    assert (ok[0, : round(17.5 * RATE)] == valid[0, : round(17.5 * RATE)]).all()
    assert ok[0, lost.stop + 1 :].all()
    assert (ok[1] == in_hops(conditioner, strain, sizes)[1][1]).all()
    near = np.abs(values - expected)[0, lost.stop + RATE :]  # no stuck second is in the PSD
    assert near.max() < 1e-9


def test_noise_from_before_a_long_hole_is_forgotten() -> None:
    conditioner, strain = Conditioner(), coloured(160, detectors=1)
    louder = strain.values.copy()
    louder[:, 100 * FS :] *= 10.0
    values, valid = whole(conditioner, with_gaps(replace(strain, values=louder), (0, 30, 100)))
    fresh, fresh_valid = whole(conditioner, replace(strain, values=louder).slice(START + 100, START + 160))
    after = slice(100 * RATE, None)
    assert (valid[:, after] == fresh_valid).all()
    np.testing.assert_allclose(values[:, after], fresh, atol=1e-9)
    _, valid = whole(conditioner, with_gaps(strain, (0, 30, 90)))
    assert valid[0, round(90.5 * RATE) : round(159.5 * RATE)].all()  # after a minute it still stands


def test_strain_whose_noise_is_zero_or_beyond_all_numbers_gives_nothing() -> None:
    for size in (1e-200, 1e200):
        strain = coloured(24, detectors=1)
        absurd = replace(strain, values=strain.values * size)
        values, valid = whole(Conditioner(), absurd)
        assert not valid.any()
        assert not values.any()
        with pytest.raises(SearchError, match="zero, or no number, at some frequency"):
            Conditioner().fitted(absurd)


def test_settings_that_do_not_fit_are_refused() -> None:
    for settings_, why in (
        ({"sample_rate": 1000}, "whole multiple"),
        ({"band": (20.0, 600.0)}, "below half of 1024 Hz"),
        ({"psd_least": 4.0}, "at least 8 s"),
        ({"psd_seconds": 8.0, "psd_least": 12.0}, "at least 8 s"),
        ({"segment": 3}, "even number of seconds"),
        ({"filter_length": 3.0}, "filter_length"),
        ({"psd": "welch"}, "trailing or file"),
    ):
        with pytest.raises(SearchError, match=why):
            Conditioner(**settings_)  # type: ignore[arg-type]
    with pytest.raises(SearchError, match="whole second"):
        Conditioner().start(("H1",), START + 0.5)
    with pytest.raises(SearchError, match=r"Conditioner\.fitted"):
        Conditioner(psd="file").start(("H1",), START)
    with pytest.raises(SearchError, match="sampled at 2048 Hz, the search takes 4096 Hz"):
        list(Conditioner(4096).whitened(coloured(4)))


def test_eight_seconds_are_enough_wherever_they_begin() -> None:
    strain = coloured(8)
    even = Conditioner(psd="file").fitted(strain)
    odd = Conditioner(psd="file").fitted(replace(strain, gps_start=strain.gps_start + 1))
    assert even.fixed_psd is not None
    assert np.array_equal(even.fixed_psd, odd.fixed_psd)
    later = replace(coloured(16), valid=np.arange(16)[None].repeat(len(strain.detectors), 0) >= 7)
    assert Conditioner(psd="file").fitted(later).fixed_psd is not None  # nine seconds from an odd one on
    with pytest.raises(SearchError, match="has no 8 s of strain without a gap"):
        Conditioner(psd="file").fitted(replace(later, valid=np.arange(16)[None].repeat(len(strain.detectors), 0) >= 9))


def test_a_file_whose_noise_cannot_be_known_is_refused() -> None:
    with pytest.raises(SearchError, match=r"L1 has no 8 s of strain without a gap between GPS 1000000000"):
        Conditioner().fitted(with_gaps(coloured(16), (1, 3, 4), (1, 7, 8), (1, 11, 12)))
    dead = coloured(16)
    with pytest.raises(SearchError, match="zero, or no number, at some frequency"):
        Conditioner().fitted(replace(dead, values=np.zeros_like(dead.values)))


@pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT is not set: no real strain")
def test_the_chirp_of_gw150914_stands_in_whitened_strain() -> None:
    files = event_files("GW150914", Path(os.environ["DATA_ROOT"]))
    if not files:
        pytest.skip("DATA_ROOT holds no GW150914")
    strain, gps = read_event(*files)
    for conditioner in (Conditioner(), Conditioner().fitted(strain)):
        values, valid = whole(conditioner, strain)
        quiet = valid.all(axis=0)
        quiet[: 12 * RATE] = False
        around = slice(round((gps - strain.gps_start - 0.2) * RATE), round((gps - strain.gps_start + 0.1) * RATE))
        quiet[around] = False
        np.testing.assert_allclose(values[:, quiet].std(axis=1), 1.0, atol=0.1)
        f, t, power = scipy.signal.spectrogram(values[:, around], RATE, nperseg=64, noverlap=60, nfft=512)
        for row in power:  # frequency rises towards the merger
            row, low = row[(f > 30) & (f < 300)], f[(f > 30) & (f < 300)]
            loud = int(row.max(axis=0).argmax())
            early = (t > t[loud] - 0.06) & (t < t[loud] - 0.03)
            assert low[row[:, loud].argmax()] > low[row[:, early].mean(axis=1).argmax()]
        peaks = [around.start + np.abs(row).argmax() for row in values[:, around]]
        assert np.abs(np.array(peaks) / RATE + strain.gps_start - gps).max() < 0.05
