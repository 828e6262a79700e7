"""E1 and E2: detection curves and mass errors, on statistics and predictors whose curves are known beforehand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from mma_realtime.data.bank import make_signal_bank
from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.errors import SearchError
from mma_realtime.evaluation.efficiency import efficiency, ideal_efficiency, name_of, statistics, threshold_at
from mma_realtime.evaluation.masses import _shown, beside_grid, chirp_mass, loudest_templates, mass_errors
from mma_realtime.gw.psd import DESIGN_CURVES, design_curve
from scipy.stats import binom, ncx2, norm

torch.set_num_threads(1)
# Heavy binaries, whose signals lie in one window whole; the merger at one place.
HEAVY: dict[str, Any] = {
    "bank_size": 400, "noise_seconds": 32.0, "m_range": [30.0, 45.0], "q_max": 1.5, "seed": 3,
    "merger_range": [0.15, 0.15],
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "none"))


class Known:
    """Windows of one sample: normal noise, and the signal-to-noise ratio added to it."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def noise_windows(self, n: int) -> Any:
        return SimpleNamespace(x=torch.randn(n, 1, 1, generator=self.generator))

    def test_windows(self, snr: float, n: int) -> Any:
        return SimpleNamespace(x=torch.randn(n, 1, 1, generator=self.generator) + snr)


def test_the_threshold_is_exceeded_by_its_share_of_the_noise() -> None:
    noise = np.random.default_rng(0).normal(size=20_000)
    for fap in (1e-2, 1e-3, 5e-4):
        assert (noise > threshold_at(noise, fap)).sum() == round(fap * 20_000)
    for n, fap, least in ((999, 1e-2, 1000), (9999, 1e-3, 10_000)):
        with pytest.raises(SearchError, match=rf"{n} noise windows are too few .* {fap:g}: at least {least}"):
            threshold_at(noise[:n], fap)


def test_a_linear_statistic_has_the_normal_curve() -> None:
    found = efficiency(lambda x: x[:, 0, 0], Known(), 100_000, 20_000, snrs=(0.0, 2.0, 4.0))  # type: ignore[arg-type]
    assert set(found) == {
        "threshold/fap1e-2", "threshold/fap1e-3", "windows/noise", "windows/signals",
        *(f"tpr/fap1e-{k}/snr{s}" for k in (2, 3) for s in (0, 2, 4))
    }  # fmt: skip
    for fap in (1e-2, 1e-3):
        z = norm.isf(fap)
        assert found[f"threshold/fap1e{round(np.log10(fap))}"] == pytest.approx(z, abs=0.1)
        for snr in (2.0, 4.0):
            assert found[f"tpr/{name_of(fap, snr)}"] == pytest.approx(norm.sf(z - snr), abs=0.03)
        low, high = binom.interval(0.999, 20_000, fap)
        assert 0.5 * low <= 20_000 * found[f"tpr/{name_of(fap, 0)}"] <= 1.5 * high  # no signal: the false alarms


def test_a_statistic_that_is_chance_finds_as_many_signals_as_false_alarms() -> None:
    generator, data = torch.Generator().manual_seed(1), SimulatedBBH(**HEAVY)

    def chance(x: torch.Tensor) -> torch.Tensor:
        return torch.randn(len(x), generator=generator)

    found = efficiency(chance, data, 20_000, 4000, snrs=(12.0,), faps=(1e-2,), prefix="deaf")
    low, high = binom.interval(0.9999, 4000, 1e-2)
    assert low <= 4000 * found["deaf/fap1e-2/snr12"] <= high


def test_statistics_are_in_the_order_of_the_windows() -> None:
    x = torch.arange(2500.0).view(-1, 1, 1)
    np.testing.assert_array_equal(statistics(lambda x: x[:, 0, 0], SimpleNamespace(x=x)), np.arange(2500.0))  # type: ignore[arg-type]


def test_the_ideal_filter_meets_its_closed_form() -> None:
    """At one place of the merger |z| in noise is Rayleigh's, of a signal Rice's."""
    data = SimulatedBBH(**HEAVY)
    found = ideal_efficiency(data, 6000, 1500, snrs=(0.0, 3.0, 5.0), faps=(0.1, 1e-2))
    bank = data.banks("test").signals
    begin = bank.merger + round(0.15 * 1024) - 1024
    shown = 0.7422 * bank.values[:, 0, begin : begin + 1024].square().sum(1)  # of the squared SNR, in the window
    assert shown.min() > 0.95
    for fap in (0.1, 1e-2):
        t = math.sqrt(-2 * math.log(fap))
        assert found[f"ideal_threshold/fap1e{round(np.log10(fap))}"] == pytest.approx(t, rel=0.04)
        for snr in (3.0, 5.0):
            rice = ncx2.sf(t**2, 2, float(shown.mean()) * snr**2)
            assert found[f"ideal_tpr/{name_of(fap, snr)}"] == pytest.approx(rice, abs=0.05)
        low, high = binom.interval(0.9999, 1500, fap)
        assert low <= 1500 * found[f"ideal_tpr/{name_of(fap, 0.0)}"] <= high


