"""Enumeration against golden landscapes, closed-form counts and a search in plain Python; paths and trees."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpgan_landscape.landscape import (
    GAMES,
    Game,
    LandscapeError,
    MergeTree,
    analyse,
    barrier_tree,
    descend,
    global_minimum,
    occupancy,
    value,
)
from rpgan_landscape.landscape.states import decode
from rpgan_landscape.landscape.topology import bottleneck, levels, reaches_minimum, strict_minima

GOLDEN = json.loads((Path(__file__).parent / "golden" / "landscape.json").read_text())
NAMES = {"separable_js": "js", "separable_ls01": "ls", "separable_hinge": "hinge", "rp_logistic": "rs"}
FINITE = [name for name in GAMES if name not in ("w", "rp_w")]
COLLAPSING = ("js", "ls", "allpairs_logistic", "allpairs_hinge", "allpairs_ls")
State = tuple[int, ...]


def same(found: dict[float, int], golden: dict[str, int]) -> None:
    assert list(found.values()) == [count for _, count in sorted((float(v), count) for v, count in golden.items())]
    assert list(found) == pytest.approx(sorted(map(float, golden)), abs=1e-11)


@pytest.mark.parametrize("key", GOLDEN)
def test_golden_landscape(key: str) -> None:
    golden, (loss, n) = GOLDEN[key], key.split("/n=")
    found = analyse(NAMES.get(loss, loss), int(n))
    same(found.hist_all, golden["hist_all"])
    same(found.hist_on_data, golden["hist_on_data"])
    for count in ("strict", "strict_bad", "unreach_all", "unreach_full"):
        assert getattr(found, count) == golden[count]
    assert found.escape_barrier_by_occupancy.keys() == golden["escape_barrier_by_occupancy"].keys()
    for rises, expected in zip(
        found.escape_barrier_by_occupancy.values(), golden["escape_barrier_by_occupancy"].values()
    ):
        assert rises == pytest.approx(list(map(float, expected)), abs=1e-11)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("loss", FINITE)
def test_counts_of_section_3(loss: str, n: int) -> None:
    found = analyse(loss, n)
    collapses = n**n - math.factorial(n) if loss in COLLAPSING else 0
    assert found.strict == math.factorial(n) + collapses
    assert (found.strict_bad, found.unreach_full) == (collapses, collapses)
    # With every departure a rise, a state reaches a global minimum iff no two fakes share a point.
    apart = sum(math.comb(n, k) ** 2 * math.factorial(k) for k in range(n + 1))
    assert found.unreach_all == ((n + 1) ** n - apart if loss in COLLAPSING else 0)
    assert found.global_minimum == pytest.approx(global_minimum(loss), abs=1e-13)
    assert sum(found.hist_all.values()) == found.states == (n + 1) ** n
    assert json.loads(json.dumps(dataclasses.asdict(found)))["strict"] == found.strict


@pytest.mark.parametrize(("least", "everywhere"), [(0, False), (1, True)])
def test_cycle_histogram_at_six(least: int, everywhere: bool) -> None:
    """n!/(n-c)! c n^(n-c-1) states on data have c cyclic nodes; of all states n!/(n-c)! (c+1) (n+1)^(n-c-1)."""
    n = 6
    found = analyse("rp_hinge", n)
    histogram = found.hist_all if everywhere else found.hist_on_data
    expected = {}
    for c in range(n + 1):
        weight, base = (c + 1, n + 1) if everywhere else (c, n)
        count = weight * base ** (n - c) // base * math.factorial(n) // math.factorial(n - c)
        if c == n:
            count = math.factorial(n)
        if count:
            expected[-c / n] = count
    assert list(histogram) == pytest.approx(sorted(expected), abs=1e-14)
    assert list(histogram.values()) == [expected[v] for v in sorted(expected)]


@pytest.mark.parametrize("loss", ["js", "ls", "hinge", "allpairs_logistic"])
def test_occupancy_histogram_at_six(loss: str) -> None:
    """States of each sorted occupancy, counted by multinomials: which fakes are together, and where."""
    n = 6
    expected: Counter[float] = Counter()
    on_data: Counter[float] = Counter()
    for m in itertools.product(range(n + 1), repeat=n):
        q = n - sum(m)
        if q < 0 or list(m) != sorted(m, reverse=True):
            continue
        fakes = math.factorial(n) // math.factorial(q) // math.prod(map(math.factorial, m))
        places = math.factorial(n) // math.prod(math.factorial(times) for times in Counter(m).values())
        g = round(value(loss, [k for k, times in enumerate(m) for _ in range(times)] + [n] * q), 10)
        expected[g] += fakes * places
        on_data[g] += fakes * places if q == 0 else 0
    found = analyse(loss, n)
    for histogram, counts in ((found.hist_all, expected), (found.hist_on_data, on_data)):
        assert {round(v, 10): c for v, c in histogram.items()} == {v: c for v, c in counts.items() if c}


def neighbours(state: State) -> list[State]:
    n = len(state)
    codes = [[n] if k < n else range(n) for k in state]
    return [(*state[:i], k, *state[i + 1 :]) for i in range(n) for k in codes[i]]


def search(g: dict[State, float]) -> tuple[set[State], dict[State, float]]:
    """In plain Python: the states that reach a global minimum, and the lowest pass from each state to one."""
    least = min(g.values())
    reach, before = {s for s in g if g[s] < least + 1e-9}, (set(), {})
    top = {s: least if s in reach else math.inf for s in g}
    while before != (reach, top):
        before = reach, top
        reach = reach | {s for s in g if any(t in reach and g[t] <= g[s] + 1e-9 for t in neighbours(s))}
        top = {s: max(g[s], min([top[s], *(top[t] for t in neighbours(s))])) for s in g}
    return reach, top


@pytest.mark.parametrize("loss", FINITE)
def test_search_in_plain_python(loss: str) -> None:
    n = 3
    g = {s: value(loss, s) for s in itertools.product(range(n + 1), repeat=n)}
    reach, top = search(g)
    level, values = levels(GAMES[loss], n)
    assert {tuple(map(int, s)) for s in np.argwhere(reaches_minimum(level))} == reach
    passes = values[bottleneck(level)]
    assert [passes[s] for s in g] == pytest.approx(list(top.values()), abs=1e-12)


@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_search_over_levels_that_no_loss_has(n: int, seed: int) -> None:
    level = np.random.default_rng(seed).integers(0, 4, (n + 1,) * n).astype(np.int16)
    level -= level.min()
    g = {s: float(level[s]) for s in itertools.product(range(n + 1), repeat=n)}
    reach, top = search(g)
    assert {tuple(map(int, s)) for s in np.argwhere(reaches_minimum(level))} == reach
    lowest = bottleneck(level)
    assert {s: float(lowest[s]) for s in g} == top


def strictly_higher(g: dict[State, float], state: State) -> bool:
    n = len(state)
    for moved in itertools.product([False, True], repeat=n):
        if any(moved) and g[tuple(n if out else k for k, out in zip(state, moved))] <= g[state] + 1e-9:
            return False
    return True


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("loss", ["js", "hinge", "rs", "allpairs_logistic", "allpairs_ls"])
def test_strictness_by_every_subset(loss: str, n: int) -> None:
    everything = decode(np.arange((n + 1) ** n), n)
    level, values = levels(GAMES[loss], n)
    g = {tuple(map(int, s)): values[level[tuple(s)]] for s in everything}
    expected = {s for s in itertools.product(range(n), repeat=n) if strictly_higher(g, s)}
    assert {tuple(map(int, s)) for s in np.argwhere(strict_minima(level))} == expected


@given(st.integers(2, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_strictness_of_levels_that_no_loss_has(n: int, seed: int) -> None:
    """The sweep assumes nothing of g: random levels, not monotone in the set moved."""
    level = np.random.default_rng(seed).integers(0, 4, (n + 1,) * n).astype(np.int16)
    g = {s: float(level[s]) for s in itertools.product(range(n + 1), repeat=n)}
    expected = {s for s in itertools.product(range(n), repeat=n) if strictly_higher(g, s)}
    assert {tuple(map(int, s)) for s in np.argwhere(strict_minima(level))} == expected


def is_descending(loss: object, path: list[State]) -> None:
    g = [value(loss, state) for state in path]
    for here, there, before, after in zip(path, path[1:], g, g[1:]):
        assert there in neighbours(here)
        assert after <= before + 1e-12
    assert g[-1] == pytest.approx(global_minimum(loss), abs=1e-12)


def test_constructive_path_from_random_states() -> None:
    draw = np.random.default_rng(0)
    for k in range(200):
        n = 1 + k % 8
        state = tuple(map(int, draw.integers(0, n + 1, n)))
        path = descend("rs", state)
        assert path is not None
        assert path[0] == state
        is_descending("rs", path)
        kept = [i for i in range(n) if all(s[i] == state[i] for s in path)]
        g = [value("rs", s) for s in path]
        assert round((g[0] - g[-1]) / math.log(2) * n) == n - len(kept)  # cyclic fakes stay
        falls = [before - after for before, after in itertools.pairwise(g) if before - after > 1e-12]
        assert falls == pytest.approx([math.log(2) / n] * len(falls), abs=1e-12)  # (sup h - h(0)) / n each


@pytest.mark.parametrize("loss", FINITE)
def test_descent_exists_exactly_where_the_search_says(loss: str) -> None:
    n = 3
    reaches = reaches_minimum(levels(GAMES[loss], n)[0])
    for state in itertools.product(range(n + 1), repeat=n):
        path = descend(loss, state)
        assert (path is not None) == reaches[state]
        if path is not None:
            assert path[0] == state
            is_descending(loss, path)


def test_descent_of_eight_points() -> None:
    path = descend("hinge", (0,) * 8)
    assert path is not None
    is_descending("hinge", path)
    assert len(path) == 15  # seven leave the crowd and arrive
    assert descend("js", (0,) * 8) is None
    assert descend("js", range(8)) == [tuple(range(8))]


def passes(tree: MergeTree, least: float, above: float = math.inf) -> dict[State, float]:
    """For each leaf the value of the lowest join above it that also has a global minimum below."""
    holds = any(leaf.value < least + 1e-9 for leaf in tree.leaves())
    here = tree.value if holds else above
    if tree.state is not None:
        return {tree.state: here}
    return {state: g for child in tree.children for state, g in passes(child, least, here).items()}


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("loss", ["js", "allpairs", "hinge", "rs"])
def test_barrier_tree(loss: str, n: int) -> None:
    found, tree = analyse(loss, n), barrier_tree(loss, n)
    leaves = tree.leaves()
    assert len({leaf.state for leaf in leaves}) == len(leaves) == found.strict
    assert leaves[0].value == pytest.approx(found.global_minimum, abs=1e-12)
    for leaf, top in zip(leaves, passes(tree, found.global_minimum).values()):
        assert leaf.state is not None
        assert leaf.value == pytest.approx(value(loss, leaf.state), abs=1e-12)
        rise = found.escape_barrier_by_occupancy[",".join(map(str, occupancy(leaf.state)))]
        assert rise == pytest.approx([top - leaf.value], abs=1e-12)


def test_two_points_of_js_merge() -> None:
    """Both collapsed states and both permutations are minima; all meet where one fake is out."""
    tree = barrier_tree("js", 2)
    assert [leaf.state for leaf in tree.leaves()] == [(0, 1), (1, 0), (0, 0), (1, 1)]
    assert tree.value == pytest.approx(-math.log(2) / 2, abs=1e-12)
    assert all(child.value < tree.value for child in tree.children)


def test_values_within_the_tolerance_are_ties() -> None:
    """A second fake that lowers g by less than the tolerance makes no strict collapse; by more, it does."""

    def crowd(least: float) -> Game:
        def xi(m: int) -> tuple[float, float]:
            return ([0.0, -2.0, -2.0 - least][m], 0.0)

        return dataclasses.replace(GAMES["hinge"], xi=xi)

    # One departure costs least / (2n), n = 2. A copy of a registered game keeps its xi.
    assert analyse(crowd(4 * 0.9e-9), 2).strict_bad == 0
    assert analyse(crowd(4 * 1.1e-9), 2).strict_bad == 2


@pytest.mark.parametrize("n", [0, -1, 2.0, "3"])
def test_too_few_points(n: object) -> None:
    for of in (analyse, barrier_tree):
        with pytest.raises(LandscapeError, match="n >= 1"):
            of("js", n)  # type: ignore[operator]


def test_too_many_points() -> None:
    with pytest.raises(LandscapeError, match="n <= 8"):
        analyse("js", 9)
    with pytest.raises(LandscapeError, match="n <= 6"):
        barrier_tree("js", 7)


@pytest.mark.parametrize("of", [lambda: analyse("w", 2), lambda: barrier_tree("rp_w", 2), lambda: descend("w", (0, 0))])
def test_wasserstein_has_no_states(of: object) -> None:
    with pytest.raises(LandscapeError, match="infinite"):
        of()  # type: ignore[operator]


def test_a_constant_loss_has_no_strict_minimum() -> None:
    flat = Game("rp", h=lambda t: 0 * t)
    assert analyse(flat, 2).strict == 0
    assert descend(flat, (0, 0)) == [(0, 0)]
    with pytest.raises(LandscapeError, match="no strict local minimum"):
        barrier_tree(flat, 2)
