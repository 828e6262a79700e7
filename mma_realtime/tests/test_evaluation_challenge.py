"""The measurements of a search on sets like the challenge's: calibration, sensitive distance, glitches, speed."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mma_realtime.data.challenge import CURVE, coloured_noise, generate
from mma_realtime.data.strain import Strain
from mma_realtime.errors import SearchError
from mma_realtime.evaluation import challenge as measured_module
from mma_realtime.evaluation import speed
from mma_realtime.evaluation.calibrate import SEED, calibrated, parameters, size_of
from mma_realtime.evaluation.challenge import GLITCH_EVERY, challenge_metrics, glitches_in
from mma_realtime.evaluation.distance import triggers_of
from mma_realtime.evaluation.speed import MONTH, real_time_factors
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.snr import matched_filter, optimal_snr
from mma_realtime.models import SearchNetwork, build
from mma_realtime.search.coincidence import combine
from mma_realtime.search.model_file import Recipe, SearchModel
from mma_realtime.search.scores import conditioner_for, score_strain
from torch import Tensor

spec = importlib.util.spec_from_file_location("search_inputs", Path(__file__).with_name("search_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
torch.set_num_threads(1)
BAND = (20.0, 400.0)


class Energy(SearchNetwork):
    """The energy of the window's last quarter, above that of noise: loud mergers are heard, nothing is learnt."""

    def __init__(self, input_length: int = 1024, channels: int = 1, outputs: int = 1) -> None:
        super().__init__(input_length, channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return x[..., -256:].square().mean((1, 2), keepdim=True)[:, 0] * 16 - 16


class Deaf(Energy):
    """A number that says nothing of a signal: its first sample."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1, 0]


def search(net: type[SearchNetwork] = Energy, **settings: Any) -> SearchModel:
    return SearchModel(Recipe("by hand", **settings), [net()])


# ---- calibration ----


@pytest.fixture(scope="module")
def energy() -> SearchModel:
    return calibrated([Energy()], "by hand", {"channels": 1}, 1024, BAND, ("H1",), "mean", "of a test", 600)


def test_a_calibrated_search_has_its_rate_and_its_time(energy: SearchModel) -> None:
    recipe = energy.recipe
    assert (recipe.detectors, recipe.band, recipe.trained_as) == ("each", BAND, "of a test")
    own, other = generate(600, SEED), generate(400, 7)  # what it was calibrated on, and another set
    for noise, least, most in ((own.background, 5, 7), (other.background, 1, 15)):  # one in 100 s; windows overlap
        series = combine(score_strain(energy, noise, conditioner_for(energy).fitted(noise)))
        assert least <= (series > recipe.threshold).sum() <= most
    found = score_strain(energy, other.foreground, conditioner_for(energy).fitted(other.background))
    loudness = np.hypot(other.injections["optimal_snr_H1"], other.injections["optimal_snr_L1"])
    loud = other.injections["tc"][loudness > 9]
    assert len(loud) >= 5
    triggers = np.array([t.gps for t in triggers_of(found, recipe.threshold, recipe.time_offset)])
    assert np.median([np.abs(triggers - tc).min() for tc in loud]) < 0.06  # with the sign of the offset wrong 0.2
    assert -0.2 < recipe.time_offset < -0.03  # the plateau lies in the quarter of a second after the merger


def test_of_two_detectors_together_the_search_says_which() -> None:
    net = build("twin", channels=2)
    model = calibrated([net], "twin", size_of(net, {}), 1024, BAND, ("H1", "L1"), duration=100, near=math.inf)
    assert model.recipe.detectors == ("H1", "L1")
    assert model.recipe.size == {"input_length": 1024, "channels": 2, "outputs": 2}
    assert math.isfinite(model.recipe.threshold)
    assert parameters([net, net]) == 2 * sum(p.numel() for p in net.parameters())


def test_what_finds_no_injection_is_not_calibrated() -> None:
    class Silent(Energy):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 1)

    with pytest.raises(
        SearchError, match=r"none of the 2 injections of 100 s has a trigger within 0\.5 s.* train longer"
    ):
        calibrated([Silent()], "by hand", {}, 1024, BAND, ("H1",), duration=100)
    with pytest.raises(SearchError, match=r"within 0\.001 s"):  # it hears them, later than that
        calibrated([Energy()], "by hand", {}, 1024, BAND, ("H1",), duration=100, near=0.001)


# ---- glitches ----


def snrs_of(row: np.ndarray, rate: int) -> list[tuple[float, float]]:
    """(Begin in s, optimal signal-to-noise ratio) of every glitch of 2 s that no other overlaps."""
    some = np.flatnonzero(row)
    ends = np.flatnonzero(np.diff(some) > 1)
    begins, ends = some[np.append(0, ends + 1)], some[np.append(ends, len(some) - 1)]
    f = torch.fft.rfftfreq(4 * rate, 1 / rate, dtype=torch.float64)
    psd, inside = torch.ones_like(f), (f >= 20) & (f < 1000)
    psd[inside] = design_curve(CURVE).psd(f[inside]) * 1e42
    out = []
    for begin in begins[ends - begins < 2 * rate]:
        h = torch.fft.rfft(torch.from_numpy(row[begin : begin + 2 * rate]), 4 * rate) / rate
        out.append((begin / rate, float(optimal_snr(h, psd, 0.25, 20, 1000))))
    return out


def test_glitches_have_the_strength_that_is_said_in_one_detector_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rate, seconds = 2048, 600
    quiet = Strain(("H1", "L1"), 0.0, rate, np.zeros((2, seconds * rate)), np.ones((2, seconds), bool))
    for low, high in ((20.0, 20.0), (8.0, 100.0)):
        monkeypatch.setattr(measured_module, "GLITCH_SNR", (low, high))
        added = glitches_in(quiet, 3)
        found = [snrs_of(row, rate) for row in added]
        for each in found:
            assert seconds // GLITCH_EVERY - 3 <= len(each) <= seconds // GLITCH_EVERY
            assert all(0.95 * low <= snr <= 1.05 * high for _, snr in each)
        if low < high:
            assert max(snr for _, snr in found[0]) > 2 * min(snr for _, snr in found[0])
    starts = [{round(begin) for begin, _ in each} for each in found]
    assert len(starts[0] & starts[1]) <= 2  # each detector has its own times
    assert not np.array_equal(added[0], added[1])
    np.testing.assert_array_equal(added, glitches_in(quiet, 3))
    assert not np.array_equal(added, glitches_in(quiet, 4))


def test_a_glitch_in_noise_is_found_with_that_strength() -> None:
    """What is added is strain in the noise's own units: the filter that knows it sees its signal-to-noise ratio."""
    rate, curve = 2048, design_curve(CURVE)
    rng = np.random.default_rng(0)
    noise = coloured_noise(curve, 60, rate, rng)
    quiet = Strain(("H1",), 0.0, rate, noise[None], np.ones((1, 60), bool))
    (added,) = glitches_in(quiet, 1)
    f = torch.fft.rfftfreq(len(noise), 1 / rate, dtype=torch.float64)
    psd, inside = torch.ones_like(f), (f >= 20) & (f < 1000)
    psd[inside] = curve.psd(f[inside]) * 1e42
    template = torch.fft.rfft(torch.from_numpy(added)) / rate
    z = matched_filter(torch.from_numpy(noise + added), template, psd, rate, 20, 1000)[0].real
    assert float(z) == pytest.approx(float(optimal_snr(template, psd, 1 / 60, 20, 1000)), abs=4)
    assert 7.5 < float(z) < 105


# ---- a set ----


def test_a_set_is_measured(energy: SearchModel) -> None:
    found = challenge_metrics(energy, 400, 7, glitches=True)
    known = generate(400, 7).injections
    assert found["injections"] == len(known["tc"])
    assert found["slid_livetime"] > 2592
    reached = [far for far in (1000, 100, 10) if found["slid_livetime"] >= 30 * 86400 / far]
    assert {k for k in found if k.startswith("distance")} == {
        f"distance{suffix}/{far}" for far in reached for suffix in ("", "_glitches")
    }  # fmt: skip
    assert 0 < found["found/1000"] <= 1
    assert 0 < found["distance/1000"] < known["distance"].max()
    assert found["timing/within"] > 0.5
    assert 0 < found["timing/near_calibrated"] < found["timing/near"]  # above the model's threshold, and the set's own
    assert found["timing_glitches/near_calibrated"] > 0
    assert found["distance_glitches/1000"] <= found["distance/1000"]  # whose background is louder
    assert {f"curve/{k}{s}" for k in ("far", "distance") for s in ("", "_glitches")} <= set(found)
    assert found["calibration/expected_60"] == pytest.approx(400 / 60, rel=0.05)
    assert 0 <= found["calibration/count_60"] <= 20
    tail = found["curve/slide_tail"]
    assert tail == sorted(tail)


def test_a_search_that_hears_nothing_has_no_distance() -> None:
    found = challenge_metrics(search(Deaf), 300, 5)
    assert found["found/1000"] <= 0.1
    assert found["distance/1000"] < 600


# ---- speed ----


def test_factors_are_strain_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that moves by 10 ms in the search, by 1 s in hops in which noise becomes known, then by 20 ms."""
    steps = [0.0, 0.01, *[0.0, 1.0] * 16, *[0.0, 0.02] * 50]
    ticks = iter(np.cumsum(steps))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: float(next(ticks)))
    strain = inputs.strain_with(seconds=24)
    found = real_time_factors(inputs.template_model(), strain, hops=10)
    assert found["speed/offline"] == pytest.approx(24 / 0.01)
    assert found["speed/stream"] == pytest.approx(1 / 0.02)
    assert found["speed/month_minutes"] == pytest.approx(31 * 86400 / 2400 / 60)
    assert found["speed/hop_ms_median"] == pytest.approx(20)
    assert found["speed/hop_ms_p99"] == pytest.approx(20)
    assert MONTH == 31 * 86400
