"""Values of states: closed forms against the objective itself, numerical maxima, symmetries and a user's own losses."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpgan_landscape.landscape import (
    GAMES,
    Game,
    LandscapeError,
    global_minimum,
    inner_max_numeric,
    inner_solution,
    occupancy,
    pattern,
    value,
    values,
    xi,
)
from rpgan_landscape.landscape.games import hinge, least_squares, logistic
from scipy.stats import wasserstein_distance
from shared.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
FINITE = [name for name in GAMES if name not in ("w", "rp_w")]
LOG2 = math.log(2)


@st.composite
def states(draw: st.DrawFn, smallest: int = 1, largest: int = 8) -> list[int]:
    n = draw(st.integers(smallest, largest))
    return draw(st.lists(st.integers(0, n), min_size=n, max_size=n))


def objective(loss: str | Game, f_real: np.ndarray, f_fake: np.ndarray) -> float:
    """Section 2, for critic values at the reals and at the fakes."""
    game = GAMES[loss] if isinstance(loss, str) else loss
    if game.family == "separable":
        return float((game.h1(f_real) + game.h2(-f_fake)).mean() / 2)
    if game.family == "rp":
        return float(game.h(f_real - f_fake).mean())
    return float(game.h(f_real[:, None] - f_fake).mean())


def coordinates(state: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Reals 0..n-1 on the line and fakes in this state; the outside ones are at two places between the reals."""
    n = len(state)
    return np.arange(n, dtype=float), np.array([k if k < n else 0.25 + 0.5 * (i % 2) for i, k in enumerate(state)])


@pytest.mark.parametrize("key", json.loads((GOLDEN / "allpairs_values.json").read_text()))
def test_golden_allpairs(key: str) -> None:
    n, multiplicities = key.removeprefix("n=").split(":")
    state = [k for k, m in enumerate(multiplicities.split(",")) for _ in range(int(m))]
    golden = json.loads((GOLDEN / "allpairs_values.json").read_text())[key]
    assert len(state) == int(n)
    assert value("allpairs", state) == pytest.approx(golden, abs=1e-11)


@pytest.mark.parametrize(
    ("state", "js", "rs", "allpairs"),
    [
        ((0, 1), -LOG2, -LOG2, -LOG2),
        ((1, 0), -LOG2, -LOG2, -LOG2),
        ((0, 0), (2 * LOG2 - 3 * math.log(3)) / 4, -LOG2 / 2, -LOG2 / 2),
        ((0, 2), -LOG2 / 2, -LOG2 / 2, -LOG2 / 4),
        ((1, 2), -LOG2 / 2, 0, -LOG2 / 4),
        ((2, 2), 0, 0, 0),
    ],
)
def test_two_point_table(state: tuple[int, int], js: float, rs: float, allpairs: float) -> None:
    assert [value(loss, state) for loss in ("js", "rs", "allpairs")] == pytest.approx([js, rs, allpairs], abs=1e-14)


def test_stated_values() -> None:
    assert value("allpairs_hinge", (0, 0, 1)) == pytest.approx(-5 / 9, abs=1e-14)
    assert value("allpairs_ls", (0, 0, 1)) == pytest.approx(-7 / 11, abs=1e-14)
    assert value("allpairs_logistic", (0, 0, 1, 1)) == pytest.approx(-(2**2 * 2 / 16) * LOG2, abs=1e-14)
    minima = {"js": -LOG2, "ls": -1 / 4, "hinge": -1, "rs": -LOG2, "rp_hinge": -1, "rp_ls": -1}
    for loss, least in minima.items():
        assert global_minimum(loss) == pytest.approx(least, abs=1e-15)
        assert value(loss, (2, 0, 1)) == pytest.approx(least, abs=1e-14)
    assert [xi("hinge", m) for m in range(4)] == [0, -2, -2, -2]
    assert xi("js", 0) == 0
    assert math.copysign(1, value("js", (2, 2))) == 1  # not -0


