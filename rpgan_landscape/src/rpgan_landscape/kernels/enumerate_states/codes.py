"""Occupancies of up to n fakes on n real points, and a numbering of them that a sum over the points gives."""

from __future__ import annotations

import itertools
from functools import lru_cache

BINS = 1024
MOST = 9


@lru_cache
def occupancies(n: int) -> tuple[tuple[int, ...], ...]:
    """Multiplicities in decreasing order, zeros left out, of 0 to n fakes on data; lexicographic."""

    def parts(total: int, largest: int) -> list[tuple[int, ...]]:
        if total == 0:
            return [()]
        return [(k, *rest) for k in range(min(total, largest), 0, -1) for rest in parts(total - k, k)]

    return tuple(sorted(itertools.chain.from_iterable(parts(total, total) for total in range(n + 1))))


@lru_cache
def weights(n: int) -> tuple[int, int]:
    """(A, B) for which `sum m + A sum m^2 + B sum m^3` modulo 1024 differs for all occupancies m of n points."""
    for a in range(1, BINS):
        for b in range(1, BINS):
            if len({code(m, a, b) for m in occupancies(n)}) == len(occupancies(n)):
                return a, b
    raise ValueError(f"no numbering of the occupancies of {n} points in {BINS} bins")


def code(occupancy: tuple[int, ...], a: int, b: int) -> int:
    return sum(m + a * m**2 + b * m**3 for m in occupancy) % BINS
