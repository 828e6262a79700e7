"""A challenge-like set: its noise, its signals where and as loud as it says, its populations, and the command."""

from __future__ import annotations

import runpy
import sys

import numpy as np
import pytest
import torch
from mma_realtime.challenge import main
from mma_realtime.data.challenge import CHIRP_DISTANCES, coloured_noise, draw_injections, generate
from mma_realtime.data.mlgwsc import read_injections
from mma_realtime.data.strain import read_strain
from mma_realtime.errors import SearchError
from mma_realtime.gw.detectors import delay, detector
from mma_realtime.gw.inject import add_signal
from mma_realtime.gw.psd import design_curve
from mma_realtime.times import gmst
from scipy.signal import hilbert, welch
from scipy.stats import kstest

RATE = 2048
CURVE = design_curve("aLIGOZeroDetHighPower")


@pytest.fixture(scope="module")
def made():
    return generate(128, seed=3)


def test_noise_has_the_density_of_the_curve():
    noise = coloured_noise(CURVE, 512, RATE, np.random.default_rng(0))
    f, density = welch(noise, RATE, nperseg=4 * RATE, detrend=False)
    for low, high in ((16, 20), (20, 30), (30, 100), (100, 400), (400, 1000)):
        band = (f >= low) & (f < high)
        ratio = density[band] / (1e42 * CURVE.psd(torch.from_numpy(f[band])).numpy())
        # 255 half-overlapping segments: 0.09 a bin, 4 sigma
        assert ratio.mean() == pytest.approx(1, abs=4 * 0.09 / band.sum() ** 0.5 + 0.005), (low, high)
    assert density[f < 9].max() < 1e-6 * density[f == 15]


def test_noise_is_gaussian():
    parts = np.stack([coloured_noise(CURVE, 2, RATE, np.random.default_rng(seed)) for seed in range(200)])
    one = parts[:, 1000] / parts[:, 1000].std()
    assert kstest(one, "norm").pvalue > 0.01


@pytest.mark.parametrize("frequency", [20.0, 50.06, 300.03])
def test_noise_is_at_full_strength_from_the_first_sample_to_the_last(frequency):
    class Tone(np.random.Generator):
        """Instead of white noise, one frequency of it: a filter's ramp would show at the ends."""

        def standard_normal(self, size):
            return np.exp(2j * np.pi * frequency * np.arange(size) / RATE)

    out = coloured_noise(CURVE, 2, RATE, Tone(np.random.PCG64()))
    strength = 1e21 * float(CURVE.asd(frequency)) * (RATE / 2) ** 0.5
    assert out.shape == (2 * RATE,)
    assert np.allclose(np.abs(out), strength, rtol=2e-3)


def test_background_is_the_noise_of_the_foreground_and_detectors_are_independent(made):
    h, l = made.background.values
    whole = np.corrcoef(h, l)[0, 1]
    assert abs(whole) < 0.1  # strong at low frequencies: few independent samples
    signals = made.foreground.values - made.background.values
    assert 0 < np.abs(signals).max() < 5  # strain 5e-21
    assert not np.array_equal(h, l)


def test_signals_peak_when_and_where_they_should_and_rise_before(made):
    signals = made.foreground.values - made.background.values
    injections = made.injections
    for k, tc in enumerate(injections["tc"]):
        theta = gmst(tc)
        for row, name in enumerate(made.foreground.detectors):
            late = float(delay(detector(name), injections["ra"][k], injections["dec"][k], theta))
            middle = round((tc + late - made.foreground.gps_start) * RATE)
            near = signals[row, middle - RATE : middle + RATE]
            power = np.abs(hilbert(near)) ** 2
            assert abs(power.argmax() - RATE) <= 3  # 1.5 ms; the ring-down frequency arrives 2 to 5 ms later
            before, after = power[: RATE - 20].sum(), power[RATE + 20 :].sum()
            assert before > 20 * after  # a falling chirp would have it the other way round


def test_loudness_is_what_the_columns_say(made):
    signals = made.foreground.values - made.background.values
    f = np.fft.rfftfreq(16 * RATE, 1 / RATE)
    band = (f >= 20) & (f < 1024)
    density = 1e42 * CURVE.psd(torch.from_numpy(f[band])).numpy()
    for k, tc in enumerate(made.injections["tc"]):
        last = round((tc - made.foreground.gps_start + 1) * RATE)
        piece = signals[:, last - 16 * RATE : last]
        spectrum = np.fft.rfft(piece)[:, band] / RATE
        snr = np.sqrt(4 / 16 * (np.abs(spectrum) ** 2 / density).sum(1))
        said = [made.injections[f"optimal_snr_{name}"][k] for name in ("H1", "L1")]
        assert snr == pytest.approx(said, rel=0.01)