@pytest.mark.parametrize("loss", FINITE)
@given(states(largest=6), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_only_the_pattern_of_coincidences_counts(loss: str, state: list[int], random: np.random.Generator) -> None:
    """Separable and all-pairs values depend on the sorted occupancy, g_R on the pairs up to renaming them."""
    n = len(state)
    names = list(range(n))
    random.shuffle(names)  # type: ignore[arg-type]
    renamed = [n] * n
    for i, k in enumerate(state):
        renamed[names[i]] = names[k] if k < n else n
    assert value(loss, renamed) == pytest.approx(value(loss, state), abs=1e-12)
    if GAMES[loss].family != "rp":
        random.shuffle(renamed)  # type: ignore[arg-type]
        assert occupancy(renamed) == occupancy(state)
        assert value(loss, renamed) == pytest.approx(value(loss, state), abs=1e-12)


@pytest.mark.parametrize("loss", FINITE)
@given(states(largest=6))
@settings(max_examples=25, deadline=None)
def test_an_arrival_never_raises_g(loss: str, state: list[int]) -> None:
    """The critic has one value fewer to choose; so departures never lower it, several at a time neither."""
    n, here = len(state), value(loss, state)
    for i, k in itertools.product(range(n), range(n)):
        if state[i] == n:
            assert value(loss, [*state[:i], k, *state[i + 1 :]]) <= here + 1e-12


@given(states(largest=8))
@settings(max_examples=50, deadline=None)
def test_cyclic_nodes_by_walking(state: list[int]) -> None:
    n, cyclic = len(state), 0
    for start in range(n):
        i = state[start]
        for _ in range(n):
            if i in (start, n):
                break
            i = state[i]
        cyclic += i == start
    assert value("rp_hinge", state) == pytest.approx(-cyclic / n, abs=1e-14)


@pytest.mark.parametrize("loss", FINITE)
@given(states(largest=5))
@settings(max_examples=20, deadline=None)
def test_numerical_maximum_comes_from_below(loss: str, state: list[int]) -> None:
    exact, n = value(loss, state), len(state)
    gaps = [exact - inner_max_numeric(loss, state, B) for B in (1, 2.5, 6)]
    assert gaps == sorted(gaps, reverse=True) or max(gaps) < 1e-9
    assert min(gaps) > -1e-11
    if loss in ("ls", "hinge"):
        assert max(gaps) < 1e-9
    elif loss == "rs":
        assert gaps[-1] < 2 * math.exp(-2 * 6 / n)
    elif loss in ("js", "allpairs_logistic"):
        assert gaps[-1] < 2 * math.exp(-6 * (1 if loss == "js" else 0.5))
    else:  # attained once B reaches what a chain of n pairs, or the spread of t, needs
        assert gaps[-1] < 1e-9


@pytest.mark.parametrize(("loss", "state"), [("js", (0, 0, 0)), ("allpairs", (0, 0, 1)), ("rs", (1, 2, 2))])
def test_numerical_gap_closes_exponentially(loss: str, state: tuple[int, ...]) -> None:
    gaps = [value(loss, state) - inner_max_numeric(loss, state, B) for B in (4, 8, 16)]
    assert all(gap > 0 for gap in gaps)
    assert gaps[1] < gaps[0] / 10
    assert gaps[2] < gaps[1] / 500
    assert gaps[2] < 1e-6


@pytest.mark.parametrize("loss", FINITE)
@given(states(largest=6))
@settings(max_examples=30, deadline=None)
def test_inner_solution_attains_the_value(loss: str, state: list[int]) -> None:
    X, Y = coordinates(state)
    critic = inner_solution(loss, Y, X, B=40)
    assert len({tuple(point) for point in critic.points}) == len(critic.points)
    at = {float(point[0]): f for point, f in zip(critic.points, critic.values)}
    attained = objective(loss, np.array([at[x] for x in X]), np.array([at[y] for y in Y]))
    assert attained == pytest.approx(value(loss, Y, X), abs=1e-12)
    if loss == "rs":
        assert np.array_equal(critic.values, 40 * critic.levels)


@pytest.mark.parametrize("loss", ["js", "ls", "hinge", "rs", "rp_ls", "allpairs_logistic", "allpairs_hinge"])
def test_inner_solution_of_a_users_copy(loss: str) -> None:
    """Without closed forms the same critic is found, infinities included; a smooth maximum to the root of rounding."""
    game = GAMES[loss]
    parts = {name: (lambda t, h=h: h(t)) for name in ("h1", "h2", "h") if (h := getattr(game, name)) is not None}
    X, Y = coordinates((0, 0, 1, 0, 5))
    own = inner_solution(Game(game.family, **parts), Y, X).values  # type: ignore[arg-type]
    registered = inner_solution(loss, Y, X).values
    if loss == "hinge":  # xi(1) is attained on all of [-1, 1]
        assert own[1] == pytest.approx(np.clip(own[1], -1, 1), abs=1e-12)
        registered[1] = own[1]
    assert own == pytest.approx(registered, abs=1e-6)


def test_levels_of_a_chain() -> None:
    """x1 -> x2 -> x3 -> x3, and a fake of x4 off the data: the cycle and the outside are at level 0."""
    critic = inner_solution("rs", Y=[1.0, 2.0, 2.0, 9.0], X=[0.0, 1.0, 2.0, 3.0])
    assert critic.levels is not None
    assert critic.levels.tolist() == [2, 1, 0, 1, 0]
    assert critic.values.tolist() == [40, 20, 0, 20, 0]
    assert inner_solution("js", [1.0, 1.0], [0.0, 1.0]).values.tolist() == [math.inf, -math.log(2)]


positive = st.floats(0.1, 10)


@given(positive, positive, positive, st.floats(-5, 5), st.integers(1, 9))
@settings(deadline=None)
def test_xi_of_unequal_logistics(a: float, b: float, scale: float, shift: float, m: int) -> None:
    """h1 = a L(s (t - c)), h2(-t) = b L(-s (t - c)): xi(m) = a log(a/(a + mb)) + mb log(mb/(a + mb))."""
    game = Game(
        "separable", h1=lambda t: a * logistic(scale * (t - shift)), h2=lambda t: b * logistic(scale * (t + shift))
    )
    total = a + m * b
    assert xi(game, m) == pytest.approx(a * math.log(a / total) + m * b * math.log(m * b / total), abs=1e-10)
    assert xi(game, 0) == pytest.approx(0, abs=1e-10)


@given(positive, positive, st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 9))
@settings(deadline=None)
def test_xi_of_quadratics(a: float, b: float, p: float, q: float, m: int) -> None:
    game = Game("separable", h1=lambda t: -a * (t - p) ** 2, h2=lambda t: -b * (t + q) ** 2)
    assert xi(game, m) == pytest.approx(-a * m * b / (a + m * b) * (p - q) ** 2, abs=1e-10, rel=1e-12)


