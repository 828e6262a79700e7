"""Maximising a concave function of one real variable, guarded: no derivative, no starting point, kinks welcome.

A coarse grid that reaches 2^60 on both sides finds the neighbourhood of the maximum; each zoom then keeps the two cells
around the best of 33 points. A concave function has its maximum between the neighbours of the best grid point, so no
step can lose it. The value is good to rounding; where the maximum is smooth, the argument only to its square root.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

_FINE = np.linspace(0, 1, 33)
_ZOOMS = 16  # from 2^60 to rounding: the interval shrinks 16-fold each time
LIMIT = 1e-11  # what the last doubling of the argument may still gain, where the supremum is only approached


def maximise_concave(
    phi: Callable[[Float[np.ndarray, "... points"]], Float[np.ndarray, "... points"]],
    shape: tuple[int, ...] = (),
    reach: int = 60,
) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...]]:
    """Suprema of a batch of concave functions, and the leftmost arguments that attain them.

    Args:
        phi: takes arguments of shape `(*shape, points)`, one row for each function of the batch.
        shape: of the batch; `()` for one function.
        reach: arguments up to 2^reach are looked at; below 60 only where the maximum is known to be nearer.

    Returns:
        (supremum, argument), both of `shape`. The supremum is `inf` where phi still grows at 2^reach. The argument is
        `inf` or `-inf` where the supremum is approached and not attained: half and twice it cost less than 1e-10.
    """

    def at(t: Float[np.ndarray, "... points"]) -> Float[np.ndarray, "... points"]:
        with np.errstate(all="ignore"):
            # Far out a formula may overflow to inf - inf; a concave function with a finite supremum is -inf there.
            return np.nan_to_num(phi(t), nan=-np.inf, posinf=np.inf, neginf=-np.inf)

    powers = 2.0 ** np.arange(-30, reach + 1)
    coarse = np.concatenate([-powers[::-1], [0.0], powers])
    t = np.broadcast_to(coarse, (*shape, len(coarse)))
    values = at(t)
    grows = (values[..., -1] > values[..., -2] + LIMIT) | (values[..., 0] > values[..., 1] + LIMIT)
    best, where = _best(values, t)
    for _ in range(_ZOOMS):
        left, right = _neighbours(values, t)
        t = left + (right - left) * _FINE
        values = at(t)
        found, argument = _best(values, t)
        where = np.where(found > best, argument, np.where(found == best, np.minimum(where, argument), where))
        best = np.maximum(best, found)
    half_and_twice = at(where[..., None] * np.array([0.5, 2.0])).min(-1)
    runs_off = (np.abs(where) > 1) & (half_and_twice > best - 1e-10)
    return np.where(grows, np.inf, best), np.where(runs_off | grows, np.copysign(np.inf, where), where)


def _best(values: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first = values.argmax(-1, keepdims=True)
    return np.take_along_axis(values, first, -1)[..., 0], np.take_along_axis(t, first, -1)[..., 0]


def _neighbours(values: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first = values.argmax(-1, keepdims=True)
    last = values.shape[-1] - 1
    return (
        np.take_along_axis(t, np.maximum(first - 1, 0), -1),
        np.take_along_axis(t, np.minimum(first + 1, last), -1),
    )
