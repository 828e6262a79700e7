"""Waveforms against the goldens and closed forms (section 2.3); the sign of trap 1."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.errors import SearchError
from mma_realtime.gw import phenomd as imr
from mma_realtime.gw import waveforms
from mma_realtime.kernels.waveform import layout, waveform_fd
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
GOLDEN = np.load(FOLDER / "waveforms.npz")
JSON = json.loads((FOLDER / "phenomd_coefficients.json").read_text())
F = torch.as_tensor(GOLDEN["f"])


def double(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def pairs(key: str) -> tuple[Tensor, Tensor]:
    return tuple(torch.as_tensor(GOLDEN[key]).double().unbind(1))  # type: ignore[return-value]


def test_embedded_table_is_the_golden_one() -> None:
    greek = {"g": "gamma", "s": "sigma", "b": "beta", "a": "alpha"}
    for eta in (0.05, 0.16, 0.25):
        fit = imr.fit_coefficients(double(eta))
        assert len(fit) == 19
        for name, value in fit.items():
            full = JSON["coefficients"][name.replace(name[0], greek.get(name[0], name[0]), 1)]["full"]
            expected = sum(row[j] * (-1.0) ** i * eta**j for i, row in enumerate(full) for j in range(3))  # chi = 0
            assert float(value) == pytest.approx(expected, rel=1e-9), name


def test_ringdown_at_the_points_of_the_table() -> None:
    """Equal masses leave a spin of 0.6864, between two points of the table."""
    f_R, f_D = (float(x) for x in imr.ringdown(double(0.25)))
    qnm = {key: np.array(JSON["qnm"][key]) for key in ("a", "fr", "fd")}
    i = int(np.searchsorted(qnm["a"], 0.6864))
    lost = 1 - 0.0484  # of the mass, radiated
    assert qnm["fr"][i - 1] / lost < f_R * 1.001 < qnm["fr"][i] / lost * 1.001
    assert min(qnm["fd"][i - 1 : i + 1]) * 0.999 < f_D * lost < max(qnm["fd"][i - 1 : i + 1]) * 1.001


@pytest.mark.parametrize("system", range(6))
def test_phenomd_is_the_reference_library_s(system: int) -> None:
    m1, m2 = pairs("mass1_mass2")
    ours = waveforms.phenomd(m1, m2, F)[system] * 1e22
    golden = torch.as_tensor(GOLDEN["phenomd_hp"])[system]
    there = golden.abs() > 0
    assert torch.equal(ours.abs() > 0, there)
    error = (ours.abs() / golden.abs() - 1).abs()
    assert error[there].max() < 5e-5
    assert error[golden.abs() > 1e-3 * golden.abs().max()].max() < 1e-5
    assert (ours * golden.conj())[there].angle().abs().max() < 1e-4
    assert (ours.conj() * golden.conj())[there].angle().abs().max() > 3  # a down-chirp would be seen


def phase_but_for_a_line(h: Tensor, golden: Tensor, f: Tensor) -> float:
    phase = np.unwrap((h * golden.conj()).angle().numpy())
    return float(np.abs(phase - np.polyval(np.polyfit(f.numpy(), phase, 1), f.numpy())).max())


@pytest.mark.parametrize(("key", "masses", "distance"), [("hp", "mass1_mass2", 400.0), ("bns_hp", "bns_mass", 40.0)])
def test_taylorf2_is_the_reference_library_s(key: str, masses: str, distance: float) -> None:
    m1, m2 = pairs(masses)
    ours = waveforms.taylorf2(m1, m2, F, distance) * 1e22
    for h, golden in zip(ours, torch.as_tensor(GOLDEN[f"taylorf2_{key}"])):
        assert (h.abs() / golden.abs() - 1).abs().max() < 1e-5
        assert phase_but_for_a_line(h, golden, F) < 1e-4
        assert phase_but_for_a_line(h.conj(), golden, F) > 3
    turns = (ours[:, 0] / ours[:, 0].abs()).angle()
    assert turns.abs().max() < 1e-6  # phase 0 at 20 Hz


def test_the_third_model_s_convention_is_the_conjugate_one() -> None:
    """The golden README says so: our signs agree with it only when it is conjugated (a match over phase and time)."""
    ours = waveforms.phenomd(*pairs("mass1_mass2"), F)
    other = torch.as_tensor(GOLDEN["phenoma_hp_lalconv"])

    def match(a: Tensor, b: Tensor) -> Tensor:
        product = torch.fft.ifft(a * b.conj(), 2**14).abs().amax(1)
        return product * 2**14 / (a.abs().square().sum(1) * b.abs().square().sum(1)).sqrt()

    assert match(ours, other.conj()).min() > 0.8
    assert match(ours, other).max() < 0.55


def energy_before_the_peak(h: Tensor) -> Tensor:
    """Share of a 2048 Hz series' energy that lies before its largest sample, the peak 6 s into 8 s."""
    x = waveforms.to_time(h, 2048, 6.0)
    peak = x.abs().argmax(1, keepdim=True)
    assert ((peak / 2048 - 6).abs() < 0.03).all()
    return torch.where(torch.arange(x.shape[1]) < peak, x.square(), 0).sum(1) / x.square().sum(1)