@given(st.lists(st.tuples(positive, st.floats(-5, 5)), min_size=1, max_size=4), positive, st.integers(0, 9))
@settings(deadline=None)
def test_xi_with_kinks(knots: list[tuple[float, float]], b: float, m: int) -> None:
    """h1 a sum of hinges, h2 one hinge: the maximum is at a kink."""

    def h1(t: np.ndarray) -> np.ndarray:
        return sum(a * hinge(t - c) for a, c in knots)  # type: ignore[return-value]

    game = Game("separable", h1=h1, h2=lambda t: b * hinge(t))
    kinks = np.array([*(1 + c for _, c in knots), -1.0])
    assert xi(game, m) == pytest.approx((h1(kinks) + m * b * hinge(-kinks)).max(), abs=1e-10)


def test_a_slowly_approached_supremum() -> None:
    """-1/(1 + t) for t > 0 comes near 0 only at 10^10; t - sqrt(1 + t^2) cancels out there."""

    def slow(t: np.ndarray) -> np.ndarray:
        return np.where(t > 0, -1 / (1 + np.maximum(t, 0)), t - 1)

    assert value(Game("rp", h=slow), (1, 0, 0)) == pytest.approx(-2 / 3, abs=1e-10)
    assert value(Game("rp", h=lambda t: t - np.sqrt(1 + t * t)), (1, 0, 0)) == pytest.approx(-2 / 3, abs=1e-10)


