"""Backgrounds, false-alarm rates and their bounds (section 7)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.errors import SearchError
from mma_realtime.search.coincidence import clusters, combine, find_triggers
from mma_realtime.search.series import Scores
from mma_realtime.search.significance import Background, duration_text, short_step, time_slides, together
from scipy.stats import poisson

HOP = 1 / 16
START = 1_000_000_000.0


def scores(values: np.ndarray, valid: np.ndarray | None = None) -> Scores:
    values = np.asarray(values, np.float32)
    return Scores(("H1", "L1"), START, HOP, values, np.ones(values.shape, bool) if valid is None else valid)


def noise(k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(-3.0, 1.5, (2, k))


def brute_force(s: Scores, shifts: list[int], threshold: float, gap: float) -> tuple[list[float], float]:
    """Every pair of windows in every slide, one after the other."""
    a, b = s.values.astype(np.float64)
    k = a.size
    maxima, hops = [], 0
    for shift in shifts:
        last = None
        for t in range(k):
            other = (t - shift) % k
            if not (s.valid[0, t] and s.valid[1, other]):
                continue
            hops += 1
            value = a[t] + b[other]
            if value > threshold:
                if last is not None and (t - last) * s.hop < gap:
                    maxima[-1] = max(maxima[-1], value)
                else:
                    maxima.append(value)
                last = t
    return sorted(maxima), hops * s.hop


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-4.0, 2.0), st.sampled_from([0.0, 0.3]))
def test_slides_are_what_brute_force_finds(seed: int, threshold: float, gaps: float) -> None:
    rng = np.random.default_rng(seed)
    valid = rng.random((2, 300)) >= gaps
    valid[:, [0, -1]] = True  # the circle is the whole stretch
    s = scores(noise(300, seed), valid)
    background = time_slides(s, threshold=threshold)
    shifts = [k for k in range(32, 300, 32) if 300 - k >= 32]
    maxima, livetime = brute_force(s, shifts, threshold, 0.35)
    assert background.n_slides == len(shifts)
    assert background.livetime_s == background.independent_livetime_s == pytest.approx(livetime)
    np.testing.assert_allclose(background.statistics, maxima, rtol=1e-12)


def test_a_signal_is_not_its_own_background() -> None:
    values = noise(512)
    values[:, 200:204] = 40.0
    background = time_slides(scores(values), threshold=-20.0)
    assert background.loudest < 60.0  # 80 at zero lag; no slide comes within 2 s of it, from either side
    far = background.far(80.0)
    assert far.upper_limit
    assert far.value_hz == 1 / background.livetime_s


def test_a_candidates_own_windows_can_be_taken_out_and_cost_livetime() -> None:
    values = noise(512)
    values[:, 200:204] = 40.0
    gps = START + 198 * HOP
    inclusive = time_slides(scores(values), threshold=-20.0)
    exclusive = time_slides(scores(values), threshold=-20.0, on_source=[gps])
    assert inclusive.loudest > 30.0  # it pairs with the other detector's noise
    assert exclusive.loudest < 5.0
    assert exclusive.n_slides == inclusive.n_slides
    out = 33  # windows that end from half a second before it to half a second after it left them
    assert exclusive.livetime_s == pytest.approx(inclusive.n_slides * (512 - 2 * out) * HOP, rel=0.1)


def test_a_gap_in_either_detector_takes_its_livetime_wherever_it_is_shifted() -> None:
    valid = np.ones((2, 640), bool)
    whole = time_slides(scores(noise(640), valid))
    valid[0, 100:160] = False
    one = time_slides(scores(noise(640), valid))
    assert whole.livetime_s - one.livetime_s == pytest.approx(one.n_slides * 60 * HOP)
    valid[1, 400:460] = False
    both = time_slides(scores(noise(640), valid))
    assert both.livetime_s < one.livetime_s
    valid[0, :32], valid[1, :32] = False, False  # the start of the PSD is no part of the circle
    assert time_slides(scores(noise(640), valid)).n_slides == whole.n_slides - 1


def test_the_rate_counts_itself_and_is_a_bound_above_all() -> None:
    background = Background(np.array([1.0, 2.0, 2.0, 5.0]), 1000.0, 1000.0, 10, 2.0, 0.0, 5.0)
    assert [background.far(s).value_hz for s in (0.5, 2.0, 5.0, 5.1)] == [5e-3, 4e-3, 2e-3, 1e-3]
    assert [background.far(s).upper_limit for s in (5.0, 5.1)] == [False, True]
    assert str(background.far(5.1)) == "< 1 per 16.7 min"
    assert background.far(5.1).p_value(1000.0) == pytest.approx(1 - math.exp(-1))
    assert background.far(5.1).p_value(1e-9) == pytest.approx(1e-12)
    for bad, why in ((math.nan, "no candidate"), (math.inf, "no candidate"), (-0.1, "below the background")):
        with pytest.raises(SearchError, match=why):
            background.far(bad)


@given(st.integers(0, 10**6), st.floats(1e-3, 1.0))
def test_the_threshold_of_a_rate_is_the_lowest_that_keeps_it(seed: int, far: float) -> None:
    statistics = np.sort(np.random.default_rng(seed).exponential(1.0, 200))
    background = Background(statistics, 1000.0, 1000.0, 10, 2.0, 0.0, float(statistics[-1]))
    threshold = background.threshold_at(far)
    assert background.far(threshold).value_hz <= far * (1 + 1e-9)
    if threshold > 0.0:
        assert background.far(np.nextafter(threshold, -np.inf)).value_hz > far


def test_a_rate_that_the_livetime_cannot_reach_says_how_much_is_needed() -> None:
    background = Background(np.array([1.0]), 2000.0, 250.0, 80, 0.25, 0.0, 1.0)
    background.require(1 / 2000)
    with pytest.raises(SearchError, match=r"2,000 s of slid livetime .* 20,000 s are needed, 10 times as much"):
        background.require(1 / 20000)
    with pytest.raises(SearchError, match="20,000 s are needed"):
        background.threshold_at(1 / 20000)
    with pytest.raises(SearchError, match="above zero"):
        background.require(0.0)


def test_steps_and_shifts_shorter_than_the_window_are_refused() -> None:
    s = scores(noise(512))
    with pytest.raises(SearchError, match=r"slide step of 0\.5 s is shorter than the window and 1 s"):
        time_slides(s, 0.5)
    with pytest.raises(SearchError, match="smallest shift of 1 s"):
        time_slides(s, 2.0, 1.0)
    with pytest.raises(SearchError, match="whole number of score hops"):
        time_slides(s, 2.03)
    with pytest.raises(SearchError, match="hold no slide: at least 4 s"):
        time_slides(scores(noise(60)))
    with pytest.raises(SearchError, match=r"1 row\(s\)"):
        time_slides(replace(s, values=s.values[:1], valid=s.valid[:1]))
    with pytest.raises(SearchError, match="no window has a score"):
        time_slides(replace(s, valid=np.zeros_like(s.valid)))


def test_correlated_slides_say_how_much_is_independent() -> None:
    s = scores(noise(512))
    apart, close = time_slides(s), time_slides(s, 0.25, correlated=True)
    assert not apart.correlated
    assert close.correlated
    assert close.livetime_s == pytest.approx(8 * apart.livetime_s, rel=0.1)
    assert close.independent_livetime_s == pytest.approx(apart.livetime_s, rel=0.1)


def test_a_short_files_slides_reach_two_thousand_seconds() -> None:
    valid = np.ones((2, 496), bool)
    valid[:, : 16 * 10] = False  # 21 s are left of a file of 32
    s = scores(noise(496), valid)
    step = short_step(s)
    assert time_slides(s, step, correlated=True, on_source=[START + 20]).livetime_s >= 2000
    assert short_step(scores(noise(16 * 3600))) == 2.0  # an hour needs none that are correlated
    assert short_step(scores(noise(496))) == 0.25


def test_backgrounds_add_up() -> None:
    parts = [time_slides(scores(noise(512, seed))) for seed in range(3)]
    whole = together(parts)
    assert whole.livetime_s == sum(part.livetime_s for part in parts)
    assert whole.count(1.0) == sum(part.count(1.0) for part in parts)
    assert whole.far(50.0).value_hz < parts[0].far(50.0).value_hz
    with pytest.raises(SearchError, match="one and the same threshold"):
        together([parts[0], replace(parts[1], threshold=1.0)])
    with pytest.raises(SearchError, match="at least one"):
        together([])


def test_an_hour_of_noise_has_as_many_events_as_its_slides_say() -> None:
    """E6: zero-lag counts at several thresholds lie in the Poisson 99 % interval of the slides' rate."""
    rng = np.random.default_rng(7)
    k = 3600 * 16
    raw = rng.normal(0.0, 1.0, (2, k + 15))
    values = np.stack([np.convolve(row, np.ones(16) / 4, "valid") for row in raw])  # windows overlap, as scores do
    background = time_slides(scores(values), threshold=2.0, max_slides=300)
    for statistic in (4.0, 4.5, 5.0, background.threshold_at(1 / 2000)):
        zero_lag = [each for each in find_triggers(scores(values), 2.0) if each.statistic >= statistic]
        expected = background.count(statistic) / background.livetime_s * 3600
        low, high = poisson.interval(0.99, expected)
        assert expected > 0.5
        assert low - 1e-9 <= len(zero_lag) <= high


