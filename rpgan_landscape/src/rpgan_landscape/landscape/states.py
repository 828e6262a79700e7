"""States (section 3): which real point each fake lies on, or none ("outside", code n). Only this pattern matters.

State number s of the (n + 1)^n has the code of fake i as digit i in base n + 1, fake 0 the most significant, so that
an array over all states is a grid with one axis of length n + 1 for each fake.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist

from rpgan_landscape.landscape.errors import LandscapeError

State = tuple[int, ...]


def points(X: Float[np.ndarray, "n d"] | Sequence, name: str) -> Float[np.ndarray, "n d"]:
    """Coordinates as an (n, d) array of finite float64; a flat list is n points on the line.

    Raises:
        LandscapeError: no point, not finite, or not an array of points.
    """
    try:
        array = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError):
        raise LandscapeError(f"{name} has to be an array of n points, (n,) or (n, d)") from None
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.size == 0:
        raise LandscapeError(f"{name} has to be an array of n >= 1 points, (n,) or (n, d), not of shape {np.shape(X)}")
    if not np.isfinite(array).all():
        raise LandscapeError(f"{name} holds a coordinate that is not finite")
    return array


def real_and_fake(X: object, Y: object) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    """Real and fake points, checked against each other.

    Raises:
        LandscapeError: two real points coincide (their indices are named), or X and Y differ in number or dimension.
    """
    real, fake = points(X, "X"), points(Y, "Y")  # type: ignore[arg-type]
    if real.shape != fake.shape:
        raise LandscapeError(
            f"X has shape {real.shape} and Y {fake.shape}: n real and n fake points of one dimension are needed"
        )
    _, first, inverse = np.unique(real, axis=0, return_index=True, return_inverse=True)
    twins = np.flatnonzero(first[inverse.ravel()] != np.arange(len(real)))
    if len(twins):
        raise LandscapeError(
            f"real points {first[inverse.ravel()[twins[0]]]} and {twins[0]} coincide: real points have to be distinct"
        )
    return real, fake


def pattern(X: object, Y: object, tol: float = 0.0) -> State:
    """The state of fakes Y among reals X, both (n,) or (n, d): for each fake, the real point within `tol`, or n.

    `tol` is a Euclidean distance in the units of X; 0 asks for exact equality. Among several the nearest counts.

    Raises:
        LandscapeError: as `real_and_fake`, or `tol` is negative.
    """
    real, fake = real_and_fake(X, Y)
    if not tol >= 0:
        raise LandscapeError(f"tol is {tol}: a distance >= 0 is needed")
    apart = cdist(fake, real) if tol else np.where((fake[:, None] == real[None]).all(2), 0.0, np.inf)
    return tuple(int(k) for k in np.where(apart.min(1) <= tol, apart.argmin(1), len(real)))


def check_states(states: object) -> Int[np.ndarray, "states n"]:
    """States as an integer array, one row each.

    Raises:
        LandscapeError: not integers, n < 1, or a code outside 0..n.
    """
    try:
        array = np.asarray(states)
    except ValueError:  # rows of different lengths
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] < 1 or not np.issubdtype(array.dtype, np.integer):
        raise LandscapeError("a state is n >= 1 integers: for each fake the index of its real point, or n for outside")
    n = array.shape[1]
    if array.size and not np.isin(array, range(n + 1)).all():
        raise LandscapeError(
            f"with n = {n} a state holds codes 0..{n} ({n} is outside), not {array.min()}..{array.max()}"
        )
    return array


def decode(numbers: Int[np.ndarray, " states"], n: int) -> Int[np.ndarray, "states n"]:
    """States (one row each) of these state numbers."""
    powers = (n + 1) ** np.arange(n - 1, -1, -1)
    return (numbers[:, None] // powers % (n + 1)).astype(np.int8)


def multiplicities(states: Int[np.ndarray, "states n"]) -> Int[np.ndarray, "states n"]:
    """m_k, the number of fakes on each real point k."""
    return np.stack([(states == k).sum(1, dtype=np.int16) for k in range(states.shape[1])], 1)


def cyclic_nodes(states: Int[np.ndarray, "states n"]) -> Int[np.ndarray, " states"]:
    """c, the number of nodes on cycles of the functional graph i -> k (y_i = x_k); "outside" ends a walk.

    After n steps every walk is on a cycle or outside, and every cyclic node is where some walk ends.
    """
    count, n = states.shape
    walk = np.concatenate([states, np.full((count, 1), n, states.dtype)], 1).astype(np.intp)
    for _ in range((n - 1).bit_length()):  # walk of 1, 2, 4, ... >= n steps
        walk = np.take_along_axis(walk, walk, 1)
    ends = np.zeros((count, n + 1), bool)
    np.put_along_axis(ends, walk, True, 1)
    return ends[:, :n].sum(1)


def occupancy(state: Sequence[int]) -> tuple[int, ...]:
    """The multiplicities m_k > 0 in decreasing order."""
    n = len(state)
    counts = np.bincount(np.asarray(state), minlength=n + 1)[:n]
    return tuple(int(m) for m in sorted(counts[counts > 0], reverse=True))


def occupancy_codes(states: Int[np.ndarray, "states n"]) -> Int[np.ndarray, " states"]:
    """A number that is the same for two states iff their sorted occupancies are: sum_k (n + 1)^(m_k - 1) over m_k > 0.

    The digits count the real points of each multiplicity; the largest number is below (n + 1)^n, so n <= 15 fits int64.
    """
    n = states.shape[1]
    table = np.array([0] + [(n + 1) ** (m - 1) for m in range(1, n + 1)], np.int64)
    return table[multiplicities(states)].sum(1)