@pytest.mark.parametrize("registered", [logistic, hinge])
def test_allpairs_of_a_users_h_without_its_solver(registered: object) -> None:
    """The nested search against Newton and the linear programme; (3, 2, 1) has two free variables."""
    name = f"allpairs_{registered.__name__}"  # type: ignore[attr-defined]
    own = Game("allpairs", h=lambda t: registered(t))  # type: ignore[operator]
    for state in [(0, 0, 0, 1, 1, 2), (0, 0, 1, 1, 2, 6), (0, 0, 0, 0, 1, 6), (0, 1, 2, 3, 4, 5)]:
        assert value(own, state) == pytest.approx(value(name, state), abs=1e-10)


def test_a_users_h_at_random_states_of_seven_points() -> None:
    """A smooth h with sup h = 0.5 in all three families against the numerical maximum, and g_R also by hand."""

    def h(t: np.ndarray) -> np.ndarray:
        return 0.5 - np.exp(-t)

    draw = np.random.default_rng(0)
    for state in draw.integers(0, 8, (4, 7)):
        for game in (Game("rp", h=h), Game("separable", h1=h, h2=h), Game("allpairs", h=h)):
            gap = value(game, state) - inner_max_numeric(game, state, B=40)
            assert -1e-10 < gap < 2e-4 if game.family == "rp" else -1e-10 < gap < 1e-8
    assert value(Game("rp", h=h), (1, 0, 0, 2, 7, 7, 7)) == pytest.approx(0.5 - 2 / 7, abs=1e-10)
    # A duck will do, and a given supremum is used.
    own = SimpleNamespace(family="rp", h=h, sup_h=0.5)
    assert value(own, (0, 0)) == 0.5 * h(np.zeros(1))[0] + 0.25


