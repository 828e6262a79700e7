"""Learning rate over the iterations (section 6): a linear warm-up, then drops by a factor."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def factor(
    iterations: int,
    warmup: int = 1000,
    warmup_from: float = 0.2,
    drops: Sequence[float] = (14_000, 19_000),
    by: float = 0.1,
) -> Callable[[int], float]:
    """What the learning rate is multiplied by at iteration i, from 0.

    Args:
        iterations: of the whole run; drops below 1 are parts of it.
        warmup: iterations from `warmup_from` to 1.
        drops: iterations at which the rate is multiplied by `by`, each.
    """
    at = [drop if drop >= 1 else drop * iterations for drop in drops]

    def of(i: int) -> float:
        rise = warmup_from + (1 - warmup_from) * i / warmup if i < warmup else 1.0
        return rise * by ** sum(i >= drop for drop in at)

    return of
