"""The Wasserstein game with 1-Lipschitz critics (section 4): an assignment problem."""

from __future__ import annotations

from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from rpgan_landscape.landscape.states import real_and_fake


def wasserstein(Y: object, X: object) -> float:
    """Exact 1-Wasserstein distance of the empirical measures of n fakes Y and n reals X, both (n,) or (n, d).

    By duality it is sup over 1-Lipschitz f of mean f(x) - mean f(y). Moving the fakes along the optimal matching lowers
    it linearly to 0, so this game has no bad minimum.

    Raises:
        LandscapeError: coinciding real points, or X and Y of different shape.
    """
    real, fake = real_and_fake(X, Y)
    cost = cdist(real, fake)
    return float(cost[linear_sum_assignment(cost)].mean())