def test_non_monotone_h_of_the_registered_allpairs_ls_only() -> None:
    with pytest.raises(LandscapeError, match="decreases near t = "):
        value(Game("allpairs", h=lambda t: least_squares(t)), (0, 0))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("bce", "unknown loss 'bce': use one of js, ls, hinge, w, rs, "),
        (Game("rp", h=np.sin), "`h` is not concave"),
        (Game("rp", h=lambda t: -(np.abs(t) ** 0.9)), "`h` is not concave"),
        (Game("rp", h=lambda t: 2 * t), "`h` has an infinite supremum"),
        (Game("rp", h=np.log1p), "one finite number for each"),
        (Game("rp", h=lambda t: 0.0), "one finite number for each"),
        (Game("rp", h=math.exp), "failed with TypeError"),
        (Game("rp", h=lambda t: -np.exp(-t), sup_h=-0.5), "above the given sup_h = -0.5"),
        (Game("separable", h1=logistic), "a separable loss needs h1 and h2: `h2` is not a function"),
        (SimpleNamespace(h=logistic), "`family` is None: use separable, rp, allpairs"),
        ("w", "the supremum over all critics is infinite"),
        ("rp_w", r"value\('rp_w', Y, X, lipschitz=1\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_unsuitable_losses(loss: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as found:
        value(loss, (0, 0))
    assert isinstance(found.value, UserError)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("state", [(), (0, 3), (-1, 0), (0.5, 1.0), ((0, 1), (1, 0)), "ab"])
def test_states_that_are_none(state: object) -> None:
    with pytest.raises(LandscapeError, match="a state "):
        value("js", state)


def test_xi_of_other_families() -> None:
    with pytest.raises(LandscapeError, match=r"xi\(m\) belongs to separable losses; rs is rp"):
        xi("rs", 1)
    with pytest.raises(LandscapeError, match="m >= 0"):
        xi("js", -1)


def test_many_states_at_once_and_many_points() -> None:
    rows = np.random.default_rng(1).integers(0, 6, (40, 5))
    for loss in FINITE:
        assert values(loss, rows) == pytest.approx([value(loss, row) for row in rows], abs=1e-14)
    crowd = np.zeros(40, int)  # more points than fit a code of 64 bits
    assert value("allpairs", crowd) == pytest.approx(-LOG2 / 40, abs=1e-14)
    assert value("rs", np.roll(np.arange(40), 1)) == pytest.approx(-LOG2, abs=1e-14)


def test_pattern() -> None:
    X = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    assert pattern(X, [[0.0, 1.0], [1.0, 1e-9], [0.0, 0.0]]) == (2, 3, 0)
    assert pattern(X, [[0.0, 1.0], [1.0, 1e-9], [0.6, 0.0]], tol=0.4) == (2, 1, 1)
    assert pattern([0.25, 0.75], np.array([0.75, 0.5])) == (1, 2)
    assert value("js", [0.75, 0.5], [0.25, 0.75]) == value("js", (1, 2))


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        ([0.0, 1.0, 0.0], [1.0, 2.0, 3.0], "real points 0 and 2 coincide"),
        ([], [], "n >= 1 points"),
        ([0.0, 1.0], [0.0], r"X has shape \(2, 1\) and Y \(1, 1\)"),
        ([0.0, math.nan], [0.0, 1.0], "X holds a coordinate that is not finite"),
        ([0.0, "a"], [0.0, 1.0], "X has to be an array"),
    ],
)
def test_points_that_are_none(X: list, Y: list, message: str) -> None:
    for of in (lambda: pattern(X, Y), lambda: value("rp_w", Y, X, lipschitz=1), lambda: inner_solution("js", Y, X)):
        with pytest.raises(ValueError, match=message):
            of()


def test_negative_tolerance() -> None:
    with pytest.raises(LandscapeError, match="tol is -1"):
        pattern([0.0], [0.0], tol=-1)


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_wasserstein_value(n: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    X, Y = draw.normal(size=(2, n))
    distance = wasserstein_distance(X, Y)
    assert value("rp_w", Y, X, lipschitz=1) == pytest.approx(distance, abs=1e-12)
    assert value("w", Y, X, lipschitz=1) == pytest.approx(distance / 2, abs=1e-12)
    matched = np.empty(n)
    matched[np.argsort(Y)] = np.sort(X)
    for share in (0.25, 0.5, 1.0):  # no bad minimum: along the matching it falls linearly to 0
        moved = value("rp_w", Y + share * (matched - Y), X, lipschitz=1)
        assert moved == pytest.approx((1 - share) * distance, abs=1e-12)


def test_wasserstein_in_the_plane_by_all_matchings() -> None:
    X, Y = np.random.default_rng(3).normal(size=(2, 4, 2))
    best = min(np.linalg.norm(X[list(p)] - Y, axis=1).mean() for p in itertools.permutations(range(4)))
    assert value("rp_w", Y, X, lipschitz=1) == pytest.approx(best, abs=1e-14)


def test_lipschitz_where_it_has_no_place() -> None:
    with pytest.raises(LandscapeError, match="lipschitz belongs to w and rp_w"):
        value("js", [0.0], [0.0], lipschitz=1)
    with pytest.raises(LandscapeError, match="depends on coordinates"):
        value("w", (0, 1), lipschitz=1)
    with pytest.raises(LandscapeError, match="a positive bound"):
        value("w", [0.0], [0.0], lipschitz=0)
    for B in (0, math.inf):
        with pytest.raises(LandscapeError, match="a positive finite bound"):
            inner_solution("rs", [0.0], [0.0], B)
        with pytest.raises(LandscapeError, match="a positive finite bound"):
            inner_max_numeric("rs", [0], B)
