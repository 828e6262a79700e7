"""Strain that comes as if from detectors: the same bits whoever reads it, and however."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mma_realtime.alerts.origin import Origin
from mma_realtime.data.challenge import CURVE, noise_filter
from mma_realtime.data.strain import SAMPLE_RATE, Strain, write_npz
from mma_realtime.errors import StrainError
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.whiten import welch_psd
from mma_realtime.live.feed import CHUNK, EPOCH, GPS_START, Replayed, Simulated, Stretch, StretchSource, feed_of
from scipy.signal import oaconvolve

FEED = Simulated(5)


def write(folder: Path, gps: int, seconds: int, seed: int) -> Strain:
    values = np.random.default_rng(seed).normal(size=(2, seconds * SAMPLE_RATE)).astype(np.float32).astype(np.float64)
    strain = Strain(("H1", "L1"), float(gps), SAMPLE_RATE, values, np.ones((2, seconds), bool), "made up")
    write_npz(strain, folder / f"{gps}.npz")
    return strain


def test_the_same_bits_however_they_are_cut() -> None:
    whole = FEED.strain(GPS_START, GPS_START + 80).values
    part = FEED.strain(GPS_START + 60, GPS_START + 70).values
    assert np.array_equal(part, whole[:, 60 * SAMPLE_RATE : 70 * SAMPLE_RATE])
    assert not np.array_equal(Simulated(6).strain(GPS_START, GPS_START + 1).values, whole[:, :SAMPLE_RATE])


def test_chunks_have_no_seam() -> None:
    """Across two chunks the noise is that of one filter over one series of white noise, drawn second by second."""
    kernel = noise_filter(design_curve(CURVE), SAMPLE_RATE)
    seconds = range(CHUNK - 4, CHUNK + 4 + len(kernel) // SAMPLE_RATE)
    for row in range(2):
        white = [np.random.default_rng([5, 1 + row, each]).standard_normal(SAMPLE_RATE) for each in seconds]
        expected = oaconvolve(np.concatenate(white)[:-1], kernel, mode="valid")
        assert not len(FEED.injections(GPS_START + CHUNK - 6, GPS_START + CHUNK + 20)["tc"])
        found = FEED.strain(GPS_START + CHUNK - 4, GPS_START + CHUNK + 4).values[row]
        np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())


def test_the_noise_is_the_detectors() -> None:
    quiet = FEED.strain(GPS_START + 70, GPS_START + 120).values
    psd = welch_psd(torch.from_numpy(quiet[0]), SAMPLE_RATE).sqrt().numpy()
    f = np.linspace(0, SAMPLE_RATE / 2, len(psd))
    band = (f > 40) & (f < 500)
    expected = design_curve(CURVE).asd(torch.from_numpy(f[band])).numpy() * 1e21
    assert np.median(psd[band] / expected) == pytest.approx(1.0, abs=0.05)


def test_injections_go_on_for_ever_and_are_in_the_strain() -> None:
    late = FEED.injections(GPS_START + EPOCH - 300, GPS_START + EPOCH + 300)["tc"]
    assert len(late) >= 4
    assert (np.diff(late) > 60).all()
    (gps,) = FEED.injections(GPS_START, GPS_START + 60)["tc"]
    assert gps == Simulated(5).injections(GPS_START + 20, GPS_START + 60)["tc"][0]
    assert FEED.origin is Origin.SIMULATED


def test_blocks_go_on_from_any_sample() -> None:
    source = StretchSource(FEED, Stretch("short", GPS_START, GPS_START + 66, 0), 0.5)
    blocks = list(source.blocks(0))
    assert len(blocks) == 132
    assert {block.values.shape for block in blocks} == {(2, SAMPLE_RATE // 2)}
    assert [block.gps for block in blocks] == [GPS_START + 0.5 * k for k in range(132)]
    again = list(source.blocks(127 * SAMPLE_RATE // 2))
    assert [block.offset for block in again] == [block.offset for block in blocks[127:]]
    assert all(np.array_equal(a.values, b.values) for a, b in zip(again, blocks[127:], strict=True))


def test_recorded_strain_is_replayed_stretch_by_stretch(tmp_path: Path) -> None:
    first, second = write(tmp_path, 1_000_000_000, 40, 1), write(tmp_path, 1_000_001_000, 36, 2)
    feed = feed_of([tmp_path], 0)
    assert feed.origin is Origin.REPLAYED
    assert [(each.gps_start, each.gps_end, each.before) for each in feed.stretches] == [
        (1_000_000_000, 1_000_000_040, 0), (1_000_001_000, 1_000_001_036, 40),
    ]  # fmt: skip
    assert len({each.name for each in feed.stretches}) == 2
    for strain, stretch in zip((first, second), feed.stretches, strict=True):
        blocks = list(StretchSource(feed, stretch).blocks(0))
        assert np.array_equal(np.concatenate([block.values for block in blocks], axis=1), strain.values)
    with pytest.raises(StrainError):
        Replayed((tmp_path / "none",))
