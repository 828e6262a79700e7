"""What a plateau of the critic's loss says about collapse (section 11 of the specification).

With real mass p_k and fake mass q_k on mode k, and a critic that tells the modes apart but nothing within one, D's loss
cannot fall below

    separable         sum_k inf_t [p_k h1(t) + q_k h2(-t)]      (times 1/2 where the loss is halved)
        logistic      -sum_k [p_k log(p_k / (p_k + q_k)) + q_k log(q_k / (p_k + q_k))]
        ls            sum_k p_k q_k / (p_k + q_k)
        hinge         sum_k 2 min(p_k, q_k)
    relativistic      h(0) sum of p_k over the modes with fakes

the last for fakes that share these modes as the reals do and whose partners are spread over all modes like the reals.
Training approaches the bound from above, and stays there as long as the fakes stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from rpgan_landscape.losses import LossError, RelativisticLoss, named_loss

AT_ZERO = {"logistic": math.log(2), "hinge": 1.0, "ls": 1.0}  # h(0)
MOST_MODES = 12  # of unequal mass: every subset is a level


@dataclass(frozen=True)
class Plateau:
    """One level of collapse.

    Args:
        modes: the modes that have fakes, shared in proportion to the reals'.
        d_loss: the lowest D loss there.
        barrier: how far the value of the game rises when one of n fakes leaves, from the mode where this costs least; 0
            where it leaves freely or has no reason to; None where no closed form is known (all pairs).
    """

    modes: tuple[int, ...]
    d_loss: float
    barrier: float | None


@dataclass(frozen=True)
class Diagnosis:
    """All levels, the most collapsed first, and those that the observed D loss may stand on, the nearest first.

    `str()` says it in one line.
    """

    loss: str
    d_loss: float
    n: int
    masses: tuple[float, ...]
    plateaus: tuple[Plateau, ...]
    matches: tuple[Plateau, ...]

    def __str__(self) -> str:
        k = len(self.masses)
        equilibrium = f"all {k} modes covered: {self.plateaus[-1].d_loss:.4f}"
        if not self.matches:
            return f"D loss {self.d_loss:.4f} is on no plateau of {self.loss}: D is still moving; {equilibrium}"
        named = [f"{_words(p.modes, k)} ({p.d_loss:.4f})" for p in self.matches]
        return f"D loss {self.d_loss:.4f} fits fakes on {' or '.join(named)}; {equilibrium}"


def diagnose(
    loss_name: str,
    d_loss: float,
    n: int,
    modes: int | Sequence[float],
    *,
    halve_separable: bool | None = None,
    tolerance: float = 0.03,
) -> Diagnosis:
    """Predicted plateaus of the D loss for collapse onto any of the modes, and which of them `d_loss` matches.

    k equal modes with all fakes on one: JS 1/2 [1/k log(1 + k) + log((1 + k)/k)] (k = 2: 0.4774), RS (log 2)/k.

    Args:
        loss_name: as `named_loss` takes it, but not `w` or `ra_*`. `rp_*` is for pairs that stay; where they are
            redrawn, as in minibatches, the objective is that of `allpairs_*` in expectation: the same plateaus, but
            with walls around them.
        d_loss: observed D loss, best a mean over a stretch where it stands still.
        n: real (and fake) points.
        modes: number of equal modes, or the mass of each (in any unit).
        halve_separable: as in `named_loss`.
        tolerance: how near a plateau is a match, as a part of the D loss with all modes covered. Measured windows of
            100 iterations and more lie within 3 %.

    Raises:
        LossError (a ValueError): unknown loss, or one without plateaus; masses that are not positive, more than n
            modes, or too many of unequal mass; a d_loss that is not finite.
    """
    loss = named_loss(loss_name, halve_separable=halve_separable)
    if loss.kind == "w" or loss.pairing == "average":
        why = "it depends on the critic's slope" if loss.kind == "w" else "no closed form is known"
        raise LossError(f"{loss_name} has no plateau that could be predicted ({why}): use another loss")
    masses = _masses(modes, n)
    if not math.isfinite(d_loss):
        raise LossError(f"the D loss is {d_loss}: training has diverged, there is no plateau to look for")
    levels = [_level(loss, masses, chosen, n) for chosen in _coverings(masses)]
    levels.sort(key=lambda level: (level.d_loss, level.modes))
    reach = tolerance * levels[-1].d_loss
    near = [p for p in levels if abs(p.d_loss - d_loss) <= reach]
    near.sort(key=lambda p: abs(p.d_loss - d_loss))
    return Diagnosis(loss_name, d_loss, n, tuple(masses.tolist()), tuple(levels), tuple(near))


def separable_plateau(loss: RelativisticLoss, p: Float[np.ndarray, " k"], q: Float[np.ndarray, " k"]) -> float:
    """Lowest D loss of a separable loss for real masses p > 0 and fake masses q >= 0 on the modes.

    Fakes outside all modes (where q sums to less than 1) cost D nothing.
    """
    if loss.kind == "logistic":
        fakes = np.where(q > 0, q * np.log(np.where(q > 0, q, 1) / (p + q)), 0)
        total = -(p * np.log(p / (p + q)) + fakes).sum()
    elif loss.kind == "ls":
        total = (p * q / (p + q)).sum()
    else:
        total = 2 * np.minimum(p, q).sum()
    return float(total / 2 if loss.halve_separable else total)


def _level(loss: RelativisticLoss, p: np.ndarray, chosen: tuple[int, ...], n: int) -> Plateau:
    """The plateau with all fakes on the `chosen` modes."""
    q = np.zeros_like(p)
    q[list(chosen)] = p[list(chosen)] / p[list(chosen)].sum()
    covered = len(chosen) == len(p)
    if loss.pairing != "separable":
        here = AT_ZERO[loss.kind] * float(p[list(chosen)].sum())
        return Plateau(chosen, here, None if loss.pairing == "all_pairs" and not covered else 0.0)
    here = separable_plateau(loss, p, q)
    if covered:
        return Plateau(chosen, here, 0.0)
    without = []
    for k in {p[k]: k for k in chosen}.values():  # modes of equal mass are equally hard to leave
        fewer = q.copy()
        fewer[k] = max(q[k] - 1 / n, 0)
        without.append(separable_plateau(loss, p, fewer))
    return Plateau(chosen, here, here - max(without))


def _masses(modes: int | Sequence[float], n: int) -> np.ndarray:
    if n < 1:
        raise LossError(f"n is {n}: a game has at least one real point")
    count = modes if isinstance(modes, int) else len(modes)
    if not 1 <= count <= n:
        raise LossError(f"{count} modes and n = {n} points: give from 1 to n modes")
    p = np.ones(count) if isinstance(modes, int) else np.array(modes, dtype=np.float64)
    if not (np.isfinite(p) & (p > 0)).all():
        raise LossError(f"masses {list(p)}: every mode needs a positive mass (leave out the empty ones)")
    if len(set(p.tolist())) > 1 and count > MOST_MODES:
        raise LossError(f"{count} modes of unequal mass have 2^{count} levels: {MOST_MODES} at most, or their number")
    return p / p.sum()


def _coverings(p: np.ndarray) -> list[tuple[int, ...]]:
    """Sets of modes that differ in their plateau: for equal modes only how many counts."""
    k = len(p)
    if len(set(p.tolist())) == 1:
        return [tuple(range(size)) for size in range(1, k + 1)]
    return [chosen for size in range(1, k + 1) for chosen in combinations(range(k), size)]


def _words(chosen: tuple[int, ...], k: int) -> str:
    if len(chosen) == k:
        return f"all {k} modes"
    return f"{len(chosen)} of {k} modes" if chosen == tuple(range(len(chosen))) else f"modes {list(chosen)} of {k}"
