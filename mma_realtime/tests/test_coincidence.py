"""From scores to triggers: sums, clusters, the time of an event, superevents and the refractory (section 7)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.errors import SearchError
from mma_realtime.search.coincidence import (
    Clusterer,
    Superevents,
    Trigger,
    clusters,
    combine,
    find_triggers,
    plateau_centre,
)
from mma_realtime.search.series import Scores, joined

HOP = 1 / 16
START = 1_000_000_000.0


def scores(values: np.ndarray, valid: np.ndarray | None = None, hop: float = HOP, start: float = START) -> Scores:
    values = np.asarray(values, np.float32)
    return Scores(("H1", "L1"), start, hop, values, np.ones(values.shape, bool) if valid is None else valid)


def bump(k: int, at: int, height: float, width: int = 4) -> np.ndarray:
    """A series of -5 with a plateau of `width` windows that begins at `at`."""
    series = np.full(k, -5.0)
    series[at : at + width] = height
    return series


def plain(gps: float, statistic: float) -> Trigger:
    return Trigger(gps, statistic, (statistic / 2, statistic / 2), 0.2, 4, ("H1", "L1"))


def test_the_statistic_is_the_sum_where_both_are_valid_and_above_their_own_threshold() -> None:
    valid = np.array([[True, True, False, True], [True, True, True, True]])
    s = scores(np.array([[1.0, 2.0, 3.0, 4.0], [5.0, -6.0, 7.0, 8.0]]), valid)
    assert combine(s).tolist() == [6.0, -4.0, -math.inf, 12.0]
    assert combine(s, single_threshold=1.0).tolist() == [-math.inf, -math.inf, -math.inf, 12.0]


def test_windows_finer_than_the_light_travel_time_are_aligned_within_it() -> None:
    values = np.zeros((2, 9))
    values[0, 4], values[1, 6] = 10.0, 7.0  # 2 hops of 1/256 s: 7.8 ms apart
    assert combine(scores(values, hop=1 / 256)).max() == 17.0
    assert combine(scores(values, hop=1 / 64)).max() == 10.0  # 31 ms: no signal is so late
    valid = np.ones((2, 9), bool)
    valid[1, 4] = False
    assert combine(scores(values, valid, hop=1 / 256))[4] == -math.inf  # what is near does not fill a gap


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=80), st.sampled_from([0.1, 0.35, 0.5]))
def test_clusters_are_what_a_walk_finds(series: list[float], gap: float) -> None:
    expected: list[list[int]] = []
    for k, value in enumerate(series):
        if value > 0.0:
            if expected and (k - expected[-1][1]) * HOP < gap:
                expected[-1][1] = k
            else:
                expected.append([k, k])
    assert clusters(np.array(series), HOP, 0.0, gap) == [tuple(each) for each in expected]


def test_the_time_is_the_centre_of_the_plateau_and_not_the_loudest_window() -> None:
    series = np.array([0.0, 1.0, 8.0, 7.5, 7.2, 10.0, 2.0])
    assert plateau_centre(np.arange(7), series) == 3.5  # windows 2..5 are at least 7
    assert plateau_centre(np.arange(3), np.array([-3.0, -2.0, -2.5])) == 1.5  # also below zero
    half = bump(200, 100, 4.0, 5)
    (found,) = find_triggers(scores([half, half]), 0.0, time_offset=-0.2)
    assert found.gps == pytest.approx(START + 102 * HOP - 0.2, abs=1e-9)
    assert (found.statistic, found.per_detector, found.n_windows) == (8.0, (4.0, 4.0), 5)
    assert found.duration == 4 * HOP
    assert (found.event, found.version) == (1, 1)


def test_a_plateau_whose_loudest_window_is_at_its_end_is_timed_within_a_hop() -> None:
    series = bump(200, 100, 9.0, 9)
    series[108] = 9.5
    (found,) = find_triggers(scores([series, series]), 0.0)
    assert abs(found.gps - (START + 104 * HOP)) <= HOP  # the highest window alone is 0.25 s late


def test_superevents_merge_within_a_second_and_a_louder_one_is_the_next_version() -> None:
    events = Superevents()
    first = events.take(plain(100.0, 5.0))
    assert first is not None
    assert (first.event, first.version) == (1, 1)
    assert events.take(plain(100.9, 4.0)) is None
    louder = events.take(plain(101.0, 9.0))
    assert louder is not None
    assert (louder.event, louder.version) == (1, 2)


def test_the_refractory_holds_back_fainter_ones_only() -> None:
    events = Superevents()
    events.take(plain(100.0, 5.0))
    assert events.take(plain(104.0, 5.0)) is None
    loud = events.take(plain(106.0, 80.0))  # never hidden behind a faint one
    assert loud is not None
    assert (loud.event, loud.version) == (2, 1)
    assert events.take(plain(113.9, 79.0)) is None
    after = events.take(plain(114.1, 1.0))
    assert after is not None
    assert after.event == 3


def test_time_never_goes_back() -> None:
    events = Superevents()
    events.take(plain(100.0, 5.0))
    assert events.take(plain(90.0, 50.0)) is None
    clusterer = Clusterer(("H1", "L1"), START, HOP, 0.0)
    series = bump(64, 20, 6.0)
    clusterer.push(scores([series, series]))
    with pytest.raises(SearchError, match="come again"):
        clusterer.push(scores([series, series]))


def test_two_events_a_second_apart_are_one_superevent_and_two_two_seconds_apart_are_two() -> None:
    for apart, expected in ((16, 1), (32, 2)):
        series = np.maximum(bump(200, 80, 6.0), bump(200, 80 + apart, 7.0))
        found = find_triggers(scores([series, series]), 0.0)
        assert [each.statistic for each in found] == [12.0, 14.0]
        assert len({each.event for each in found}) == expected


def test_a_statistic_that_stays_high_is_closed_after_eight_seconds() -> None:
    clusterer = Clusterer(("H1", "L1"), START, HOP, 0.0)
    high = np.full((2, 16), 3.0)
    found = [clusterer.push(scores(high, start=START + second)) for second in range(12)]
    assert [len(each) for each in found] == [0] * 7 + [1] + [0] * 4
    assert found[7][0].n_windows == 128


def test_a_statistic_that_is_not_a_number_makes_no_candidate() -> None:
    values = np.zeros((2, 8))
    values[0, 3] = np.nan
    with pytest.raises(SearchError, match="not a number near GPS 1000000000"):
        find_triggers(scores(values), 0.0)
    valid = np.ones((2, 8), bool)
    valid[0, 3] = False
    assert find_triggers(scores(values, valid), 0.0) == []


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(3, 60), min_size=1, max_size=12))
def test_the_parts_in_which_scores_come_change_nothing(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    k = 400
    values = rng.normal(0, 1, (2, k)) + 4 * (rng.random(k) < 0.03)
    valid = rng.random((2, k)) > 0.05
    whole = find_triggers(scores(values, valid), 1.0)
    clusterer, parts, at = Clusterer(("H1", "L1"), START, HOP, 1.0), [], 0
    while at < k:
        size = sizes[len(parts) % len(sizes)]
        part = slice(at, at + size)
        parts.append(scores(values[:, part], valid[:, part], start=START + at * HOP))
        at += size
    found = [trigger for part in parts for trigger in clusterer.push(part)] + clusterer.finish()
    assert found == whole
    assert len(whole) > 0
    again = joined(parts)
    assert (again.values == np.asarray(values, np.float32)).all()
    assert (again.gps_start, again.gps_end) == (START, START + k * HOP)


def test_scores_that_do_not_follow_each_other_are_not_joined() -> None:
    part = scores(np.zeros((2, 16)))
    with pytest.raises(SearchError, match="go on at"):
        joined([part, scores(np.zeros((2, 16)), start=START + 2)])


def test_a_trigger_survives_json() -> None:
    trigger = plain(START + 0.0625, 7.0)
    assert Trigger.from_dict(trigger.as_dict()) == trigger
