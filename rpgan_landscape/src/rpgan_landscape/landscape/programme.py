"""The linear programme of a hinge loss: maximise sum_j w_j h((A f)_j), h(t) = -max(0, 1 - t), over |f| <= bound."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog


def hinge_programme(
    A: Float[np.ndarray, "terms points"], w: Float[np.ndarray, " terms"], bound: float
) -> Float[np.ndarray, " points"]:
    """An optimal f. With slacks s >= 1 - A f, s >= 0, it minimises sum_j w_j s_j (HiGHS, a vertex)."""
    terms, points = A.shape
    limits = [(-bound, bound)] * points + [(0, None)] * terms
    found = linprog(
        np.concatenate([np.zeros(points), w]),
        A_ub=np.concatenate([-A, -np.eye(terms)], 1),
        b_ub=-np.ones(terms),
        bounds=limits,
        method="highs",
    )
    if not found.success:
        raise RuntimeError(f"the linear programme of the hinge did not finish: {found.message}")
    return found.x[:points]
