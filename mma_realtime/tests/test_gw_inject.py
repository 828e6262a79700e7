"""Signals in detectors (section 2.1): linear, at the right time, in the right ratio."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.errors import SearchError
from mma_realtime.gw import inject, waveforms
from mma_realtime.gw.constants import SCALE
from mma_realtime.gw.detectors import antenna_pattern, delay, detector, gmst

FS, START, TC = 2048, 1126259446.0, 1126259462.4
SKY = {"ra": 1.95, "dec": -1.27, "psi": 0.8}
BINARY = {"m1": 36.0, "m2": 29.0, "distance": 410.0, "inclination": 2.6, "phase": 0.4}


def quiet(detectors: int = 2, seconds: int = 32) -> np.ndarray:
    return np.zeros((detectors, seconds * FS))


def test_each_detector_has_its_share_at_its_time() -> None:
    names = ("H1", "L1", "V1", "K1")
    x = inject.add_signal(quiet(4), START, FS, names, tc=TC, **BINARY, **SKY)
    angle = gmst(TC)
    m1, m2 = torch.tensor([[36.0], [29.0]], dtype=torch.float64)
    c = math.cos(BINARY["inclination"])
    for row, name in zip(torch.as_tensor(x), names):
        det = detector(name)
        plus, cross = (float(F) for F in antenna_pattern(det, **SKY, gmst=angle))
        # A slowly turning amplitude: F+ h+ and Fx hx are a quarter of a cycle apart.
        f = torch.arange(16 * FS // 2 + 1, dtype=torch.float64) / 16
        size = math.hypot(plus * (1 + c**2) / 2, cross * c)
        h = waveforms.phenomd(m1, m2, f, distance=410.0) * SCALE
        energy = float(2 * (h.abs().square() * (f >= 30)).sum() / 16) * size**2
        spectrum = torch.fft.rfft(row) / FS
        inside = torch.arange(len(spectrum)) / 32 >= 30
        assert float(2 * (spectrum.abs().square() * inside).sum() / 32) == pytest.approx(energy, rel=0.02)
        late = float(delay(det, SKY["ra"], SKY["dec"], angle))
        analytic = torch.fft.ifft(torch.where(inside, spectrum, 0), len(row)).abs()
        assert int(analytic.argmax()) / FS == pytest.approx(TC - START + late, abs=0.0025)


def test_delay_between_detectors_is_the_sky_position_s() -> None:
    x = inject.add_signal(quiet(), START, FS, ("H1", "L1"), tc=TC, m1=36, m2=29, distance=400, **SKY)
    spectra = np.fft.rfft(x)
    lags = np.fft.irfft(spectra[0] * spectra[1].conj(), 16 * x.shape[1])
    best = np.abs(lags).argmax()
    best = (best if best < len(lags) / 2 else best - len(lags)) / (16 * FS)
    angle = gmst(TC)
    expected = [float(delay(detector(d), SKY["ra"], SKY["dec"], angle)) for d in ("H1", "L1")]
    assert best == pytest.approx(expected[0] - expected[1], abs=2e-3)  # phases differ, so peaks of real series do


@settings(max_examples=5, deadline=None)
@given(st.floats(-3, 3), st.floats(100, 900), st.floats(0, math.pi))
def test_injection_is_linear(size: float, distance: float, inclination: float) -> None:
    noise = np.random.default_rng(0).normal(size=(2, 8 * FS)) * size
    settings_ = {"m1": 40.0, "m2": 30.0, "inclination": inclination, **SKY}

    def add(values: np.ndarray, far: float, tc: float) -> np.ndarray:
        return inject.add_signal(values, START, FS, ("H1", "L1"), distance=far, tc=tc, **settings_)

    zero = np.zeros_like(noise)
    alone = add(zero, distance, START + 5)
    np.testing.assert_allclose(add(noise, distance, START + 5) - noise, alone, atol=1e-12)
    np.testing.assert_allclose(add(zero, distance / 2, START + 5), 2 * alone, atol=1e-12)
    both = add(add(noise, distance, START + 5), distance, START + 6.1)
    np.testing.assert_allclose(both - noise, alone + add(zero, distance, START + 6.1), atol=1e-12)


def test_input_is_not_changed_and_what_lies_outside_is_left_out() -> None:
    values = quiet(1, 8)
    whole = inject.add_signal(values, START, FS, ("H1",), tc=START + 4, m1=30, m2=30, distance=100)
    assert not values.any()
    assert whole.any()
    early = inject.add_signal(values, START + 3.5, FS, ("H1",), tc=START + 4, m1=30, m2=30, distance=100)
    np.testing.assert_allclose(early[0, : 2 * FS], whole[0, round(3.5 * FS) : round(5.5 * FS)], atol=1e-6 * whole.max())
    away = inject.add_signal(values, START + 100, FS, ("H1",), tc=START + 4, m1=30, m2=30, distance=100)
    assert not away.any()


def test_time_between_samples_counts() -> None:
    kwargs = {"m1": 30.0, "m2": 25.0, "distance": 100.0, **SKY}
    a = inject.add_signal(quiet(), START, FS, ("H1", "L1"), tc=TC, **kwargs)
    b = inject.add_signal(quiet(), START, FS, ("H1", "L1"), tc=TC + 0.5 / FS, **kwargs)
    spectra = np.fft.rfft(a), np.fft.rfft(b)
    band = slice(40 * 32, 200 * 32)
    phase = np.angle((spectra[1] * spectra[0].conj())[:, band])
    f = np.arange(40 * 32, 200 * 32) / 32
    np.testing.assert_allclose(phase, -2 * np.pi * f * 0.5 / FS * np.ones((2, 1)), atol=0.02)


def test_signal_begins_and_ends_in_silence() -> None:
    x, _ = inject.signal(FS, ("H1",), START, m1=20, m2=15, distance=100, tc=TC)
    largest = x.abs().max()
    assert x[0, :20].abs().max() < 1e-3 * largest
    assert x[0, -200:].abs().max() < 1e-2 * largest
    before = x[0, : -round(0.5 * FS)]
    assert before.square().sum() > 0.9 * x.square().sum()


def test_unknown_detector() -> None:
    with pytest.raises(SearchError, match="known are H1"):
        inject.add_signal(quiet(1, 4), START, FS, ("G9",), tc=START + 2, m1=30, m2=30, distance=100)
