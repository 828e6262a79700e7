"""Triggers and their false-alarm rates, as the commands tell them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mma_realtime.errors import NoSlideError, SearchError
from mma_realtime.search.coincidence import Trigger, find_triggers
from mma_realtime.search.report import Judged, Slider, background_text, judged, trigger_table
from mma_realtime.search.series import Scores
from rich.console import Console

HOP = 1 / 16
START = 1_000_000_000.0
THRESHOLD = 2.0


def stretch(events: dict[float, float], seconds: int = 64, seed: int = 0) -> Scores:
    """Scores of windows in noise: each event adds so much to both detectors while its window holds it."""
    rng = np.random.default_rng(seed)
    values = rng.normal(-1.0, 1.0, (2, seconds * 16)).astype(np.float32)
    for at, loudness in events.items():
        values[:, round(at * 16) + 4 : round(at * 16) + 12] = loudness / 2
    return Scores(("H1", "L1"), START, HOP, values, np.ones(values.shape, bool))


def judge(scores: Scores, slider: Slider | None = None) -> list[Judged]:
    found = find_triggers(scores, THRESHOLD, time_offset=-0.5)
    return judged(found, [scores], slider or Slider(THRESHOLD))[0]


def at(rows: list[Judged], seconds: float) -> Judged:
    return min(rows, key=lambda row: abs(row.trigger.gps - START - seconds))


@pytest.mark.parametrize("order", [(20.0, 40.0), (40.0, 20.0)])
def test_a_weaker_signal_is_not_ranked_by_the_louder_ones_coincidences(order: tuple[float, float]) -> None:
    loud, weak = order
    rows = judge(stretch({loud: 60.0, weak: 18.0}))
    assert at(rows, loud).far.upper_limit
    second = at(rows, weak)
    assert second.trigger.statistic == pytest.approx(18.0)
    assert not second.inclusive.upper_limit  # the loud one pairs with noise of 30 - 1 in every slide
    assert second.far.upper_limit
    assert second.independent.upper_limit


def test_noise_stays_in_the_background_of_fainter_triggers() -> None:
    scores = stretch({}, seed=1)
    rows = sorted(judge(scores), key=lambda row: -row.trigger.statistic)
    assert len(rows) > 3
    assert not rows[0].far.upper_limit
    slider = Slider(THRESHOLD)
    for row in rows[1:4]:
        own = slider.background([scores], [row.trigger.gps])
        assert row.far == own.far(row.trigger.statistic)


def test_what_few_slides_cannot_tell_from_noise_is_not_taken_out() -> None:
    """In 16 s a few slides bound a rate hardly better than the time searched: chance puts noise above all of them."""
    scores = stretch({3.0: 60.0, 12.0: 18.0}, seconds=16)
    rows = judge(scores)
    loud = at(rows, 3.0)
    assert loud.far.upper_limit
    assert loud.p > 0.1
    assert not at(rows, 12.0).far.upper_limit


def test_beyond_the_loudest_triggers_signals_are_out_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_realtime.search.report.MOST_EXCLUSIVE", 1)
    scores = stretch({20.0: 60.0, 40.0: 18.0})
    rows = judge(scores)
    second = at(rows, 40.0)
    own = Slider(THRESHOLD).background([scores], [at(rows, 20.0).trigger.gps])
    assert second.far == own.far(second.trigger.statistic)
    assert second.far.value_hz < second.inclusive.value_hz


def test_a_p_value_does_not_fall_with_the_step() -> None:
    scores = stretch({20.0: 60.0})
    loud = [at(judge(scores, Slider(THRESHOLD, step=step, correlated=True)), 20.0) for step in (2.0, 1.0, 0.5, 0.25)]
    assert {row.far.upper_limit for row in loud} == {True}
    assert loud[-1].far.value_hz < loud[0].far.value_hz / 7  # the rate is that of all slides
    assert {row.p for row in loud} == {loud[0].p}
    assert {row.independent.value_hz for row in loud} == {loud[0].independent.value_hz}
    assert loud[0].far == loud[0].independent


def test_both_bounds_are_told_and_which_of_them_p_uses() -> None:
    scores = stretch({20.0: 60.0})
    found = find_triggers(scores, THRESHOLD, time_offset=-0.5)
    rows, background, why = judged(found, [scores], Slider(THRESHOLD, step=0.25, correlated=True))
    row = at(rows, 20.0)
    content = row.as_dict()
    assert content["far_independent_hz"] == row.independent.value_hz > content["far_hz"]
    assert content["far_independent_is_upper_limit"]
    console = Console(width=160, record=True)
    console.print(trigger_table(rows, scores.detectors))
    text = console.export_text()
    assert str(row.far) in text
    assert str(row.independent) in text
    told = background_text(background, why)
    assert f"only {background.independent_livetime_s:,.0f} s of it are independent" in told
    assert told.endswith("p uses these")
    apart = judged(found, [scores], Slider(THRESHOLD, step=2.0))[1]
    assert background_text(apart, "").endswith("all are independent, and p uses these rates")


def test_without_a_background_there_is_no_rate_and_a_reason() -> None:
    trigger = Trigger(START, 5.0, (2.5, 2.5), 0.0, 1, ("H1", "L1"))
    rows, background, why = judged([trigger], [stretch({}, seconds=3)], Slider(THRESHOLD))
    assert (rows[0].far, rows[0].independent, rows[0].p, background) == (None, None, None, None)
    assert "hold no slide" in why


def test_a_stretch_too_short_for_a_slide_is_left_out_and_any_other_fault_is_not() -> None:
    long, short = stretch({}), stretch({}, seconds=3)
    slider = Slider(THRESHOLD, step=2.0)
    dead = np.array([[True], [False]])
    for other in (short, replace(long, valid=np.zeros_like(long.valid)), replace(long, valid=long.valid & dead)):
        both, alone = slider.background([other, long]), slider.background([long])
        np.testing.assert_array_equal(both.statistics, alone.statistics)
        assert (both.livetime_s, both.n_slides) == (alone.livetime_s, alone.n_slides)
        with pytest.raises(NoSlideError):
            slider.background([other])
    with pytest.raises(SearchError, match="at least two are needed") as raised:
        slider.background([long, replace(long, values=long.values[:1], valid=long.valid[:1])])
    assert not isinstance(raised.value, NoSlideError)