def test_no_statistic_beats_the_ideal_filter() -> None:
    """Nor the ideal filter one that also knows where the merger is."""
    data = SimulatedBBH(**{**HEAVY, "merger_range": [0.05, 0.25]})
    settings: dict[str, Any] = {"snrs": (4.0, 6.0), "faps": (1e-2,)}
    ideal = ideal_efficiency(data, 4000, 1000, **settings)
    mean = data.banks("test").signals.values.mean(0)
    template = mean[:, data.banks("test").signals.merger - 150 : data.banks("test").signals.merger + 30]
    linear = torch.nn.functional.conv1d

    def energy(x: torch.Tensor) -> torch.Tensor:
        return x[..., -512:].square().sum((1, 2))

    def common(x: torch.Tensor) -> torch.Tensor:
        return linear(x[..., -512:], template[None]).abs().amax((1, 2))

    t = math.sqrt(-2 * math.log(1e-2))
    for snr in settings["snrs"]:
        name = name_of(1e-2, snr)
        for other in (energy, common):
            assert efficiency(other, data, 4000, 1000, **settings)[f"tpr/{name}"] < ideal[f"ideal_tpr/{name}"] - 0.02
        assert ideal[f"ideal_tpr/{name}"] < ncx2.sf(t**2, 2, snr**2) + 0.02
    assert ideal["ideal_tpr/fap1e-2/snr6"] > 0.85


@pytest.mark.slow
def test_the_ideal_curve_is_the_specifications() -> None:
    """Section 12, E1: 0.36, 0.67, 0.90 at SNR 4, 5, 6 and a false-alarm probability of 1e-3."""
    data = SimulatedBBH(bank_size=4000, noise_seconds=32.0, seed=4)
    found = ideal_efficiency(data, 20_000, 1000, snrs=(4.0, 5.0, 6.0, 8.0), faps=(1e-3,))
    for snr, expected in ((4, 0.36), (5, 0.67), (6, 0.90), (8, 1.0)):
        assert found[f"ideal_tpr/fap1e-3/snr{snr}"] == pytest.approx(expected, abs=0.07)


def test_the_ideal_filter_is_of_one_detector() -> None:
    with pytest.raises(SearchError, match="of one detector"):
        ideal_efficiency(SimulatedBBH(**{**HEAVY, "detectors": 2}))


# ---- masses ----


class Told:
    """Windows whose first two samples are the masses."""

    def test_windows(self, snr: float, n: int) -> Any:
        generator = torch.Generator().manual_seed(round(snr))
        masses = (10 + 40 * torch.rand(n, 2, generator=generator)).sort(1, descending=True).values
        return SimpleNamespace(x=masses[:, None], masses=masses)


def errors(predictor: Any, **more: Any) -> dict[str, float]:
    return mass_errors(predictor, Told(), 3000, **{"snrs": (8.0, 10.0), **more})  # type: ignore[arg-type]


def test_the_chirp_mass() -> None:
    m = torch.tensor([[1.4, 1.4], [36.0, 29.0], [50.0, 10.0]], dtype=torch.float64)
    assert chirp_mass(m).tolist() == pytest.approx([1.4 * 2**-0.2, 28.0956, 18.3549], rel=1e-4)
    torch.testing.assert_close(chirp_mass(m.flip(1)), chirp_mass(m))


def test_who_knows_the_masses_has_no_error() -> None:
    found = errors(lambda x: x[:, 0])
    assert {v for k, v in found.items() if "guess" not in k} == {0.0}
    assert set(found) == {"guess_chirp_mass_error", *(f"{k}mass_error/snr{s}" for k in ("", "chirp_") for s in (8, 10))}
    tenth = errors(lambda x: 1.1 * x[:, 0])
    assert tenth["chirp_mass_error/snr8"] == pytest.approx(0.1, rel=1e-4)
    assert tenth["mass_error/snr8"] == pytest.approx(0.1, rel=1e-4)
    # Of the smaller mass only: the mean over both is half of its error, the chirp mass is hardly wrong.
    one = errors(lambda x: x[:, 0] * torch.tensor([1.0, 1.1]))
    assert one["mass_error/snr10"] == pytest.approx(0.05, rel=1e-4)
    assert 0.05 < one["chirp_mass_error/snr10"] < 0.08


