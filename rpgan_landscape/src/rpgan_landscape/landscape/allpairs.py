"""The inner problem of the all-pairs game (section 3): only the occupied real points S count, m_k fakes on point k.

    n^2 g_A = max_t sum_{i in S} sum_{k in S} m_k h(t_i - t_k)      (h concave, non-decreasing, sup h = 0)

It is concave, does not change when all t shift, and is symmetric in points of equal m, so some optimum has equal t
where m is equal: the variables are the distinct multiplicities, the first of them fixed at 0.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from rpgan_landscape.landscape.concave import maximise_concave
from rpgan_landscape.landscape.games import Function, hinge, logistic
from rpgan_landscape.landscape.programme import hinge_programme

Occupancy = tuple[int, ...]


def solve_support(h: Function, m: Occupancy) -> tuple[float, Float[np.ndarray, " support"]]:
    """(maximum, t) of the problem above for the multiplicities m of S; the logits t start at 0."""
    if not m:
        return 0.0, np.zeros(0)
    distinct, group = np.unique(np.array(m), return_inverse=True)
    group = group.ravel()
    points = np.bincount(group).astype(float)
    weight = np.outer(points, points * distinct)  # of h(t_a - t_b), for groups a and b
    t = np.zeros(len(distinct))
    if len(distinct) > 1:
        t = _newton(weight) if h is logistic else _programme(weight) if h is hinge else _nested(h, weight)
    best = float((weight * h(t[:, None] - t)).sum())
    return best, (t - t[group[0]])[group]


def solve_least_squares(m: Occupancy, n: int) -> tuple[float, Float[np.ndarray, " n"]]:
    """LS is not monotone, so empty reals and the q outside fakes interact with the rest.

        max_a -[sum_i sum_k m_k (1 - a_i + a_k)^2 + q sum_i (a_i - mean a)^2]

    A linear problem. Returns the maximum and the critic values a at the n real points (mean 0); m_k is 0 past the end
    of m. An outside fake has the value mean(a) - 1, which is the best answer to a and gives the second term.
    """
    q = n - sum(m)
    eye, mean = np.eye(n), np.full((n, n), 1 / n)
    rows = [np.sqrt(m_k) * (eye - eye[k]) for k, m_k in enumerate(m)] + [np.sqrt(q) * (eye - mean)]
    target = np.concatenate([np.full(n, np.sqrt(m_k)) for m_k in m] + [np.zeros(n)])
    matrix = np.concatenate(rows)
    a = np.linalg.lstsq(matrix, target)[0]
    return -float(((matrix @ a - target) ** 2).sum()), a - a.mean()


def _newton(weight: Float[np.ndarray, "groups groups"]) -> Float[np.ndarray, " groups"]:
    """Logistic h: damped Newton on a smooth, strictly concave problem."""
    t = np.zeros(len(weight))

    def objective(t: np.ndarray) -> float:
        return float((weight * logistic(t[:, None] - t)).sum())

    for _ in range(100):
        slope = weight * expit(t - t[:, None])  # weight * h'(t_a - t_b)
        gradient = (slope.sum(1) - slope.sum(0))[1:]
        bend = weight * expit(t - t[:, None]) * expit(t[:, None] - t)
        bend = bend + bend.T
        step = np.linalg.solve((np.diag(bend.sum(1)) - bend)[1:, 1:], gradient)
        scale, now = 1.0, objective(t)
        while objective(t + scale * np.append(0, step)) < now and scale > 1e-10:
            scale /= 2
        t[1:] += scale * step
        if np.abs(step).max() < 1e-13:
            break
    return t


def _programme(weight: Float[np.ndarray, "groups groups"]) -> Float[np.ndarray, " groups"]:
    """Hinge h: a linear programme whose constraints are differences, so its vertices are integers."""
    a, b = np.nonzero(~np.eye(len(weight), dtype=bool))
    eye = np.eye(len(weight))
    t = hinge_programme(eye[a] - eye[b], weight[a, b], np.inf)
    return np.round(t - t[0])


def _nested(h: Function, weight: Float[np.ndarray, "groups groups"]) -> Float[np.ndarray, " groups"]:
    """Any h: one guarded maximisation inside the other, for what is left over the others is concave in each variable.

    A user's h may have kinks and no derivative. n < 10 has at most three distinct multiplicities: two variables.
    """

    def fixed(t: Float[np.ndarray, "... groups"]) -> Float[np.ndarray, ...]:
        return (weight * h(t[..., :, None] - t[..., None, :])).sum((-1, -2))

    def over_rest(t: Float[np.ndarray, "... known"]) -> tuple[np.ndarray, np.ndarray]:
        """Best value, and best next variable, when the variables `t` are known."""
        if t.shape[-1] == len(weight):
            return fixed(t), np.zeros(t.shape[:-1])
        # An optimum lies about between the known values: look further than they did.
        reach = 20 + 10 * t.shape[-1]
        return maximise_concave(lambda next: over_rest(_append(t, next))[0], t.shape[:-1], reach)

    t = np.zeros(1)
    while len(t) < len(weight):
        t = np.append(t, over_rest(t)[1])
    return t


def _append(t: np.ndarray, next: np.ndarray) -> np.ndarray:
    known = np.broadcast_to(t[..., None, :], (*next.shape, t.shape[-1]))
    return np.concatenate([known, next[..., None]], -1)
