"""Bootstrap intervals: they cover as often as they say, and a run that never escapes is never taken for a late one."""

import math

import numpy as np
import pytest
from rpgan_landscape.intervals import median, ratio, survival_band


def test_the_median_interval_covers_the_true_median() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(60):
        found = median(rng.exponential(size=40), seed)
        assert found.low <= found.value <= found.high
        hits += found.low <= math.log(2) <= found.high
    assert 51 <= hits <= 60  # 95 % of 60 are 57; fewer than 51 have a chance of 1 %


def test_never_counts_as_infinite() -> None:
    times = np.array([10.0, 20.0, 30.0, math.inf, math.inf])
    assert median(times).value == 30
    assert median(times).high == math.inf
    assert median(np.array([1.0, math.inf, math.inf])).value == math.inf
    assert median(np.array([1.0, math.inf])).value == 1  # the lower middle: half of the runs did escape


def test_a_ratio_of_equal_samples_has_one_in_its_interval_and_of_different_ones_not() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.gamma(9.0, size=48), rng.gamma(9.0, size=48)
    same, twice = ratio(a, b), ratio(2 * a, b)
    assert same.low < 1 < same.high
    assert twice.low > 1
    assert twice.value == pytest.approx(2 * same.value)
    assert ratio(a, b) == ratio(a, b)


def test_a_ratio_to_never_is_zero_and_of_never_infinite() -> None:
    never, once = np.full(8, math.inf), np.full(8, 3.0)
    assert ratio(never, once).value == math.inf
    assert ratio(once, never).value == 0
    assert math.isnan(ratio(never, never).value)


def test_the_band_holds_the_share() -> None:
    times = np.array([1.0, 2.0, 3.0, math.inf])
    share, low, high = survival_band(times, np.array([0.0, 1.0, 2.5, 100.0]))
    assert share.tolist() == [0, 0.25, 0.5, 0.75]
    assert (low <= share).all()
    assert (share <= high).all()
    assert high[0] > 0  # nobody of four is no proof of nobody
    # Wilson's interval of 2 of 4, from the textbook's formula.
    assert (low[2], high[2]) == pytest.approx((0.1500, 0.8500), abs=1e-4)