def test_who_names_the_median_is_as_good_as_the_guess() -> None:
    snr = 10.0
    truth = chirp_mass(Told().test_windows(snr, 3000).masses)
    named = float(truth.median()) * 2**0.2
    found = errors(lambda x: torch.full((len(x), 2), named), snrs=(snr,))
    assert found["chirp_mass_error/snr10"] == pytest.approx(found["guess_chirp_mass_error"], rel=1e-5)
    assert found["guess_chirp_mass_error"] == pytest.approx(0.2, abs=0.1)
    shifted = errors(lambda x: torch.full((len(x), 2), 1.3 * named), snrs=(snr,))
    assert shifted["chirp_mass_error/snr10"] > found["guess_chirp_mass_error"]
    for value in errors(lambda x: torch.full((len(x), 2), -5.0)).values():  # no mass is negative: an error near 1
        assert math.isfinite(value)
        assert value <= 1


def test_errors_are_of_masses_that_were_not_trained_on() -> None:
    data = SimulatedBBH(**{**HEAVY, "m_range": [10.0, 40.0]})
    known = {
        tuple(m) for m in torch.stack([data.banks("train").signals.m1, data.banks("train").signals.m2], 1).tolist()
    }
    seen: list[torch.Tensor] = []
    original = data.test_windows

    def watched(snr: float, n: int) -> Any:
        seen.append(original(snr, n).masses)
        return original(snr, n)

    data.test_windows = watched  # type: ignore[assignment,method-assign]
    found = mass_errors(lambda x: torch.full((len(x), 2), 25.0), data, 200, snrs=(10.0,))
    assert math.isfinite(found["mass_error/snr10"])  # none is noise, whose masses are nan
    assert not known & {tuple(m) for m in seen[0].double().tolist()}


# ---- masses beside a grid ----


def test_the_loudest_template_is_that_of_brute_force_and_of_a_loud_signal_its_own() -> None:
    data = SimulatedBBH(**{**HEAVY, "merger_range": [0.05, 0.25]})
    bank = data.banks("train").signals
    grid = replace(bank, values=bank.values[:40], m1=bank.m1[:40], m2=bank.m2[:40])
    low, high = (round(edge * data.sample_rate) for edge in data.merger_range)
    ends = torch.linspace(low, high, 40).long()
    signals, noise = _shown(grid, ends, data.samples), data.noise_windows(40).x[:, 0]
    assert loudest_templates(50 * signals, grid, data).tolist() == list(range(40))
    x = noise[:10] + 6 * signals[:10]
    analytic = torch.from_numpy(scipy.signal.hilbert(x.double().numpy()))
    best = torch.zeros(10, 40, dtype=torch.float64)
    for end in range(low, high + 1):  # every place: the template moved there, in two quadratures
        moved = _moved(
            _shown(grid, torch.full((40,), (low + high) // 2), data.samples).double(), (low + high) // 2 - end
        )
        best = torch.maximum(best, (analytic @ (moved / moved.norm(dim=1, keepdim=True)).T.cdouble()).abs())
    told = loudest_templates(x, grid, data)
    near = best.gather(1, told[:, None])[:, 0] / best.amax(1)
    assert float(near.min()) > 0.995  # the same but for what a window's edge does to the transform


def _moved(x: torch.Tensor, later: int) -> torch.Tensor:
    out = torch.zeros_like(x)
    if later >= 0:
        out[:, later:] = x[:, : x.shape[1] - later]
    else:
        out[:, :later] = x[:, -later:]
    return out


def test_a_grid_beside_who_knows_and_who_guesses() -> None:
    data = SimulatedBBH(**{**HEAVY, "m_range": [10.0, 40.0]})
    known: list[torch.Tensor] = []

    def knows(x: torch.Tensor) -> torch.Tensor:
        m1, m2 = known[0]
        return torch.stack([m1, m2], 1)

    row = data.window - data.merger_range[0] + 0.33
    curve = replace(design_curve(DESIGN_CURVES[0]), measured=True)
    asked = make_signal_bank(
        60, data.run_seed, data.sample_rate, data.band, row, data.m_range, data.q_max, (curve,), part="test"
    )
    known.append(torch.stack([asked.m1, asked.m2]))
    found = beside_grid(knows, data, 60, 500)
    assert found["grid/network_error/snr10"] == pytest.approx(0, abs=1e-9)
    assert found["grid/template_over_network/snr10"] > 1
    guess = beside_grid(lambda x: torch.full((len(x), 2), 20.0), data, 60, 500)
    assert guess["grid/template_error/snr10"] == found["grid/template_error/snr10"]  # of the same windows
    assert guess["grid/template_over_network/snr10"] < 1  # templates know more than a guess
    assert found["grid/template_error/snr20"] < found["grid/template_error/snr10"] < 0.2
    with pytest.raises(SearchError, match="of one detector's windows"):
        beside_grid(knows, SimulatedBBH(**{**HEAVY, "detectors": 2}))