def test_signals_are_those_of_the_other_injection(made):
    """`gw.inject` fades signals in below 20 Hz, one at a time, delays as phases: the same in the band."""
    names = {"m1": "mass1", "m2": "mass2", "phase": "coa_phase", "psi": "polarization"}
    names |= {key: key for key in ("distance", "tc", "inclination", "ra", "dec")}
    theirs = np.zeros_like(made.background.values)
    for k in range(len(made.injections["tc"])):
        one = {key: float(made.injections[column][k]) for key, column in names.items()}
        theirs = add_signal(theirs, made.foreground.gps_start, RATE, ("H1", "L1"), **one)
    f = np.fft.rfftfreq(theirs.shape[1], 1 / RATE)
    band = (f >= 22) & (f < 1000)
    a, b = (np.fft.rfft(x)[:, band] for x in (made.foreground.values - made.background.values, theirs))
    weight = 1 / CURVE.psd(torch.from_numpy(f[band])).numpy()
    assert (weight * np.abs(a - b) ** 2).sum() < 1e-3 * (weight * np.abs(b) ** 2).sum()


def test_a_binary_seen_face_on_from_above_is_as_loud_as_the_curve_has_it(made):
    # At 1 Mpc of chirp distance the optimum is 430 x 8 for two neutron stars; black holes lose what merges early.
    network = np.hypot(made.injections["optimal_snr_H1"], made.injections["optimal_snr_L1"])
    bound = 2**0.5 * 8 * 430 / made.injections["chirp_distance"]
    assert (network < bound).all()
    assert (network > 0.01 * bound).all()


def test_populations():
    injections = draw_injections(100_000, seed=5, m_range=(10.0, 50.0), gps_start=1000)
    n = len(injections["tc"])
    assert n == pytest.approx((100_000 - 60) / 24, abs=2)
    m1, m2 = injections["mass1"], injections["mass2"]
    assert (m1 >= m2).all()
    uniform = {
        "masses": (np.concatenate([m1, m2]) - 10) / 40,
        "volume": (injections["chirp_distance"] ** 3 - CHIRP_DISTANCES[0] ** 3)
        / (CHIRP_DISTANCES[1] ** 3 - CHIRP_DISTANCES[0] ** 3),
        "ra": injections["ra"] / (2 * np.pi),
        "dec": (1 + np.sin(injections["dec"])) / 2,
        "inclination": (1 + np.cos(injections["inclination"])) / 2,
        "phase": injections["coa_phase"] / (2 * np.pi),
        "polarization": injections["polarization"] / np.pi,
        "time": ((injections["tc"] - 1000 - 30) % 24) / 6,
    }
    for name, column in uniform.items():
        assert kstest(column, "uniform").pvalue > 0.01, name
    mchirp = (m1 * m2) ** 0.6 / (m1 + m2) ** 0.2
    assert injections["distance"] == pytest.approx(
        injections["chirp_distance"] * (mchirp / 1.2187708) ** (5 / 6), rel=1e-6
    )
    gaps = np.diff(injections["tc"])
    assert gaps.min() >= 18
    assert gaps.max() <= 30
    assert injections["tc"][0] >= 1030
    assert injections["tc"][-1] <= 1000 + 100_000 - 30


def test_a_seed_is_one_set(made):
    again, other = generate(128, seed=3), generate(128, seed=4)
    assert again.foreground.fingerprint == made.foreground.fingerprint
    assert abs(np.corrcoef(other.background.values[0], made.background.values[0])[0, 1]) < 0.1
    assert not np.intersect1d(other.injections["distance"], made.injections["distance"]).size


def test_what_cannot_be_made():
    for options, message in (
        ({"duration": 60}, "60 s are too short for an injection: give more than 66 s"),
        ({"m_range": (50.0, 10.0)}, "masses from 50 to 10"),
        ({"curve": "LISA"}, "unknown noise curve 'LISA'"),
    ):
        with pytest.raises(SearchError, match=message):
            generate(**{"duration": 128, "seed": 0, **options})


def test_command(tmp_path, capsys, monkeypatch):
    assert main(["--duration", "80", "--seed", "2", "--out", str(tmp_path / "set")]) == 0
    out = capsys.readouterr().out
    assert "80 s from GPS 1200000000" in out
    expected = generate(80, seed=2)
    read = read_strain(tmp_path / "set" / "foreground.hdf")
    assert read.detectors == ("H1", "L1")
    assert np.allclose(read.values, expected.foreground.values, rtol=1e-12, atol=0)
    quiet = read_strain(tmp_path / "set" / "background.hdf")
    assert np.allclose(quiet.values, expected.background.values, rtol=1e-12, atol=0)
    assert np.array_equal(read_injections(tmp_path / "set" / "injections.hdf")["tc"], expected.injections["tc"])
    monkeypatch.setattr(sys, "argv", ["challenge", "--duration", "9", "--out", str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mma_realtime.challenge")
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("mma_realtime.challenge", run_name="__main__")
    assert capsys.readouterr().err.startswith("error: 9 s are too short for an injection")
