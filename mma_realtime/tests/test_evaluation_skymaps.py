"""E7's injections and what is measured of their maps; the command's way from a filter to arrival times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mma_realtime.data.strain import Strain, write_npz
from mma_realtime.errors import SearchError
from mma_realtime.evaluation import skymaps
from mma_realtime.localise import FINE, arrivals, main
from mma_realtime.search.matched_filter import SnrSeries
from mma_realtime.sky.localise import FARTHEST

SETTINGS = skymaps.Settings(injections=2)


@pytest.fixture(scope="module")
def one() -> skymaps.Filter:
    return skymaps.filter_of(SETTINGS, "aLIGODesignSensitivityP1200087")


def test_noise_has_the_covariance_of_filtered_noise(one: skymaps.Filter) -> None:
    """E z(t) z*(t + s) = 2 R(s), R the template's normalised autocorrelation; the quadratures are alike."""
    rng = np.random.default_rng(0)
    z = np.stack([skymaps.series(one, 0.0, 0.0, SETTINGS.sample_rate, rng) for _ in range(300)])
    expected = 2 * np.fft.ifft(one.power, norm="forward")
    for lag in (0, 5, 20):
        # each series holds some hundred independent samples
        assert (np.roll(z, -lag, 1) * z.conj()).mean() == pytest.approx(expected[lag], abs=0.05)
    assert abs((z**2).mean()) < 0.05


def test_signal_peaks_at_its_time_with_its_amplitude(one: skymaps.Filter) -> None:
    rng = np.random.default_rng(0)
    rate, late, amplitude = SETTINGS.sample_rate, 0.0123, 1e6 * np.exp(0.7j)
    z = skymaps.series(one, amplitude, late, rate, rng)
    at = int(np.abs(z).argmax())
    assert (at - len(z) // 2) / rate == pytest.approx(late, abs=0.6 / rate)
    assert np.abs(z[at]) == pytest.approx(1e6, rel=0.01)


def test_injections_are_found_ones_of_the_prior(one: skymaps.Filter) -> None:
    rng = np.random.default_rng(1)
    filters = {name: skymaps.filter_of(SETTINGS, curve) for name, curve in SETTINGS.curves.items()}
    found = [x for x in (skymaps.draw(SETTINGS, filters, rng) for _ in range(1500)) if x is not None]
    assert len(found) > 5
    for x in found:
        assert x.network_snr >= SETTINGS.network_snr
        assert 0 < x.distance < FARTHEST * filters["H1"].horizon
        for series in x.snr.values():
            middle = np.abs(series[len(series) // 2])
            assert middle >= SETTINGS.detector_snr


def test_measurement_counts_what_it_says() -> None:
    result = skymaps.measure(SETTINGS, seed=3)
    levels = np.array(result["curve/skymaps/levels"])
    assert len(levels) == 2
    assert result["skymaps/contained90"] == (levels <= 0.9).mean()
    assert result["skymaps/area50"] < result["skymaps/area90"]
    assert 0 < result["skymaps/ks"] <= 1
    assert 0 < result["skymaps/cpu_seconds"] <= result["skymaps/cpu_seconds_max"]
    with pytest.raises(SearchError, match="of 1 injections found"):
        skymaps.measure(skymaps.Settings(injections=1, network_snr=1e6))


def test_series_are_cut_around_each_detector_s_own_peak() -> None:
    rate, t = 2048, (np.arange(1025) - 512) / 2048
    late = {"H1": 0.0204, "L1": 0.0133}
    z = np.stack([a * np.sinc(600 * (t - at)) for a, at in zip((8, 12), late.values())]).astype(complex)
    z[0, 512 + 150] = 9  # louder than H1's own, but too far from L1's for light
    cut, toa = arrivals(SnrSeries(tuple(late), torch.from_numpy(z), rate, (1000.0, 1000.0), (1.0, 1.0)))
    for name, at in late.items():
        assert toa[name] - 1000 == pytest.approx(at, abs=1 / FINE)
        middle = len(cut[name]) // 2  # is a peak, and the loudest as far as light goes
        assert np.abs(cut[name][middle - 80 : middle + 81]).argmax() == 80


def test_a_time_outside_the_strain_is_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 16 * 2048))
    write_npz(Strain(("H1", "L1"), 1_240_000_000.0, 2048, noise, np.ones((2, 16), dtype=bool)), tmp_path / "s.npz")
    with pytest.raises(SearchError, match=r"GPS 5\.000 is not in it"):
        main([str(tmp_path / "s.npz"), "--gps", "5", "--masses", "30", "30"])
