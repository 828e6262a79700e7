"""Whitening (section 4): flat noise of unit variance in the band, nothing of the wall, signals where they were."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mma_realtime.errors import SearchError, StrainError
from mma_realtime.gw import snr
from mma_realtime.gw.constants import SCALE
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.waveforms import phenomd, to_time
from mma_realtime.gw.whiten import robust_scale, welch_psd, whiten, whitening_filter
from torch import Tensor

FS, BAND = 2048, (20.0, 400.0)


def density(f: Tensor, wall: float = 1e4) -> Tensor:
    """Scaled power: a design curve, and a wall that rises 1e4-fold in amplitude from 20 to 10 Hz and stays there."""
    asd = design_curve("aLIGODesignSensitivityP1200087").asd(f.clamp(20, 1024)) * SCALE
    return (asd * wall ** ((20 - f) / 10).clamp(0, 1)).square()


def coloured(seconds: int, seed: int, wall: float = 1e4) -> Tensor:
    n = seconds * FS
    f = torch.arange(n // 2 + 1, dtype=torch.float64) * FS / n
    white = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.fft.irfft(torch.fft.rfft(white) * (density(f, wall) * FS / 2).sqrt(), n)


def shares(x: Tensor, margin: float = 3.0) -> tuple[float, float]:
    """Of the power: below the band by more than `margin` Hz, and above it."""
    f = np.fft.rfftfreq(x.shape[-1], 1 / FS)
    power = np.abs(np.fft.rfft(x.numpy() * np.hanning(x.shape[-1]))) ** 2
    return (
        float(power[f < BAND[0] - margin].sum() / power.sum()),
        float(power[f > BAND[1] + margin].sum() / power.sum()),
    )


def test_welch_has_no_bias_and_takes_no_notice_of_a_glitch() -> None:
    x = torch.randn(3, 64 * FS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    psd = welch_psd(2 * x, FS)
    assert psd.shape == (3, 2 * FS + 1)
    assert float(psd[:, 10:-10].mean()) == pytest.approx(4 * 2 / FS, rel=0.02)  # a median unmended is 0.7 of it
    x[:, 30 * FS : 30 * FS + 200] += 300
    assert float((welch_psd(2 * x, FS) / psd)[:, 10:-10].mean()) == pytest.approx(1, abs=0.15)


def test_welch_refuses_too_little_and_what_is_not_a_number() -> None:
    with pytest.raises(StrainError, match="3 s of strain: a noise curve needs at least 4 s"):
        welch_psd(torch.zeros(3 * FS, dtype=torch.float64), FS)
    x = torch.zeros(8 * FS, dtype=torch.float64)
    x[5] = torch.nan
    with pytest.raises(StrainError, match="not finite"):
        welch_psd(x, FS)
    with pytest.raises(SearchError, match="zero or undefined"):
        whitening_filter(welch_psd(x.nan_to_num(), FS), FS, *BAND)  # a detector that gives zeros


def rounding(psd: Tensor, taps: Tensor) -> float:
    """Of a transform of so many terms, whose amplitudes span the noise's: here 2e-9 to 1e-8 of the largest tap."""
    share = float((psd.max() / psd.min()).sqrt()) * len(taps) ** 0.5 * torch.finfo(torch.float64).eps
    assert share < 1e-7  # of what a filter without the symmetry, or of another curve, would show
    return share * float(taps.abs().max())


@pytest.mark.parametrize("length", [1.0, 2.0])
def test_noise_becomes_flat_of_unit_variance_and_the_wall_is_gone(length: float) -> None:
    x = coloured(64, 1)
    assert x.std() > 1e2 * coloured(64, 1, wall=1.0).std()
    psd = welch_psd(x[: 32 * FS], FS)
    taps = whitening_filter(psd, FS, *BAND, length=length)
    assert taps.shape == (length * FS + 1,)
    torch.testing.assert_close(taps, taps.flip(0), rtol=0, atol=rounding(psd, taps))
    y = whiten(x[32 * FS :], taps)
    assert y.shape == (32 * FS - length * FS,)
    assert float(y.std()) == pytest.approx(1, abs=0.03)
    assert float(robust_scale(y)) == pytest.approx(1, abs=0.03)
    assert max(shares(y)) < 1e-3
    psd = welch_psd(y, FS, segment=1.0)
    assert float((psd[25:396] * (BAND[1] - BAND[0]) - 1).abs().mean()) < 0.25  # 60 medians of a second: 0.15 by chance
    for part in (psd[25:60], psd[60:150], psd[150:396]):
        assert float(part.mean() * (BAND[1] - BAND[0])) == pytest.approx(1, abs=0.08)


def test_nothing_of_the_wall_even_when_it_is_ten_times_larger() -> None:
    x = coloured(48, 2, wall=1e5)
    y = whiten(x[24 * FS :], whitening_filter(welch_psd(x[: 24 * FS], FS), FS, *BAND))
    assert max(shares(y)) < 1e-3


