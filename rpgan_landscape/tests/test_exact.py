"""The landscape runs: counts against the closed forms, and paths that really descend."""

import math

import pytest
from rpgan_landscape.exact import count_metrics, formula, landscape_metrics


@pytest.fixture(scope="module")
def metrics() -> dict[str, dict[str, float]]:
    return {loss: landscape_metrics(loss, 4) for loss in ("js", "hinge", "rs", "allpairs_logistic")}


def test_the_formula_counts_maps_that_are_no_permutations() -> None:
    from itertools import product

    for n in range(1, 6):
        assert formula(n) == sum(len(set(state)) < n for state in product(range(n), repeat=n))


@pytest.mark.parametrize(("loss", "off"), [("js", 0), ("hinge", 3), ("rs", 3), ("allpairs_logistic", 0)])
def test_counts(metrics: dict[str, dict[str, float]], loss: str, off: int) -> None:
    found = metrics[loss]
    assert found["off_formula"] == off
    assert found["bad"] == sum(found[f"n{n}/bad"] for n in (2, 3, 4)) == (0 if off else 2 + 21 + 232)
    assert found["unreachable"] == (0 if off else 2 + 30 + 416)


def test_the_two_point_table(metrics: dict[str, dict[str, float]]) -> None:
    rows = {
        "js": (math.log(2), (3 * math.log(3) - 2 * math.log(2)) / 4, math.log(2) / 2, math.log(2) / 2, 0),
        "rs": (math.log(2), math.log(2) / 2, math.log(2) / 2, 0, 0),
        "allpairs_logistic": (math.log(2), math.log(2) / 2, math.log(2) / 4, math.log(2) / 4, 0),
    }
    for loss, expected in rows.items():
        found = [metrics[loss][f"d_loss/{state}"] for state in ("covered", "collapsed", "partner", "other", "outside")]
        assert found == pytest.approx(expected, abs=1e-9)


def test_paths(metrics: dict[str, dict[str, float]]) -> None:
    assert metrics["rs"]["paths/found"] == metrics["hinge"]["paths/found"] == 1
    assert 0 < metrics["js"]["paths/found"] < 1
    assert all(m["paths/largest_rise"] <= 1e-9 for m in metrics.values())


def test_states_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = count_metrics(4)
    assert (found["states"], found["off_cycles"], found["off_cycles_on_data"]) == (5**4, 0, 0)
    from rpgan_landscape import exact

    original = exact.enumerate_states
    broken = original(4)
    broken.cycles[1] += 1
    monkeypatch.setattr(exact, "enumerate_states", lambda n: broken)
    assert count_metrics(4)["off_cycles"] == 1
