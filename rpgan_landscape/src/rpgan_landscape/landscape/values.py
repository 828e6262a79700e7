"""The exact outer function g of a state (section 3 of the specification)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rpgan_landscape.landscape.allpairs import solve_least_squares, solve_support
from rpgan_landscape.landscape.concave import maximise_concave
from rpgan_landscape.landscape.errors import LandscapeError
from rpgan_landscape.landscape.games import Game, least_squares, linear, require_finite, resolve
from rpgan_landscape.landscape.states import (
    check_states,
    cyclic_nodes,
    multiplicities,
    occupancy,
    occupancy_codes,
    pattern,
)
from rpgan_landscape.landscape.wasserstein import wasserstein


def xi(loss: Any, m: int) -> float:
    """xi(m) = sup_t [h1(t) + m h2(-t)]: what a real point with m fakes on it contributes to 2n g of a separable loss.

    Raises:
        LandscapeError: unknown or unsuitable loss, not a separable one, an infinite supremum, or m < 0.
    """
    game = resolve(loss)
    require_finite(game)
    if game.family != "separable":
        raise LandscapeError(f"xi(m) belongs to separable losses; {game.name} is {game.family}")
    if not isinstance(m, int | np.integer) or m < 0:
        raise LandscapeError(f"a multiplicity is an integer m >= 0, not {m!r}")
    return xi_attained(game, int(m))[0]


def xi_attained(game: Game, m: int) -> tuple[float, float]:
    """xi(m) of a separable game, and the (leftmost) critic value at the real point that attains it, or +-inf."""
    if game.xi is not None:
        return game.xi(m)
    h1, h2 = game.h1, game.h2
    if m == 0:  # a supremum that the user gave counts here too, not only the computed one
        return game.sup_h1, float(maximise_concave(h1)[1])
    best, where = maximise_concave(lambda t: h1(t) + m * h2(-t))
    return float(best), float(where)


def values(loss: Any, states: Int[np.ndarray, "states n"] | Sequence[Sequence[int]]) -> Float[np.ndarray, " states"]:
    """g of many states at once (for each fake the index of its real point, or n for outside).

    Raises:
        LandscapeError: unknown or unsuitable loss, an infinite supremum (w, rp_w), or a state that is none.
    """
    game = resolve(loss)
    require_finite(game)
    array = check_states(states)
    n = array.shape[1]
    if game.family == "separable":
        # g_S = (1/2n) sum_k xi(m_k) + (outside fakes) / (2n) sup h2
        table = np.array([xi_attained(game, m)[0] for m in range(n + 1)])
        outside = (array == n).sum(1)
        return (table[multiplicities(array)].sum(1) + outside * game.sup_h2) / (2 * n) + 0.0
    if game.family == "rp":
        # g_R = (c/n) h(0) + (1 - c/n) sup h: around a cycle the differences sum to 0, so by concavity a cycle of
        # length L gives L h(0); every other pair is free.
        free = 1 - cyclic_nodes(array) / n
        return np.float64(_at_zero(game)) * (1 - free) + free * game.sup_h + 0.0
    # g_A depends on the sorted occupancy alone: solve once for each.
    if n <= 15:
        _, first, inverse = np.unique(occupancy_codes(array), return_index=True, return_inverse=True)
    else:
        ranked = np.sort(multiplicities(array), 1)
        _, first, inverse = np.unique(ranked, axis=0, return_index=True, return_inverse=True)
    return np.array([_allpairs(game, occupancy(array[i]), n) for i in first])[inverse.ravel()]


def value(
    loss: Any, state: Sequence[int] | Any, X: Sequence | np.ndarray | None = None, *, lipschitz: float | None = None
) -> float:
    """g of one state; or, given real points X, of fakes at `state` = Y (both (n,) or (n, d)).

    Args:
        lipschitz: for w and rp_w, and only there: the Lipschitz bound L of the critic. The value is then L times the
            1-Wasserstein distance between the two empirical measures (rp_w), or half of that (w).

    Raises:
        LandscapeError: unknown or unsuitable loss, bad points or state, an infinite supremum without `lipschitz`.
    """
    game = resolve(loss)
    if lipschitz is not None:
        if linear not in (game.h, game.h1):
            raise LandscapeError(f"lipschitz belongs to w and rp_w; the value of {game.name} is over all critics")
        if X is None:
            raise LandscapeError(
                f"with lipschitz the value depends on coordinates: value({game.name!r}, Y, X, lipschitz=1)"
            )
        if not 0 < lipschitz < np.inf:
            raise LandscapeError(f"lipschitz is {lipschitz}: a positive bound is needed")
        return lipschitz * wasserstein(state, X) / (2 if game.family == "separable" else 1)
    require_finite(game)
    return float(values(game, [state if X is None else pattern(X, state)])[0])


def global_minimum(loss: Any) -> float:
    """min g: (1/2) sup_t [h1(t) + h2(-t)] of a separable loss, h(0) of the others; reached where {y} = {x}."""
    game = resolve(loss)
    require_finite(game)
    return xi_attained(game, 1)[0] / 2 if game.family == "separable" else _at_zero(game)


def _at_zero(game: Game) -> float:
    return float(game.h(np.zeros(1))[0])


def _allpairs(game: Game, m: tuple[int, ...], n: int) -> float:
    """g_A of the sorted occupancy m; see allpairs.py for the two inner problems."""
    if game.h is least_squares:
        return solve_least_squares(m, n)[0] / n**2 + 0.0
    # Pairs of an occupied real point and a fake on one: the rest reach sup h in the limit.
    return (solve_support(game.h, m)[0] + (n**2 - len(m) * sum(m)) * game.sup_h) / n**2 + 0.0