def test_a_signal_s_energy_comes_before_its_peak_and_a_conjugate_s_after() -> None:
    f = torch.arange(8 * 1024 + 1, dtype=torch.float64) / 8
    m1, m2 = double(36, 10, 50, 75, 30, 8), double(29, 10, 10, 75, 5, 7)
    h = waveforms.phenomd(m1, m2, f)
    assert energy_before_the_peak(h).min() > 0.7
    assert energy_before_the_peak(h.conj()).max() < 0.5


def test_frequency_rises_as_newton_says() -> None:
    f = torch.arange(8 * 1024 + 1, dtype=torch.float64) / 8
    m1, m2 = double(8), double(7)
    h = waveforms.phenomd(m1, m2, f)
    analytic = torch.complex(waveforms.to_time(h, 2048, 7.5), waveforms.to_time(-1j * h, 2048, 7.5))[0]
    frequency = (analytic[1:] * analytic[:-1].conj()).angle() / (2 * math.pi) * 2048
    M_c = float(waveforms.chirp_mass(m1, m2)) * 4.925490947641267e-06
    for before in (4.0, 1.0, 0.25):
        middle = round((7.5 - before) * 2048)
        newton = (5 / (256 * before)) ** (3 / 8) * M_c ** (-5 / 8) / math.pi
        assert float(frequency[middle - 20 : middle + 20].mean()) == pytest.approx(newton, rel=0.12)


def test_chirp_time_inverts_newton_s_frequency() -> None:
    seconds = float(waveforms.chirp_time(double(1.4), double(1.4), 40.0))
    assert seconds == pytest.approx(24.8, abs=0.3)


def test_the_peak_lies_where_peak_time_says() -> None:
    m1, m2 = double(36, 50, 60), double(29, 10, 7)
    f = torch.arange(16 * 4096 + 1, dtype=torch.float64) / 16
    rise = ((f - 10) / 10).clamp(0, 1)
    table = waveforms.phenomd_coefficients(m1, m2, f_low=10)
    table[:, layout.TIME] = 12 - waveforms.peak_time(m1, m2)
    h = waveform_fd(table, f, dtype=torch.complex128) * (0.5 - 0.5 * (math.pi * rise).cos())
    real, imaginary = waveforms.to_time(h, 8192, 0.0), waveforms.to_time(-1j * h, 8192, 0.0)
    peak = (real.square() + imaginary.square()).argmax(1) / 8192
    totals = (m1 + m2) * 4.925e-6
    assert ((peak - 12).abs() < totals).all()


