"""Paths between states: a descending one to a global minimum (section 3), and the merge tree of the strict minima."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rpgan_landscape.landscape.errors import LandscapeError
from rpgan_landscape.landscape.games import TOLERANCE, Game, require_finite, resolve
from rpgan_landscape.landscape.states import State, check_states, decode, occupancy
from rpgan_landscape.landscape.topology import levels, strict_minima
from rpgan_landscape.landscape.values import global_minimum, value

MOST_LEAVES = 6  # 46,656 strict minima


def descend(loss: Any, state: Sequence[int]) -> list[State] | None:
    """States of a path from `state` to a global minimum, one fake leaving or arriving at a time, g never rising.

    None where no such path exists. For a pairing loss it is the constructive path of `own_partners`.

    Raises:
        LandscapeError: unknown or unsuitable loss, an infinite supremum, or a state that is none.
    """
    game = resolve(loss)
    require_finite(game)
    start: State = tuple(int(k) for k in check_states([state])[0])
    lowest = global_minimum(game) + TOLERANCE
    if value(game, start) <= lowest:
        return [start]
    return own_partners(start) if game.family == "rp" else _search(game, start, lowest)


def own_partners(state: State) -> list[State]:
    """The constructive path of the pairing game: it exists from every state, and g never rises on it.

    (1) Every non-cyclic fake moves outside: the cycles stay, so g is constant. (2) They move, one by one, onto their
    own partners x_i: each arrival closes a cycle of length 1 and lowers g by (sup h - h(0)) / n. On the line a moving
    fake may cross other reals: with all other non-cyclic fakes outside no new cycle appears, so g does not dip.
    """
    n = len(state)
    walk = np.append(state, n)
    for _ in range(n):
        walk = np.append(state, n)[walk]  # n + 1 steps: the ends are the cyclic nodes, and n
    free = [i for i in range(n) if i not in walk[:n]]
    path = [state]
    for code in (lambda i: n, lambda i: i):
        for i in free:
            if path[-1][i] != code(i):
                path.append((*path[-1][:i], code(i), *path[-1][i + 1 :]))
    return path


def _search(game: Game, start: State, lowest: float) -> list[State] | None:
    """Breadth first. g depends on the sorted occupancy alone and renaming points or fakes maps paths to paths, so one
    state stands for all of its occupancy: n = 8 has 67 of them."""
    came_from: dict[State, State | None] = {start: None}
    seen = {occupancy(start)}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        g = value(game, here)
        if g <= lowest:
            path: list[State] = []
            step: State | None = here
            while step is not None:
                path.append(step)
                step = came_from[step]
            return path[::-1]
        for there in _steps(here):
            if occupancy(there) not in seen and value(game, there) <= g + TOLERANCE:
                seen.add(occupancy(there))
                came_from[there] = here
                queue.append(there)
    return None


def _steps(state: State) -> Iterator[State]:
    """Every departure, and every arrival of a fake that is outside."""
    n = len(state)
    for i, k in enumerate(state):
        for code in [n] if k < n else range(n):
            yield (*state[:i], code, *state[i + 1 :])


@dataclass(frozen=True)
class MergeTree:
    """A node of a disconnectivity graph: a strict minimum (`state`), or the level g = `value` where basins join.

    `value` of a join is the smallest possible maximum of g on a path between minima of different children.
    """

    value: float
    state: State | None = None
    children: tuple[MergeTree, ...] = ()

    def leaves(self) -> list[MergeTree]:
        """The strict minima below this node, from left to right."""
        return [self] if self.state is not None else [leaf for child in self.children for leaf in child.leaves()]


def barrier_tree(loss: Any, n: int) -> MergeTree:
    """Merge tree of the strict minima: its leaves are all of them, the global ones first in every join.

    Raises:
        LandscapeError: unknown or unsuitable loss, an infinite supremum, n outside 1..6, or no strict minimum at all.
    """
    game = resolve(loss)
    if isinstance(n, int | np.integer) and n > MOST_LEAVES:
        raise LandscapeError(f"n is {n}: a tree of up to n^n minima is drawn only for n <= {MOST_LEAVES}")
    level, g = levels(game, n)
    flat = level.ravel()
    minima = np.flatnonzero(strict_minima(level))
    if not len(minima):
        raise LandscapeError(f"{game.name} has no strict local minimum for n = {n}, so no tree")
    numbers = np.arange(flat.size).reshape(level.shape)
    ends = []
    for fake in range(n):
        moved = np.moveaxis(numbers, fake, 0)
        ends.append(np.stack([moved[:n].ravel(), np.broadcast_to(moved[n], moved[:n].shape).ravel()]))
    one, other = np.concatenate(ends, 1)
    height = np.maximum(flat[one], flat[other])  # the level at which a step can be taken

    trees: dict[int, MergeTree] = {}  # by one of its minima
    for at in range(len(g)):
        trees |= {int(s): MergeTree(float(g[at]), _state(s, n)) for s in minima[flat[minima] == at]}
        low = height <= at
        graph = coo_array((np.ones(low.sum(), np.int8), (one[low], other[low])), shape=(flat.size, flat.size))
        basin = connected_components(graph, directed=False)[1]
        together: dict[int, list[int]] = {}
        for s in sorted(trees, key=lambda s: (trees[s].leaves()[0].value, s)):
            together.setdefault(int(basin[s]), []).append(s)
        trees = {
            group[0]: trees[group[0]]
            if len(group) == 1
            else MergeTree(float(g[at]), None, tuple(trees[s] for s in group))
            for group in together.values()
        }
    (tree,) = trees.values()
    return tree


def _state(number: int, n: int) -> State:
    return tuple(int(k) for k in decode(np.array([number]), n)[0])
