"""Signal-to-noise ratios against the golden filter (section 2), their calibration, and trap 2."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mma_realtime.errors import SearchError
from mma_realtime.gw import snr
from mma_realtime.gw.constants import SCALE
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.waveforms import phenomd
from torch import Tensor

GOLDEN = np.load(Path(__file__).parent / "golden" / "matched_filter.npz")
FS, BAND = 2048, (20.0, 1000.0)
DF = 1 / 16


def template(seconds: int = 16) -> Tensor:
    f = torch.arange(seconds * FS // 2 + 1, dtype=torch.float64) / seconds
    m1, m2 = torch.as_tensor(GOLDEN["mass"]).double()[:, None]
    return phenomd(m1, m2, f) * SCALE


def golden_psd() -> Tensor:
    return torch.as_tensor(GOLDEN["psd_full_e46"]).double() * (1e-46 * SCALE**2)


def golden_series(h: Tensor) -> Tensor:
    strain = torch.as_tensor(GOLDEN["strain_e22"]).double() * (1e-22 * SCALE)
    return snr.matched_filter(strain, h, golden_psd(), FS, *BAND)


def test_optimal_snr_is_the_reference_library_s() -> None:
    sigma = snr.optimal_snr(template()[0], golden_psd(), DF, *BAND)
    assert float(sigma) == pytest.approx(float(GOLDEN["sigma"]), rel=1e-4)


def test_filtered_series_is_the_reference_library_s() -> None:
    z = golden_series(template()[0])
    peak = int(GOLDEN["peak_index"])
    assert int(z.abs().argmax()) == peak
    assert abs(peak / FS - float(GOLDEN["tc_injected"])) < 1e-3
    ours, golden = z[peak - 256 : peak + 257], torch.as_tensor(GOLDEN["snr_around_peak"])
    assert (ours.abs() - golden.abs()).abs().max() < 1e-3
    turn = (ours[256] / golden[256]) / (ours[256] / golden[256]).abs()
    assert (ours - turn * golden).abs().max() < 1e-3 * float(GOLDEN["peak_abs"])
    t = torch.arange(len(z)) / FS
    off = ((t - peak / FS).abs() >= 1) & (t >= 1) & (t <= 15)
    rms = z[off].abs().square().mean().sqrt()
    assert float(rms) == pytest.approx(float(GOLDEN["snr_rms_offsource"]), rel=1e-2)


def test_a_conjugated_template_does_not_find_the_signal() -> None:
    z = golden_series(template()[0].conj())
    assert float(z.abs().max()) < 0.75 * float(GOLDEN["peak_abs"])


def test_a_thousand_draws_of_noise_have_mean_square_2() -> None:
    seconds, n = 4, 1000
    curve = design_curve("aLIGOZeroDetHighPower")
    f = torch.arange(seconds * FS // 2 + 1, dtype=torch.float64) / seconds
    asd = curve.asd_in_band(f, *BAND) * SCALE
    psd = asd.square().where(asd.isfinite(), 1.0)
    generator = torch.Generator().manual_seed(0)
    h = template(seconds)
    samples = []
    for _ in range(n // 100):
        white = torch.fft.rfft(torch.randn(100, seconds * FS, generator=generator, dtype=torch.float64))
        noise = torch.fft.irfft(white * psd.sqrt() * math.sqrt(FS / 2))
        samples.append(snr.matched_filter(noise, h, psd, FS, *BAND)[:, ::1024])
    z = torch.cat(samples)
    assert z.shape == (n, 8)
    # 8,000 samples that hardly know of each other: the mean of 2 is known to 2 / sqrt(8000) = 0.022
    assert float(z.abs().square().mean()) == pytest.approx(2, abs=0.07)
    assert float(z.real.square().mean()) == pytest.approx(1, abs=0.05)
    assert float((z.real * z.imag).mean()) == pytest.approx(0, abs=0.05)


def test_a_signal_alone_has_its_optimal_snr_at_its_time() -> None:
    h, psd = template()[0], golden_psd()
    x = torch.fft.irfft(h * torch.exp(-2j * math.pi * torch.arange(len(h), dtype=torch.float64) * DF * 9.0)) * FS
    z = snr.matched_filter(x, h, psd, FS, *BAND)
    assert int(z.abs().argmax()) == 9 * FS
    sigma = snr.optimal_snr(h, psd, DF, *BAND)
    torch.testing.assert_close(z[9 * FS], torch.complex(sigma, torch.zeros_like(sigma)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("fs", "f_low", "f_high"), [(1024, 20.0, 400.0), (2048, 20.0, 1000.0), (2048, 30.0, 300.0)])
def test_snr_of_a_whitened_series_needs_the_band_s_share(fs: int, f_low: float, f_high: float) -> None:
    """Noise scaled to unit variance over the band, a signal by the same filter: B turns its energy into SNR^2."""
    seconds = 16
    f = torch.arange(seconds * fs // 2 + 1, dtype=torch.float64) / seconds
    asd = design_curve("aLIGOZeroDetHighPower").asd_in_band(f, f_low, f_high)
    h = phenomd(*torch.tensor([[30.0], [24.0]], dtype=torch.float64), f)[0]
    flat = asd.isfinite()
    generator = torch.Generator().manual_seed(1)
    noise = torch.fft.irfft(torch.fft.rfft(torch.randn(seconds * fs, generator=generator, dtype=torch.float64)) * flat)
    # Unit white noise has the one-sided density 2/fs; data of density S whiten to it through sqrt(2 / (fs S)).
    whitened = torch.fft.irfft(h * fs * (2 / fs) ** 0.5 / asd) / noise.std()
    truth = float(snr.optimal_snr(h, asd.square().where(flat, 1.0), 1 / seconds, f_low, f_high))
    measured = float(snr.band_snr(whitened, fs, f_low, f_high))
    assert measured == pytest.approx(truth, rel=0.01)
    assert float(whitened.square().sum().sqrt()) > 1.015 * truth  # what trap 2 is about


def test_inner_product_is_real_symmetric_and_limited_to_the_band() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randn(101, generator=generator, dtype=torch.complex128) for _ in range(2))
    psd = torch.rand(101, generator=generator, dtype=torch.float64) + 0.5
    expected = sum(4 * 0.5 * (a[k].conj() * b[k] / psd[k]).real for k in range(40, 80))
    ours = snr.inner_product(a, b, psd, 0.5, 20, 40)  # 20 Hz included, 40 Hz not
    torch.testing.assert_close(ours, torch.as_tensor(expected))
    torch.testing.assert_close(ours, snr.inner_product(b, a, psd, 0.5, 20, 40))
    torch.testing.assert_close(snr.optimal_snr(a, psd, 0.5, 20, 40) ** 2, snr.inner_product(a, a, psd, 0.5, 20, 40))


@pytest.mark.parametrize("power", [0.0, -1.0, math.nan])
def test_noise_without_power_is_refused(power: float) -> None:
    psd = torch.ones(101, dtype=torch.float64)
    psd[50] = power
    with pytest.raises(SearchError, match="zero or undefined between 20 and 40 Hz"):
        snr.inverse_in_band(psd, 0.5, 20, 40)
    assert snr.inverse_in_band(psd, 0.5, 30, 40)[60:80].eq(1).all()  # outside of the band it does not matter


def test_a_band_without_frequencies_is_refused() -> None:
    with pytest.raises(SearchError, match="no frequency of 0 to 50 Hz lies in the band 60 to 80 Hz"):
        snr.inverse_in_band(torch.ones(101, dtype=torch.float64), 0.5, 60, 80)
