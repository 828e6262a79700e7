"""Superevents: names, the preferred trigger, and every transition, legal or not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mma_realtime.alerts.made_up import FIRST, GPS, LOUDER, PLACE, candidate, superevent
from mma_realtime.alerts.superevent import State, Superevent, letters, step
from mma_realtime.errors import AlertError

E, P, I, U, R = State.EARLYWARNING, State.PRELIMINARY, State.INITIAL, State.UPDATE, State.RETRACTION
LEGAL = {(None, E), (None, P), (E, E), (E, P), (E, R), (P, P), (P, I), (P, R), (I, U), (I, R), (U, U), (U, R)}


@pytest.mark.parametrize("state", [None, *State])
@pytest.mark.parametrize("target", State)
def test_a_transition_is_legal_or_says_what_would_be(state: State | None, target: State) -> None:
    if (state, target) in LEGAL:
        assert step(state, target) is target
    else:
        with pytest.raises(AlertError, match=f"{target} does not follow {state or 'the beginning'}"):
            step(state, target)


def test_letters_count_in_base_26_without_a_zero() -> None:
    assert [letters(n) for n in (0, 1, 25, 26, 27, 51, 52, 701, 702)] == [
        "a", "b", "z", "aa", "ab", "az", "ba", "zz", "aaa",
    ]  # fmt: skip
    with pytest.raises(AlertError, match="counted from 0"):
        letters(-1)


@given(st.integers(0, 30_000), st.integers(0, 30_000))
def test_letters_are_unique_and_in_order(a: int, b: int) -> None:
    key_a, key_b = ((len(letters(n)), letters(n)) for n in (a, b))
    assert (a < b) == (key_a < key_b)
    assert (a == b) == (key_a == key_b)


def test_the_name_is_the_utc_day_of_the_first_trigger() -> None:
    assert superevent(number=27).id == "S150914ab"
    assert superevent(utc="2016-12-31T23:59:60.500Z").id == "S161231a"


def test_a_life_in_versions() -> None:
    told = [superevent()]
    told.append(told[-1].joined(LOUDER))
    told.append(told[-1].located(PLACE))
    told.append(told[-1].joined(replace(LOUDER, far=1e-6)))
    told.append(told[-1].located(PLACE))
    told.append(told[-1].retracted())
    assert [each.state for each in told] == [P, P, I, U, U, R]
    assert [each.version for each in told] == [1, 2, 3, 4, 5, 6]
    assert {each.id for each in told} == {"S150914a"}
    # The map was of the candidate before: a better one has none yet.
    assert [each.localisation is not None for each in told] == [False, False, True, False, True, True]
    for change in (lambda e: e.joined(replace(LOUDER, far=1e-9)), lambda e: e.joined(FIRST), Superevent.retracted):
        with pytest.raises(AlertError, match="does not follow RETRACTION: nothing does"):
            change(told[-1])
    with pytest.raises(AlertError, match="does not follow RETRACTION"):
        told[-1].located(PLACE)


def test_preferred_is_the_lowest_rate_then_the_highest_statistic() -> None:
    first = superevent()
    assert first.joined(candidate(far=2e-4, statistic=99.0)) is first
    assert first.joined(candidate(statistic=11.0)) is first
    assert first.joined(FIRST) is first
    assert first.joined(candidate(far=9e-5, statistic=1.0)).preferred.far == 9e-5
    assert first.joined(candidate(statistic=13.0)).preferred.statistic == 13.0


@given(st.permutations([candidate(far=f, statistic=s) for f in (1e-4, 1e-5) for s in (5.0, 6.0)]))
def test_the_order_of_triggers_does_not_choose_the_preferred(order: list) -> None:  # type: ignore[type-arg]
    event = Superevent.opened(order[0], 0)
    for each in order[1:]:
        event = event.joined(each)
    assert (event.preferred.far, event.preferred.statistic) == (1e-5, 6.0)
    assert event.opened_at == order[0].gps


@pytest.mark.parametrize(("seconds", "inside"), [(0.999, True), (-0.999, True), (1.001, False), (-1.001, False)])
def test_one_event_is_a_second_either_way_of_its_first_trigger(seconds: float, inside: bool) -> None:
    event = superevent().joined(LOUDER)
    assert event.holds(GPS + seconds) == inside
    if not inside:
        with pytest.raises(AlertError, match="more than 1 s from S150914a"):
            event.joined(candidate(gps=GPS + seconds))


def test_an_early_warning_gives_way_to_the_whole_signal() -> None:
    early = superevent(early_warning=True, far=1e-9)
    assert early.state is E
    assert early.joined(candidate(early_warning=True, far=1e-10)).state is E
    assert early.located(PLACE).state is E
    whole = early.joined(FIRST)
    assert whole.state is P
    assert whole.preferred is FIRST
    assert whole.joined(candidate(early_warning=True, far=1e-12)) is whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"far": 0.0}, "rate of zero"),
        ({"far": -1.0}, "rate of zero"),
        ({"far": math.nan}, "numbers that are none"),
        ({"statistic": math.inf}, "numbers that are none"),
        ({"gps": math.nan}, "numbers that are none"),
        ({"masses": (math.nan, 1.0)}, "numbers that are none"),
        ({"masses": (10.0, 20.0)}, "the heavier first"),
        ({"instruments": ()}, "no detector"),
        ({"duration": -1.0}, "a duration from 0"),
        ({"utc": "yesterday"}, "no time in UTC"),
        ({"model": "unknown"}, "no SHA-256"),
    ],
)
def test_candidates_that_make_no_sense_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(AlertError, match=message):
        candidate(**change)


def test_what_is_stored_comes_back() -> None:
    for event in (superevent(), superevent(masses=(30.0, 20.0)).joined(LOUDER).located(PLACE).retracted()):
        place = event.localisation
        assert Superevent.from_json(event.to_json(), place.fits if place else None) == event


def test_a_coincidence_makes_a_further_version_that_says_the_same_of_the_event() -> None:
    first = superevent()
    assert [first.coincident().state, first.coincident().version] == [P, 2]
    located = first.located(PLACE)
    assert located.coincident() == replace(located, state=U, version=3)
    assert located.coincident().coincident().state is U
    assert superevent(early_warning=True).coincident().state is E
    with pytest.raises(AlertError, match="does not follow"):
        first.retracted().coincident()
