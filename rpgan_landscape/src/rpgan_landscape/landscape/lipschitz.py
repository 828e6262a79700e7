"""g on the line when the critic is L-Lipschitz: the landscape with width (section 4, picture i).

With the 2n points sorted, f is free at the first and may change by at most L times the gap from one to the next: a
concave problem in a box. Accelerated projected gradient (FISTA) solves it for a whole grid of Y at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from rpgan_landscape.landscape.errors import LandscapeError
from rpgan_landscape.landscape.games import SLOPES, Function, hinge, linear, logistic, resolve
from rpgan_landscape.landscape.inner import terms

_ROUNDED = 0.02  # the corner of the hinge is a parabola of this width while searching; its value is the hinge's own
_STEPS = 1500

_SLOPES: dict[Function, Function] = {
    **SLOPES,
    hinge: lambda t: np.clip((1 - t) / _ROUNDED, 0, 1),
    linear: np.ones_like,
}


def _bend(h: Function) -> float:
    """A bound of -h''."""
    # Of the linear h any step will do.
    bends: dict[Function, float] = {logistic: 0.25, hinge: 1 / _ROUNDED, linear: 1e-3}
    return bends.get(h, 2.0)


def lipschitz_values(
    loss: Any, Y: Float[np.ndarray, "batch n"], X: Float[np.ndarray, " n"], lipschitz: float
) -> Float[np.ndarray, " batch"]:
    """max over L-Lipschitz f of the objective of a registered loss, for each row of fakes Y; all on the line.

    Within 1e-3 (hinge losses 0.02) of the maximum, from below.

    Raises:
        LandscapeError: a loss that is not registered, or shapes other than (batch, n) and (n,).
    """
    game = resolve(loss)
    Y, X = np.asarray(Y, dtype=float), np.asarray(X, dtype=float)
    if X.ndim != 1 or Y.ndim != 2 or Y.shape[1] != len(X):
        raise LandscapeError(f"Y of shape (batch, n) and X of shape (n,) are needed, not {Y.shape} and {X.shape}")
    n = len(X)
    parts = terms(game, (n,) * n)  # every fake is a point of its own; where points touch, their gap is 0
    if any(h not in _SLOPES for h, _, _ in parts):
        raise LandscapeError(f"{game.name}: Lipschitz critics are found for registered losses only")
    places = np.concatenate([np.broadcast_to(X, (len(Y), n)), Y], 1)
    order = places.argsort(1)
    rank = order.argsort(1)
    room = lipschitz * np.diff(np.take_along_axis(places, order, 1), axis=1)
    # f at a point = v_0 + the changes v_1, v_2, ... up to its rank, |v_j| <= room_j
    f_of = (rank[:, :, None] >= np.arange(2 * n)).astype(float)
    matrices = [A @ f_of for _, _, A in parts]
    bound = sum((w[:, None] * A**2).sum((1, 2)) * _bend(h) for (h, w, _), A in zip(parts, matrices))
    step = 1 / np.asarray(bound)[:, None]

    v = ahead = np.zeros((len(Y), 2 * n))
    pace = 1.0
    for _ in range(_STEPS):
        upward = sum(
            np.einsum("bt,btp->bp", w * _SLOPES[h](np.einsum("btp,bp->bt", A, ahead)), A)
            for (h, w, _), A in zip(parts, matrices)
        )
        new = ahead + step * upward
        new[:, 1:] = np.clip(new[:, 1:], -room, room)
        faster = (1 + np.sqrt(1 + 4 * pace**2)) / 2
        ahead = new + (pace - 1) / faster * (new - v)
        v, pace = new, faster
    reached = (h(np.einsum("btp,bp->bt", A, v)) @ w for (h, w, _), A in zip(parts, matrices))
    return np.sum(list(reached), axis=0)
