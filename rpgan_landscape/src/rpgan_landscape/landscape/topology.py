"""Topology of g over all (n + 1)^n states (section 3): strict minima, reachability, barriers. Everything is enumerated.

g is piecewise constant: a fake on a real point may leave it (the value jumps at once), one outside may arrive. An array
over all states is a grid with one axis for each fake, and one sweep over the axes is one relaxation of the graph search
along every step of that fake in all states at once; sweeps repeat until nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from rpgan_landscape.landscape.errors import LandscapeError
from rpgan_landscape.landscape.games import TOLERANCE, Game, require_finite, resolve
from rpgan_landscape.landscape.states import cyclic_nodes, decode, occupancy, occupancy_codes
from rpgan_landscape.landscape.values import values

MOST = 8  # 43 million states; the next has a thousand million
_CHUNK = 1 << 18

Grid = Int[np.ndarray, "..."]  # n axes of length n + 1


@dataclass(frozen=True)
class Landscape:
    """What enumeration finds for one loss and n; `json.dumps(dataclasses.asdict(...))` works.

    states: (n + 1)^n.
    global_minimum: the smallest value of g.
    hist_all, hist_on_data: value -> number of states, of all and of the n^n with every fake on a real point.
    strict, strict_bad: strict local minima, and those of them above the global minimum.
    unreach_all, unreach_full: states with no non-increasing path to a global minimum, of all and of those on data.
    escape_barrier_by_occupancy: for on-data states, by multiplicities in decreasing order ('2,1'): the distinct values
        of the smallest rise of g on a path to a global minimum.
    """

    loss: str
    n: int
    states: int
    global_minimum: float
    hist_all: dict[float, int]
    hist_on_data: dict[float, int]
    strict: int
    strict_bad: int
    unreach_all: int
    unreach_full: int
    escape_barrier_by_occupancy: dict[str, list[float]]


def analyse(loss: Any, n: int) -> Landscape:
    """The exact landscape of g for n real and n fake points, by enumeration of every state.

    Ties and strictness have an absolute tolerance of 1e-9.

    Raises:
        LandscapeError: unknown or unsuitable loss, an infinite supremum (w, rp_w), or n outside 1..8.
    """
    game = resolve(loss)
    level, value = levels(game, n)
    on_data = (slice(n),) * n
    strict = strict_minima(level)
    reachable = reaches_minimum(level)
    kind, kinds = classify(n, "occupancy")
    barriers: dict[str, list[float]] = {}
    # (occupancy, level of the pass, own level), each combination once
    seen = np.ravel_multi_index(
        (kind[on_data], bottleneck(level)[on_data], level[on_data]), (len(kinds), len(value), len(value))
    )
    for k, top, low in zip(*np.unravel_index(np.unique(seen), (len(kinds), len(value), len(value)))):
        barriers.setdefault(",".join(map(str, occupancy(kinds[k]))), []).append(float(value[top] - value[low]))
    return Landscape(
        loss=game.name,
        n=n,
        states=level.size,
        global_minimum=float(value[0]),
        hist_all=_histogram(level, value),
        hist_on_data=_histogram(level[on_data], value),
        strict=int(strict.sum()),
        strict_bad=int((strict & (level > 0)).sum()),
        unreach_all=int((~reachable).sum()),
        unreach_full=int((~reachable[on_data]).sum()),
        escape_barrier_by_occupancy={key: _distinct(rises) for key, rises in sorted(barriers.items())},
    )


def levels(game: Game, n: int) -> tuple[Grid, Float[np.ndarray, " levels"]]:
    """(grid of levels, the value of each): the distinct values of g in increasing order; within 1e-9 they are one.

    Every state is decoded and put in the class that its value depends on; g is computed once for each class found.

    Raises:
        LandscapeError: an infinite supremum, or n outside 1..8.
    """
    require_finite(game)
    if not isinstance(n, int | np.integer) or n < 1:
        raise LandscapeError(f"n is {n!r}: at least one real and one fake point are needed, n >= 1")
    if n > MOST:
        raise LandscapeError(f"n is {n}: (n + 1)^n states are enumerated here, so n <= {MOST}")
    kind, kinds = classify(n, "cycles" if game.family == "rp" else "occupancy")
    g = values(game, kinds)
    order = np.argsort(g, kind="stable")
    new = np.diff(g[order], prepend=-np.inf) > TOLERANCE
    level_of = np.empty(len(g), kind.dtype)
    level_of[order] = np.cumsum(new) - 1
    return level_of[kind], g[order][new]


@lru_cache(maxsize=2)
def classify(n: int, by: Literal["cycles", "occupancy"]) -> tuple[Grid, Int[np.ndarray, "classes n"]]:
    """(class of every state, one state of each class), by the number of cyclic nodes or by the sorted occupancy."""
    key_of = cyclic_nodes if by == "cycles" else occupancy_codes
    total = (n + 1) ** n
    kind = np.empty(total, np.int16)
    number: dict[int, int] = {}
    kinds = []
    for start in range(0, total, _CHUNK):
        states = decode(np.arange(start, min(start + _CHUNK, total)), n)
        keys, first, inverse = np.unique(key_of(states), return_index=True, return_inverse=True)
        for key, i in zip(keys.tolist(), first):
            if key not in number:
                number[key] = len(number)
                kinds.append(states[i])
        kind[start : start + len(states)] = np.array([number[key] for key in keys.tolist()])[inverse]
    return kind.reshape((n + 1,) * n), np.stack(kinds)


def _by_fake(*grids: np.ndarray) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """For each fake in turn, views of every grid: (fake on real point 0..n-1, fake outside)."""
    n = grids[0].ndim
    for fake in range(n):
        moved = [np.moveaxis(grid, fake, 0) for grid in grids]
        yield [(grid[:n], grid[n, ...]) for grid in moved]  # with the dots a view for n = 1 too


def strict_minima(level: Grid) -> Bool[np.ndarray, ...]:
    """Whether g strictly increases for EVERY non-empty set of fakes moved outside; no state with one outside is.

    No monotonicity is assumed. First the lowest level over all sets moved, the empty one too: after the sweep of
    fake i, `lowest` covers the sets of fakes 0..i. A non-empty set holds some fake i, so the lowest
    over the non-empty sets is the lowest, over i, of `lowest` at the state with fake i outside.
    """
    lowest = level.copy()
    for [(on, outside)] in _by_fake(lowest):
        np.minimum(on, outside, out=on)
    strict = np.ones(level.shape, bool)
    for (on, outside), (here, _), (_, without) in _by_fake(strict, level, lowest):
        outside[...] = False
        on &= here < without
    return strict


def reaches_minimum(level: Grid) -> Bool[np.ndarray, ...]:
    """Whether a path of single steps s -> t with g(t) <= g(s) leads to a global minimum.

    Single steps suffice. More points on the data constrain the critic more, so an arrival never raises g, and k
    arrivals at one moment are k allowed steps; if k departures at one moment leave g unchanged, so does each alone.
    """
    reaches = level == 0
    known = -1
    while known != (known := int(reaches.sum())):
        for (on, outside), (level_on, level_outside) in _by_fake(reaches, level):
            outside |= (on & (level_on <= level_outside)).any(0)
            on |= outside & (level_outside <= level_on)
    return reaches


def bottleneck(level: Grid) -> Grid:
    """For each state the lowest possible highest level of a path to a global minimum (bottleneck shortest path)."""
    top = np.where(level == 0, 0, np.iinfo(level.dtype).max).astype(level.dtype)
    before = np.empty_like(top)
    while True:
        before[...] = top
        for (on, outside), (level_on, level_outside) in _by_fake(top, level):
            np.minimum(outside, np.maximum(level_outside, on.min(0)), out=outside)
            np.minimum(on, np.maximum(level_on, outside), out=on)
        if np.array_equal(before, top):
            return top


def _histogram(level: Grid, value: Float[np.ndarray, " levels"]) -> dict[float, int]:
    counts = np.bincount(level.ravel(), minlength=len(value))
    return {float(v): int(count) for v, count in zip(value, counts) if count}


def _distinct(rises: list[float]) -> list[float]:
    ordered = np.sort(rises)
    return [float(rise) for rise in ordered[np.diff(ordered, prepend=-np.inf) > TOLERANCE]]
