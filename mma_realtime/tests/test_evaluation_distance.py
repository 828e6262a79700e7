"""E5 and E6: sensitive distance at the rates that a background reaches, and whether a rate is the one that it says."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from mma_realtime.data.mlgwsc import chirp_mass
from mma_realtime.errors import SearchError
from mma_realtime.evaluation.distance import (
    base_threshold,
    calibration,
    calibration_of,
    over_sets,
    sensitive_distances,
    set_seeds,
    triggers_of,
)
from mma_realtime.search.coincidence import Trigger
from mma_realtime.search.evaluator import MONTH
from mma_realtime.search.series import Scores
from mma_realtime.search.significance import Background

START = 1_000_000_000.0


def injections(n: int = 50, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mass1, mass2 = rng.uniform(10, 50, (2, n))
    return {
        "tc": START + 30 + 24.0 * np.arange(n), "distance": rng.uniform(500, 3000, n),
        "mass1": np.maximum(mass1, mass2), "mass2": np.minimum(mass1, mass2),
    }  # fmt: skip


def trigger(gps: float, statistic: float) -> Trigger:
    return Trigger(gps, statistic, (statistic / 2,) * 2, 0.5, 8, ("H1", "L1"))


def background(livetime: float, statistics: Any = None, threshold: float = 0.0) -> Background:
    """By default one cluster in 100 s, of statistics up to 10."""
    own = np.linspace(0.001, 10, int(livetime / 100)) if statistics is None else np.sort(statistics)
    return Background(own, livetime, livetime, 100, 2.0, threshold, float(own[-1]))


def test_all_injections_found_are_the_volumes_own_distance() -> None:
    known = injections()
    found = sensitive_distances([trigger(t + 0.1, 50.0) for t in known["tc"]], known, background(30_000.0), 1.0)
    weight = (chirp_mass(known["mass1"], known["mass2"]) / chirp_mass(known["mass1"], known["mass2"]).max()) ** 2.5
    own = known["distance"].max() * np.cbrt(weight.mean())
    for far in (1000, 100):
        assert found[f"distance/{far}"] == pytest.approx(own)
        assert found[f"found/{far}"] == 1.0
    assert found["curve/distance"] == pytest.approx([own] * 40)
    assert found["timing/within"] == 1.0
    assert found["timing/median"] == pytest.approx(0.1, abs=1e-6)


def test_nothing_found_is_no_distance() -> None:
    known = injections()
    for triggers in ([], [trigger(t + 12.0, 50.0) for t in known["tc"]]):
        found = sensitive_distances(triggers, known, background(30_000.0), 1.0)
        assert (found["distance/1000"], found["distance/100"], found["found/1000"]) == (0.0, 0.0, 0.0)
        assert set(found["curve/distance"]) == {0.0}
        assert "timing/within" not in found
    late = sensitive_distances([trigger(t + 0.5, 50.0) for t in known["tc"]], known, background(30_000.0), 1.0)
    assert (late["distance/1000"], late["timing/within"]) == (0.0, 0.0)  # heard, but not when
    assert late["timing/median"] == pytest.approx(0.5, abs=1e-6)


def test_times_of_chance_triggers_beside_a_signal_count_among_all_and_not_above_the_searchs_own_threshold() -> None:
    known = injections()
    loud = [trigger(t + 0.1, 5.0) for t in known["tc"][:9]] + [trigger(known["tc"][9] + 0.4, 5.0)]
    chance = [trigger(t - 0.8, 2.0) for t in known["tc"][10:20]] + [trigger(t + 8.0, 9.0) for t in known["tc"]]
    found = sensitive_distances([*loud, *chance], known, background(30_000.0), 2.0, suffix="_x")
    assert (found["timing_x/near"], found["timing_x/within"]) == (20.0, 9 / 20)
    assert (found["timing_x/near_calibrated"], found["timing_x/within_calibrated"]) == (
        10.0,
        0.9,
    )  # 2.0 is not above it
    none = sensitive_distances([*loud, *chance], known, background(30_000.0), 5.0)
    assert none["timing/near_calibrated"] == 0.0
    assert "timing/within_calibrated" not in none
    assert none["timing/within"] == found["timing_x/within"]


def test_a_rate_that_the_background_does_not_reach_is_not_reported() -> None:
    known = injections()
    triggers = [trigger(t, 50.0) for t in known["tc"]]
    for livetime, reached in (
        (2500.0, []), (2592.0, [1000]), (25_919.0, [1000]), (25_920.0, [1000, 100]), (259_200.0, [1000, 100, 10]),
    ):  # fmt: skip
        found = sensitive_distances(triggers, known, background(livetime), 1.0, suffix="_x")
        assert [far for far in (1000, 100, 10) if f"distance_x/{far}" in found] == reached
        assert [far for far in (1000, 100, 10) if f"found_x/{far}" in found] == reached
        assert min(found["curve/far_x"]) >= min(3000, MONTH / livetime) - 1e-6


def test_louder_noise_costs_distance() -> None:
    """Half of the injections are louder than one false alarm in 1,000 a month, a fifth than one in 100."""
    known, livetime = injections(), 100_000.0
    allowed = {far: math.floor(far / MONTH * livetime) for far in (1000, 100)}
    noise = background(livetime)
    cut = {far: noise.statistics[-1 - n] for far, n in allowed.items()}  # louder: `n`, the strictest such threshold
    statistics = np.full(50, 0.01)
    statistics[:25], statistics[:10] = cut[1000] + 1e-6, cut[100] + 1e-6
    found = sensitive_distances([trigger(t, s) for t, s in zip(known["tc"], statistics)], known, noise, 1.0)
    assert (found["found/1000"], found["found/100"]) == (0.5, 0.2)
    assert 0 < found["distance/100"] < found["distance/1000"]
    curve = found["curve/distance"]
    assert all(a <= b for a, b in pairwise(curve))
    assert (noise.statistics > cut[100]).sum() / livetime * MONTH <= 100
    softer = sensitive_distances([trigger(t, s - 2e-6) for t, s in zip(known["tc"], statistics)], known, noise, 1.0)
    assert softer["found/100"] < 0.2  # a threshold of the background is to be exceeded


def series(values: np.ndarray) -> Scores:
    rows = np.stack([values, np.zeros(len(values))]).astype(np.float32)
    return Scores(("H1", "L1"), START, 1 / 16, rows, np.ones(rows.shape, bool))


def test_the_base_threshold_is_exceeded_once_in_so_many_seconds() -> None:
    values = np.random.default_rng(0).normal(size=16 * 2000)
    for seconds in (20.0, 100.0):
        assert (values > base_threshold(series(values), seconds)).sum() == pytest.approx(2000 / seconds, abs=1)
    scores = series(values)
    scores.valid[1] = False
    with pytest.raises(SearchError, match="no window has a score in both detectors"):
        base_threshold(scores)
    scores.valid[1, :1600] = True  # what is not valid is not counted
    assert (values[:1600] > base_threshold(scores, 10.0)).sum() == pytest.approx(10, abs=1)


def draws(rate: float, seconds: float, seed: int) -> np.ndarray:
    """Clusters of Poisson noise: exponential statistics above 1, `rate` a second."""
    rng = np.random.default_rng(seed)
    return 1 + rng.exponential(size=rng.poisson(rate * seconds))


def test_noise_of_the_backgrounds_rate_is_inside_and_of_another_is_not() -> None:
    long, live = 400_000.0, 7200.0
    chance = background(long, draws(0.05, long, 0), threshold=1.0)
    inside = [calibration_of(draws(0.05, live, seed), live, chance) for seed in range(1, 101)]
    # Two tests of 99 % (fewer are outside where few are expected, as counts are whole numbers).
    assert {each["calibration/measured"] for each in inside} == {2.0}
    assert 196 <= sum(each["calibration/inside"] for each in inside) <= 200
    assert np.mean([each["calibration/ratio"] for each in inside]) == pytest.approx(1, abs=0.05)
    for each in inside:
        assert each["calibration/expected_60"] == pytest.approx(120, rel=0.01)
        assert each["calibration/expected_2000"] == pytest.approx(3.6, rel=0.02)
    for rate in (0.1, 0.025, 0.0):  # twice as many, half as many, none
        outside = [calibration_of(draws(rate, live, seed), live, chance) for seed in range(10)]
        assert {each["calibration/inside_60"] for each in outside} == {0.0}
        assert np.mean([each["calibration/inside"] for each in outside]) < 1.6  # the rarest alone has too few to say
        assert np.mean([each["calibration/ratio"] for each in outside]) == pytest.approx(rate / 0.05, abs=0.1)
    # A tail that the slides do not have, but the bulk: the rarest rate alone sees it.
    bulk = np.sort(draws(0.05, live, 3))
    tail = np.append(bulk[:-20], np.full(20, 50.0))
    found = calibration_of(tail, live, chance)
    assert (found["calibration/inside_60"], found["calibration/inside_2000"]) == (1.0, 0.0)
    assert found["calibration/inside"] == 1.0


def test_rates_below_the_backgrounds_threshold_are_told_as_not_measured() -> None:
    chance = background(100_000.0, draws(1 / 500, 100_000.0, 0), threshold=1.0)
    found = calibration_of(draws(1 / 500, 7200.0, 1), 7200.0, chance)
    assert "calibration/count_2000" in found
    assert not {"calibration/count_200", "calibration/count_60"} & set(found)
    assert (found["calibration/measured_2000"], found["calibration/measured_200"]) == (1.0, 0.0)
    assert found["calibration/measured"] == 1.0
    assert found["calibration/inside"] <= 1.0  # of the two that are asked
    rare = background(100_000.0, np.array([2.0]), threshold=1.0)
    none = calibration_of(np.array([3.0]), 7200.0, rare)
    assert (none["calibration/inside"], none["calibration/measured"]) == (0.0, 0.0)  # nothing shown: no pass


def test_clusters_are_counted_and_not_their_windows() -> None:
    values = np.full(16 * 3600, -1.0)
    for k in range(60):  # one a minute: two bursts of windows within 0.35 s
        at = 16 * 60 * k + 100
        values[at : at + 5] = values[at + 8 : at + 10] = 5.0 + 0.01 * k
    chance = background(360_000.0, np.repeat(5.0 + 0.01 * np.arange(60), 100), threshold=1.0)
    found = calibration(series(values), chance)
    assert found["calibration/expected_60"] == pytest.approx(60, abs=2)
    assert found["calibration/count_60"] == pytest.approx(found["calibration/expected_60"], abs=1)
    assert found["calibration/inside"] == 2.0


def test_sets_are_averaged_number_by_number() -> None:
    sets = [{"a": 1.0, "c": [1.0, 2.0, 3.0]}, {"a": 2.0, "c": [3.0, 4.0]}, {"a": 6.0, "c": [5.0, 6.0]}]
    assert over_sets(sets) == {"a": 3.0, "c": [3.0, 4.0]}


def test_what_a_set_lacks_has_no_mean_whichever_set_it_is() -> None:
    sets = [{"a": 1.0, "first": 5.0}, {"a": 3.0, "second": 7.0}]
    assert over_sets(sets) == over_sets(sets[::-1]) == {"a": 2.0}


def test_sets_of_one_training_seed_are_no_other_seeds() -> None:
    assert len({seed for own in range(200) for seed in set_seeds(own, 3)}) == 600
    assert set_seeds(10, 3)[:2] == set_seeds(10, 2)
    assert min(set_seeds(0, 1)) > 99_999  # those of calibration, of speed, and that users type


def test_triggers_are_moved_by_the_calibrated_offset() -> None:
    values = np.full(800, -1.0)
    values[400:405] = 9.0
    (one,) = triggers_of(series(values), 3.0, -0.25)
    assert one.gps == pytest.approx(START + 402 / 16 - 0.25)
    assert one.statistic == 9.0