def test_durations_are_told_in_their_unit() -> None:
    told = [duration_text(s) for s in (35.0, 2460.0, 18720.0, 864000.0, 1e9)]
    assert told == ["35 s", "41 min", "5.2 h", "10 d", "31.7 yr"]


def test_the_bound_of_correlated_slides_is_that_of_the_independent_ones() -> None:
    background = Background(np.array([1.0, 2.0, 5.0]), 8000.0, 1000.0, 80, 0.25, 0.0, 5.0)
    assert background.independent_far(6.0).value_hz == 1 / 1000
    assert background.independent_far(6.0).upper_limit
    assert background.independent_far(2.0).value_hz == pytest.approx(2 / 8000 + 1 / 1000)
    apart = replace(background, independent_livetime_s=8000.0)
    assert apart.independent_far(2.0) == apart.far(2.0)
    with pytest.raises(SearchError, match="below the background"):
        background.independent_far(-1.0)


def test_a_threshold_that_the_clusters_do_not_reach_is_the_one_they_were_counted_above() -> None:
    background = Background(np.array([1.0, 2.0]), 1000.0, 1000.0, 10, 2.0, 0.5, 2.0)
    assert background.threshold_at(1.0) == 0.5
    assert background.threshold_at(1 / 1000) == np.nextafter(2.0, np.inf)