def test_pieces_join_smoothly() -> None:
    """Value and slope of amplitude and phase on both sides of every edge, by finite differences."""
    m1, m2 = double(20), double(9)
    row = waveforms.phenomd_coefficients(m1, m2)[0]
    for edge in row[layout.F_AMP_INS : layout.F_PSI_INT + 1].tolist():
        step = 1e-3
        h = waveforms.phenomd(m1, m2, edge + step * torch.arange(-3, 5, dtype=torch.float64) - step / 2)[0]
        for y in (h.abs() / h[3].abs(), torch.as_tensor(np.unwrap(h.angle().numpy()))):
            slopes = y.diff() / step
            assert (slopes.diff().abs() / step).max() < 1e-2 * (1 + slopes.abs().max()), edge


def test_order_of_masses_distance_and_low_cut() -> None:
    f = torch.arange(0, 500, dtype=torch.float64)
    h = waveforms.phenomd(double(30, 20), double(20, 30), f, distance=double(100, 200), f_low=25)
    torch.testing.assert_close(h[0], 2 * h[1], rtol=1e-9, atol=0)
    assert not h[:, :25].any()
    assert (h[:, 25:300].abs() > 0).all()


def test_heavier_than_the_reference_phase_s_inspiral() -> None:
    """Above 182 solar masses 20 Hz lies in the bridge of the phase, and above 440 in the merger."""
    f = double(20.0)
    h = waveforms.phenomd(double(100, 150, 300), double(100, 150, 250), f, f_low=5)
    assert h.angle().abs().max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(st.floats(3, 90), st.floats(1, 15), st.floats(1.1, 3))
def test_only_the_ratio_of_masses_has_a_shape(m1: float, q: float, factor: float) -> None:
    """h of heavier systems is h of lighter ones at higher frequencies: h(f; c M) = c^2 h(c f; M), c-scaled f_ref."""
    f = torch.linspace(20, 300, 50, dtype=torch.float64)
    one, two = double(m1), double(m1 / q)
    light = waveforms.phenomd(one, two, f * factor, f_ref=20 * factor, f_low=1)
    heavy = waveforms.phenomd(factor * one, factor * two, f, f_low=1)
    size = light.abs().max() * factor**2
    torch.testing.assert_close(heavy / size, factor**2 * light / size, rtol=0, atol=1e-7)


def test_polarisations() -> None:
    h = waveforms.phenomd(double(30), double(20), F) * 1e22  # of order 1: tolerances are absolute too
    plus, cross = waveforms.polarisations(h, 0.0)
    torch.testing.assert_close(plus, h)
    torch.testing.assert_close(cross, -1j * h)  # circular
    plus, cross = waveforms.polarisations(h, math.pi / 2, math.pi / 4)
    torch.testing.assert_close(plus, 0.5j * h)
    assert cross.abs().max() < 1e-12 * h.abs().max()
    tilted = waveforms.polarisations(h.repeat(2, 1), double(1.0, math.pi - 1.0), double(0.1, 0.1))
    torch.testing.assert_close(tilted[0][0], tilted[0][1])
    torch.testing.assert_close(tilted[1][0], -tilted[1][1])


def test_time_series_has_the_energy_of_its_spectrum() -> None:
    f = torch.arange(4 * 1024 + 1, dtype=torch.float64) / 4
    h = waveforms.phenomd(double(36), double(29), f)
    x = waveforms.to_time(h, 2048, double(3.0))
    torch.testing.assert_close(x.square().sum(1) / 2048 * 1e44, 2 * h.abs().square().sum(1) / 4 * 1e44)


def test_early_warning_ends_where_asked() -> None:
    h = waveforms.taylorf2(double(1.4, 1.4), double(1.4, 1.4), F, f_high=double(29, 56))
    assert [float(F[x.abs() > 0].max()) for x in h] == [28, 56]


@pytest.mark.parametrize(
    ("m1", "m2", "message"),
    [([30.0], [-1.0], "positive"), ([30.0], [math.nan], "positive"), ([95.0], [5.0], "mass ratio 19"), ([3.0], [], "")],
)
def test_masses_that_cannot_be(m1: list[float], m2: list[float], message: str) -> None:
    with pytest.raises(SearchError, match=message or "one length"):
        waveforms.phenomd(double(*m1), double(*m2), F)


def test_no_systems_no_waveforms() -> None:
    assert waveforms.phenomd(double(), double(), F).shape == (0, len(F))
