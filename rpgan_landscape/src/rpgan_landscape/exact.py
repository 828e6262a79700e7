"""What one exact-landscape run reports: counts, reachability and paths of one loss (sections 3 and 4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rpgan_landscape.kernels.enumerate_states import enumerate_states
from rpgan_landscape.landscape import Landscape, analyse, descend, value

PATHS = 200  # random states from which a descending path is sought
LARGEST_PATH = 8  # points of the largest of them


def formula(n: int) -> int:
    """n^n - n!: the number of sub-optimal strict local minima that the paper states for its separable losses."""
    return n**n - math.factorial(n)


def landscape_metrics(loss: str, most: int) -> dict[str, Any]:
    """Enumeration for n = 2 .. `most`, and descending paths from random states of up to 8 points.

    Returns:
        for each n `n<n>/strict`, `/bad`, `/unreachable`, `/unreachable_on_data`, `/global_minimum` and
        `/largest_barrier`; over all n `off_formula` (how many n have not n^n - n! bad strict minima), `bad` and
        `unreachable` (sums); for n = 2 the D loss of each state of the two-point table; `paths/found` (share of 200
        random states) and `paths/largest_rise` (of g, on any step of those that were found).
    """
    found: list[Landscape] = [analyse(loss, n) for n in range(2, most + 1)]
    out: dict[str, Any] = {}
    for each in found:
        barriers = [rise for rises in each.escape_barrier_by_occupancy.values() for rise in rises]
        out |= {
            f"n{each.n}/strict": each.strict,
            f"n{each.n}/bad": each.strict_bad,
            f"n{each.n}/unreachable": each.unreach_all,
            f"n{each.n}/unreachable_on_data": each.unreach_full,
            f"n{each.n}/global_minimum": each.global_minimum,
            f"n{each.n}/largest_barrier": max(barriers),
        }
    out["off_formula"] = sum(each.strict_bad != formula(each.n) for each in found)
    out["bad"] = sum(each.strict_bad for each in found)
    out["unreachable"] = sum(each.unreach_all for each in found)
    # Two points: both covered, both fakes on the first, one fake on its partner, on the other's, none.
    for name, state in {
        "covered": (0, 1),
        "collapsed": (0, 0),
        "partner": (0, 2),
        "other": (1, 2),
        "outside": (2, 2),
    }.items():
        out[f"d_loss/{name}"] = 0.0 - value(loss, state)
    return out | path_metrics(loss)


def count_metrics(n: int) -> dict[str, float]:
    """Every state of n points counted (kernel K2) against section 3's closed forms.

    Returns:
        `states`; `off_cycles`, `off_cycles_on_data`: numbers c of cyclic nodes whose count is not the closed form's.
    """
    found = enumerate_states(n)
    falling = [math.perm(n, c) for c in range(n + 1)]
    every = [falling[c] * (c + 1) * (n + 1) ** (n - c - 1) if c < n else falling[n] for c in range(n + 1)]
    on_data = [falling[c] * c * n ** (n - c - 1) if c < n else falling[n] for c in range(n + 1)]
    return {
        "states": float(sum(found.cycles)),
        "off_cycles": float(sum(a != b for a, b in zip(found.cycles, every))),
        "off_cycles_on_data": float(sum(a != b for a, b in zip(found.cycles_on_data, on_data))),
    }


def path_metrics(loss: str) -> dict[str, float]:
    """Whether `descend` reaches a global minimum from random states, and the largest rise of g on its paths."""
    rng = np.random.default_rng(0)
    found, rise = 0, 0.0
    for _ in range(PATHS):
        n = int(rng.integers(2, LARGEST_PATH + 1))
        path = descend(loss, tuple(int(k) for k in rng.integers(0, n + 1, n)))
        if path is not None:
            found += 1
            g = [value(loss, state) for state in path]
            rise = max([rise, *np.diff(g)])
    return {"paths/found": found / PATHS, "paths/largest_rise": rise}