def test_zero_lag_counts_no_more_superevents_than_the_background_would_clusters() -> None:
    """Several clusters of one event are one event at zero lag; in slides each counts, so rates are never too low."""
    for seed in range(20):
        s = scores(noise(4096, seed))
        series = combine(s)
        peaks = np.array([series[a : b + 1].max() for a, b in clusters(series, HOP, -4.0)])
        events: dict[int, float] = {}
        for each in find_triggers(s, -4.0):
            events[each.event] = max(each.statistic, events.get(each.event, -math.inf))
        merged = np.array(list(events.values()))
        assert len(merged) < len(peaks) / 2  # the refractory has something to do here
        assert merged.max() == peaks.max()
        for statistic in np.unique(peaks):
            assert (merged >= statistic).sum() <= (peaks >= statistic).sum()


def test_three_detectors_are_shifted_each_against_each() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(-1.0, 1.0, (3, 512)).astype(np.float32)
    values[:, 200:204] = 40.0
    valid = rng.random((3, 512)) > 0.1
    valid[:, [0, -1]] = True
    s = Scores(("H1", "L1", "V1"), START, HOP, values, valid)
    found = time_slides(s, threshold=3.0)
    shifts = [k for k in range(32, 481, 32) if 32 <= 2 * k % 512 <= 480]  # 256 would leave H1 and V1 as they are
    assert 256 not in shifts
    maxima, hops = [], 0
    for k in shifts:
        last = None
        for t in range(512):
            at = [t, (t - k) % 512, (t - 2 * k) % 512]
            if not all(valid[i, j] for i, j in enumerate(at)):
                continue
            hops += 1
            value = sum(float(values[i, j]) for i, j in enumerate(at))
            if value > 3.0:
                if last is not None and (t - last) * HOP < 0.35:
                    maxima[-1] = max(maxima[-1], value)
                else:
                    maxima.append(value)
                last = t
    np.testing.assert_allclose(found.statistics, sorted(maxima), rtol=1e-9)
    assert found.livetime_s == pytest.approx(hops * HOP)
    assert found.n_slides == len(shifts)
    assert found.loudest < 50.0  # one of the three at a time: no pair of the signal's windows meets