def test_whiten_is_a_convolution_where_it_has_all_data() -> None:
    generator = torch.Generator().manual_seed(3)
    for length, k in ((101, 101), (500, 33), (4096, 129)):
        x = torch.randn(2, length, generator=generator, dtype=torch.float64)
        taps = torch.randn(2, k, generator=generator, dtype=torch.float64)
        expected = np.stack([np.convolve(row, kernel, "valid") for row, kernel in zip(x.numpy(), taps.numpy())])
        torch.testing.assert_close(whiten(x, taps), torch.as_tensor(expected), rtol=1e-10, atol=1e-10)
        one = whiten(x, taps[0])  # one filter for all
        torch.testing.assert_close(one[0], whiten(x[0], taps[0]), rtol=1e-10, atol=1e-10)
    with pytest.raises(StrainError, match="100 samples of strain are fewer than the 101"):
        whiten(torch.zeros(100, dtype=torch.float64), torch.zeros(101, dtype=torch.float64))


def test_a_signal_keeps_its_time_and_its_snr() -> None:
    seconds = 8
    f = torch.arange(seconds * FS // 2 + 1, dtype=torch.float64) / seconds
    h = phenomd(*torch.tensor([[36.0], [29.0]], dtype=torch.float64), f) * SCALE
    psd = density(f).clamp(max=1e12)
    taps = whitening_filter(psd, FS, *BAND)
    x = to_time(h, FS, 5.0)[0]
    y = whiten(x, taps)
    truth = float(snr.optimal_snr(h[0], psd, 1 / seconds, *BAND))
    assert float(snr.band_snr(y, FS, *BAND)) == pytest.approx(truth, rel=0.03)
    ideal = torch.fft.irfft(
        h[0] * torch.exp(-2j * torch.pi * f * 5.0) * snr.inverse_in_band(psd, 1 / seconds, *BAND).sqrt()
    )
    assert abs(int(y.abs().argmax()) + FS // 2 - int(ideal.abs().argmax())) <= 1
    assert float(torch.corrcoef(torch.stack([y, ideal[FS // 2 : -FS // 2]]))[0, 1]) > 0.99


def test_lines_do_not_fill_the_band_and_refinement_is_what_keeps_them_out() -> None:
    """A line a thousand times the noise's amplitude: the floor has to keep most of the whitened variance."""
    x = coloured(48, 4)
    t = torch.arange(len(x), dtype=torch.float64) / FS
    floor = density(torch.tensor([36.7, 60.0, 331.9], dtype=torch.float64)).sqrt()
    for amplitude, line in zip(floor, (36.7, 60.0, 331.9)):
        x += 60 * amplitude * (2 * torch.pi * line * t).sin()
    psd = welch_psd(x[: 24 * FS], FS)
    shares_of_noise = []
    for steps in (0, 4):
        y = whiten(x[24 * FS :], whitening_filter(psd, FS, *BAND, refinements=steps))
        power = torch.fft.rfft(y * torch.hann_window(len(y), dtype=torch.float64)).abs().square()
        inside = power[22 * len(y) // FS : 398 * len(y) // FS]
        shares_of_noise.append(float(inside.median() / np.log(2) * len(inside) / power.sum()))
        assert max(shares(y)) < 1e-3
    assert shares_of_noise[1] > 0.85
    assert shares_of_noise[0] < shares_of_noise[1] - 0.2


def test_filters_of_many_curves_at_once_are_those_of_each() -> None:
    psd = torch.stack([welch_psd(coloured(8, seed), FS) for seed in (5, 6)])
    both = whitening_filter(psd, FS, *BAND)
    for taps, one in zip(both, psd):
        torch.testing.assert_close(taps, whitening_filter(one, FS, *BAND), rtol=0, atol=rounding(one, taps))


def test_a_filter_longer_than_the_curve_resolves_is_refused() -> None:
    with pytest.raises(StrainError, match="a filter of 2 s needs a noise curve from segments longer"):
        whitening_filter(torch.ones(FS + 1, dtype=torch.float64), FS, *BAND, length=2.0)


def test_real_strain_has_nothing_outside_the_band() -> None:
    root = os.environ.get("DATA_ROOT")
    path = Path(root or "data") / "gwosc" / "event_GW150914.npz"
    if not root or not path.exists():
        pytest.skip("set DATA_ROOT to a folder with gwosc/event_GW150914.npz: real strain")
    with np.load(path) as file:
        x = torch.as_tensor(file["strain_e21"]).double()
        t = float(file["gps_event"] - file["gps_start"])
    for row in x:
        y = whiten(row, whitening_filter(welch_psd(row, FS), FS, *BAND))
        assert max(shares(y)) < 1e-3
        assert float(robust_scale(y)) == pytest.approx(1, abs=0.1)
        power = (torch.fft.rfft(y * torch.hann_window(len(y), dtype=torch.float64))).abs().square()
        inside = power[22 * len(y) // FS : 398 * len(y) // FS]
        assert inside.median() / np.log(2) * len(inside) > 0.8 * power.sum()  # the rest are lines
        loudest = (int(y.abs().argmax()) + FS // 2) / FS
        assert abs(loudest - t) < 0.1
