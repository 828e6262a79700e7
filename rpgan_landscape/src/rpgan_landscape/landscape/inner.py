"""The inner maximisation of a state: an optimal critic, and a numerical maximum to hold the closed forms against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize

from rpgan_landscape.landscape.allpairs import solve_least_squares, solve_support
from rpgan_landscape.landscape.errors import LandscapeError
from rpgan_landscape.landscape.games import (
    SLOPES,
    Function,
    Game,
    attained,
    hinge,
    least_squares,
    require_finite,
    resolve,
)
from rpgan_landscape.landscape.programme import hinge_programme
from rpgan_landscape.landscape.states import State, check_states, pattern, real_and_fake
from rpgan_landscape.landscape.values import xi_attained


@dataclass(frozen=True)
class Critic:
    """An optimal critic on the distinct points.

    points: the n real points, then the distinct fakes off the data.
    values: f there; +-inf where the optimum runs off (separable and allpairs losses).
    levels: of a relativistic pairing loss: how many free pairs lie below each point; f = level * step, with the step
        B where h only approaches its supremum, else where it attains it. None for the other families.
    """

    points: Float[np.ndarray, "points d"]
    values: Float[np.ndarray, " points"]
    levels: Int[np.ndarray, " points"] | None = None


def inner_solution(loss: Any, Y: object, X: object, B: float = 20.0) -> Critic:
    """A critic that attains g(Y), or comes as near as B allows; X and Y are (n,) or (n, d).

    In the pairing game a chain x1 -> x2 -> x3 needs f(x1) >> f(x2) >> f(x3), which infinities cannot order: there the
    value is level * B (offset 0: cycles and points off the data are at level 0).

    Raises:
        LandscapeError: unknown or unsuitable loss, an infinite supremum, bad points, or B not positive.
    """
    game = resolve(loss)
    require_finite(game)
    if not 0 < B < math.inf:
        raise LandscapeError(f"B is {B}: a positive finite bound is needed")
    real, fake = real_and_fake(X, Y)
    state = pattern(X, Y)
    n = len(state)
    outside = fake[[i for i in range(n) if state[i] == n]]
    _, first = np.unique(outside, axis=0, return_index=True)
    off_data = outside[np.sort(first)]
    where = np.concatenate([real, off_data])
    if game.family == "rp":
        levels = np.append(_levels(state), np.zeros(len(off_data), int))
        return Critic(where, levels * float(np.clip(attained(game.h), -B, B)), levels)
    on_real, off = (_separable if game.family == "separable" else _allpairs)(game, state)
    return Critic(where, np.append(on_real, np.full(len(off_data), off)))


def _levels(state: State) -> Int[np.ndarray, " n"]:
    """The number of steps from each real point i along i -> state[i] to a cycle or to the outside."""
    n = len(state)
    levels = np.zeros(n, int)
    for start in range(n):
        walk, i = [], start
        while i < n and i not in walk:
            walk.append(i)
            i = state[i]
        levels[start] = len(walk) if i == n else walk.index(i)
    return levels


def _separable(game: Game, state: State) -> tuple[Float[np.ndarray, " n"], float]:
    n = len(state)
    return np.array([xi_attained(game, state.count(k))[1] for k in range(n)]), -attained(game.h2)


def _allpairs(game: Game, state: State) -> tuple[Float[np.ndarray, " n"], float]:
    n = len(state)
    counts = np.array([state.count(k) for k in range(n)])
    order = np.argsort(-counts, kind="stable")
    m = tuple(int(c) for c in counts[order] if c)
    f = np.empty(n)
    if game.h is least_squares:
        f[order] = solve_least_squares(m, n)[1]
        return f, float(f.mean()) - 1
    t = solve_support(game.h, m)[1]
    far = attained(game.h)
    f[order[: len(m)]] = t
    f[order[len(m) :]] = max(t, default=0.0) + far
    return f, min(t, default=0.0) - far


def terms(
    game: Game, state: State
) -> list[tuple[Function, Float[np.ndarray, " terms"], Float[np.ndarray, "terms points"]]]:
    """The inner objective of section 2 as sum_j w_j h((A f)_j): (h, w, A) for each h of the game.

    Points are the n reals, then each outside fake on its own.
    """
    n = len(state)
    off = np.cumsum([k == n for k in state]) - 1
    at = [k if k < n else n + off[i] for i, k in enumerate(state)]
    f = np.eye(n + state.count(n))
    f_real, f_fake = f[:n], f[at]
    if game.family == "separable":
        half = np.full(n, 1 / (2 * n))
        return [(game.h1, half, f_real), (game.h2, half, -f_fake)]
    if game.family == "rp":
        return [(game.h, np.full(n, 1 / n), f_real - f_fake)]
    pairs = (f_real[:, None] - f_fake[None]).reshape(n * n, -1)
    return [(game.h, np.full(n * n, 1 / n**2), pairs)]


def inner_max_numeric(loss: Any, state: Sequence[int], B: float = 20.0) -> float:
    """The inner maximum over critics with |f| <= B at every point, found numerically: a lower bound of `value`.

    One free critic value for each point, float64: L-BFGS-B with the slope of h (by central differences for a user's
    h, which is then assumed smooth); for the hinge a linear programme.

    Raises:
        LandscapeError: unknown or unsuitable loss, an infinite supremum, a state that is none, or B not positive.
    """
    game = resolve(loss)
    require_finite(game)
    if not 0 < B < math.inf:
        raise LandscapeError(f"B is {B}: a positive finite bound is needed")
    parts = terms(game, tuple(int(k) for k in check_states([state])[0]))

    def objective(f: np.ndarray) -> float:
        return float(sum(w @ h(A @ f) for h, w, A in parts))

    if all(h is hinge for h, _, _ in parts):
        w, A = np.concatenate([w for _, w, _ in parts]), np.concatenate([A for _, _, A in parts])
        return objective(np.clip(hinge_programme(A, w, B), -B, B))

    def negative(f: np.ndarray) -> tuple[float, np.ndarray]:
        gradient = sum(A.T @ (w * _slope(h, A @ f)) for h, w, A in parts)
        return -objective(f), -np.asarray(gradient)

    points = parts[0][2].shape[1]
    found = minimize(
        negative,
        np.zeros(points),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-B, B)] * points,
        options={"ftol": 0.0, "gtol": 1e-14, "maxiter": 20_000, "maxfun": 100_000, "maxcor": 30},
    )
    return objective(found.x)


def _slope(h: Function, t: np.ndarray) -> np.ndarray:
    if h in SLOPES:
        return SLOPES[h](t)
    step = 1e-6 * np.maximum(1, np.abs(t))
    return (h(t + step) - h(t - step)) / (2 * step)
