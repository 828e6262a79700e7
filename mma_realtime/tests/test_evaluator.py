"""The benchmark's evaluation: the golden numbers, its definition by loops, and the command."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mma_realtime.data.mlgwsc import Events, write_events, write_injections
from mma_realtime.errors import SearchError
from mma_realtime.evaluate import main
from mma_realtime.search.evaluator import MONTH, distance_at, evaluate, match

GOLDEN = np.load(Path(__file__).parent / "golden" / "evaluator.npz")
INJECTIONS = {key.removeprefix("inj_"): GOLDEN[key] for key in GOLDEN.files if key.startswith("inj_")}
FOREGROUND, BACKGROUND = Events(*GOLDEN["fg_events"]), Events(*GOLDEN["bg_events"])
DURATION = float(GOLDEN["duration"])


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(INJECTIONS, FOREGROUND, BACKGROUND, DURATION)


@pytest.mark.parametrize("name", [key for key in GOLDEN.files if not key.startswith(("inj", "fg", "bg", "duration"))])
def test_golden(evaluation, name):
    assert np.asarray(getattr(evaluation, name)) == pytest.approx(GOLDEN[name], rel=1e-9, abs=0)


def test_order_of_the_inputs_is_of_no_matter(evaluation):
    rng = np.random.default_rng(0)
    i, f, b = (rng.permutation(n) for n in (len(INJECTIONS["tc"]), len(FOREGROUND.time), len(BACKGROUND.time)))
    shuffled = evaluate(
        {key: column[i] for key, column in INJECTIONS.items()},
        Events(*(column[f] for column in FOREGROUND)),
        Events(*(column[b] for column in BACKGROUND)),
        DURATION,
    )
    assert shuffled.sensitive_distance == pytest.approx(evaluation.sensitive_distance, rel=1e-12)
    assert shuffled.n_true_pos == evaluation.n_true_pos


def by_loops(injections, foreground, background, duration):
    """Section 12, word for word: far, volume, error, fraction and plain distance at each event of the background."""
    tc, distance, m1, m2 = (injections[key] for key in ("tc", "distance", "mass1", "mass2"))
    mass = [(a * b) ** 0.6 / (a + b) ** 0.2 for a, b in zip(m1, m2)]
    largest, n = max(mass), len(tc)
    v_max = 4 / 3 * np.pi * max(distance) ** 3
    weights = sum((largest / m) ** 2.5 for m in mass)
    rows = []
    for k, threshold in enumerate(sorted(background.stat)):
        found = set()
        for time, stat, var in zip(*foreground):
            nearest = min(range(n), key=lambda i: (abs(tc[i] - time), tc[i]))
            if stat > threshold and abs(tc[nearest] - time) <= var:
                found.add(nearest)
        volume = v_max * sum(mass[i] ** 2.5 for i in found) / (n * largest**2.5)
        first = sum(mass[i] ** 2.5 for i in found) / weights
        variance = weights * (sum(mass[i] ** 5 for i in found) / weights - first**2)
        error = v_max / (n * largest**2.5) * max(variance, 0.0) ** 0.5
        plain = (3 * v_max * len(found) / n / (4 * np.pi)) ** (1 / 3)
        rows.append(((len(background.stat) - 1 - k) / duration, volume, error, len(found) / weights, plain))
    return np.array(rows).T


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_definition_by_loops(data):
    def column(low, high, n, step):  # coarse grids: ties, and times exactly at the tolerance
        steps = st.integers(0, round((high - low) / step))
        return low + step * np.array(data.draw(st.lists(steps, min_size=n, max_size=n)), dtype=np.float64)

    n, m, b = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 9)), data.draw(st.integers(1, 7))
    times = data.draw(st.lists(st.integers(0, 12), min_size=n, max_size=n, unique=True))
    injections = {
        "tc": 0.25 * np.array(times, dtype=np.float64),
        "distance": column(100, 3000, n, 10),
        "mass1": column(10, 50, n, 1),
        "mass2": column(10, 50, n, 1),
    }
    foreground = Events(column(0, 4, m, 0.125), column(0, 5, m, 0.5), column(0, 1, m, 0.125))
    background = Events(column(0, 20, b, 0.5), column(0, 5, b, 0.5), column(0.25, 0.25, b, 1))
    got = evaluate(injections, foreground, background, 64.0)
    v_max = 4 / 3 * np.pi * injections["distance"].max() ** 3
    expected = by_loops(injections, foreground, background, 64.0)
    columns = (
        (got.far, 1.0),
        (got.sensitive_volume, v_max),
        (got.sensitive_volume_error, v_max),
        (got.sensitive_fraction, 1.0),
        (got.sensitive_distance_plain, 1.0),
    )
    for (ours, scale), theirs in zip(columns, expected):
        # the error is a root of a difference that may be 0: rounding there is that of a root
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6 * scale)


def test_an_event_counts_for_its_nearest_injection_within_a_closed_tolerance():
    tc = np.array([10.0, 11.0])
    nearest, near = match(tc, Events(np.array([10.5, 10.25, 11.25, 11.375]), np.zeros(4), np.full(4, 0.25)))
    assert list(nearest[1:]) == [0, 1, 1]
    assert list(near) == [False, True, True, False]
    wide = match(tc, Events(np.array([10.75]), np.zeros(1), np.array([5.0])))
    assert (list(wide[0]), list(wide[1])) == ([1], [True])


def test_the_threshold_is_strict():
    injections = {"tc": [5.0], "distance": [100.0], "mass1": [30.0], "mass2": [30.0]}
    at = Events(*np.array([[5.0], [2.0], [0.3]]))
    assert evaluate(injections, at, Events(*np.array([[1.0], [2.0], [0.3]])), 10.0).found[0] == 0
    assert evaluate(injections, at, Events(*np.array([[1.0], [1.9], [0.3]])), 10.0).found[0] == 1


def test_distance_at_a_rate(evaluation):
    far = 1000 / MONTH  # (k - 1)/7260 s <= far: k = 3
    assert evaluation.far[-3] <= far < evaluation.far[-4]
    assert distance_at(evaluation, 1000) == evaluation.sensitive_distance[-3]
    with pytest.raises(
        SearchError, match=r"100 false alarms a month need a background of 25920 s, it has 7260 s: .*357"
    ):
        distance_at(evaluation, 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"injections": {key: column[:0] for key, column in INJECTIONS.items()}}, "no injections"),
        ({"background": Events(*np.zeros((3, 0)))}, "the background has no event"),
        ({"duration": 0.0}, "a background of 0 s"),
    ],
)
def test_what_cannot_be_evaluated(change, message):
    given = {"injections": INJECTIONS, "foreground": FOREGROUND, "background": BACKGROUND, "duration": DURATION}
    with pytest.raises(SearchError, match=message):
        evaluate(**{**given, **change})


def test_a_search_that_found_nothing_hears_nothing():
    silent = evaluate(INJECTIONS, Events(*np.zeros((3, 0))), BACKGROUND, DURATION)
    assert not silent.sensitive_distance.any()
    assert not silent.sensitive_volume_error.any()


@pytest.fixture
def files(tmp_path):
    write_injections(tmp_path / "injections.hdf", INJECTIONS)
    write_events(tmp_path / "foreground.hdf", FOREGROUND)
    write_events(tmp_path / "background.hdf", BACKGROUND)
    return [
        word for name in ("injections", "foreground", "background") for word in (f"--{name}", f"{tmp_path}/{name}.hdf")
    ]


def test_command(files, tmp_path, capsys, evaluation):
    assert main([*files, "--duration", "7260", "--json", str(tmp_path / "out.json")]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[1].split() == ["1000", f"{evaluation.sensitive_distance[-3]:.0f}"]
    assert lines[2].split() == ["100", "-"]
    with pytest.raises(SearchError) as why:
        distance_at(evaluation, 100)
    assert str(why.value) in out
    assert f"{evaluation.found[0]} of 300 injections are above the lowest event" in out
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert numbers["sensitive_distance_mpc"] == {
        "1000": distance_at(evaluation, 1000), "100": None, "10": None, "1": None,
    }  # fmt: skip
    assert (numbers["n_true_pos"], numbers["n_false_pos"]) == (112, 118)


def test_command_says_which_of_the_causes_keeps_a_distance_from_being_told(files, tmp_path, capsys):
    write_events(tmp_path / "background.hdf", Events(*(column[:3] for column in BACKGROUND)))
    assert main([*files, "--duration", "7260", "--far", "1500", "100"]) == 0
    out = capsys.readouterr().out
    assert "background cut off: at 1500 false alarms a month 7260 s have 4 events, it has 3: lower the threshold" in out
    assert "livetime too short: 100 false alarms a month need a background of 25920 s" in out


def test_command_says_in_one_line_what_is_wrong(files, tmp_path, capsys, monkeypatch):
    files[3] = str(tmp_path / "none.hdf")
    monkeypatch.setattr(sys, "argv", ["evaluate", *files, "--duration", "7260"])
    monkeypatch.delitem(sys.modules, "mma_realtime.evaluate")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("mma_realtime.evaluate", run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/none.hdf is missing: name the HDF5 file of events\n"
    with pytest.raises(SearchError, match="--far 0: give rates above 0"):
        main([*files, "--duration", "7260", "--far", "0"])


def test_a_rate_that_the_searchs_threshold_cuts_off_is_refused():
    few = Events(*(column[:3] for column in BACKGROUND))
    evaluation = evaluate(INJECTIONS, FOREGROUND, few, MONTH)
    assert distance_at(evaluation, 2) == evaluation.sensitive_distance[0]
    for far in (3, 1000):
        with pytest.raises(SearchError, match=r"background cut off: .* it has 3: lower the threshold"):
            distance_at(evaluation, far)
