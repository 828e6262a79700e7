"""The games (section 2 of the specification): what the critic maximises, and how real and fake points meet in it.

    separable   g_S(Y) = sup_f 1/(2n) sum_i [h1(f(x_i)) + h2(-f(y_i))]
    rp          g_R(Y) = sup_f 1/n sum_i h(f(x_i) - f(y_i))             (index i pairs x_i with y_i)
    allpairs    g_A(Y) = sup_f 1/n^2 sum_ij h(f(x_i) - f(y_j))

Every h is concave; f is any function on R^d. A game is a registered name, or an object with `family` and its functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from rpgan_landscape.landscape.concave import maximise_concave
from rpgan_landscape.landscape.errors import LandscapeError

Family = Literal["separable", "rp", "allpairs"]
Function = Callable[[np.ndarray], np.ndarray]
FUNCTIONS: dict[str, tuple[str, ...]] = {"separable": ("h1", "h2"), "rp": ("h",), "allpairs": ("h",)}
TOLERANCE = 1e-9  # ties and strictness


def logistic(t: np.ndarray) -> np.ndarray:
    """-log(1 + e^-t)"""
    return -np.logaddexp(0, -t)


def hinge(t: np.ndarray) -> np.ndarray:
    """-max(0, 1 - t)"""
    return -np.maximum(0, 1 - t)


def least_squares(t: np.ndarray) -> np.ndarray:
    """-(1 - t)^2"""
    return -((1 - t) ** 2)


def least_squares_zero(t: np.ndarray) -> np.ndarray:
    """-t^2: the fakes' term of LS with targets 0 and 1"""
    return -(t**2)


def linear(t: np.ndarray) -> np.ndarray:
    """t: Wasserstein"""
    return t


# Slopes for the numerical inner maximisation, and the leftmost argument where each supremum is attained.
SLOPES: dict[Function, Function] = {
    logistic: lambda t: np.exp(-np.logaddexp(0, t)),
    least_squares: lambda t: 2 * (1 - t),
    least_squares_zero: lambda t: -2 * t,
}
ATTAINED: dict[Function, float] = {logistic: math.inf, hinge: 1.0, least_squares: 1.0, least_squares_zero: 0.0}


def _js(m: int) -> tuple[float, float]:
    """xi(m) = m log m - (m + 1) log(m + 1), at t = -log m."""
    return (m * math.log(m) - (m + 1) * math.log(m + 1), -math.log(m)) if m else (0.0, math.inf)


def _ls(m: int) -> tuple[float, float]:
    """xi(m) = -m / (1 + m), at t = 1 / (1 + m)."""
    return -m / (1 + m), 1 / (1 + m)


def _hinge(m: int) -> tuple[float, float]:
    """xi(0) = 0 at every t >= 1; xi(1) = -2 on all of [-1, 1], of which 0; xi(m) = -2 at t = -1 for m > 1."""
    return (-2.0 if m else 0.0), (1.0, 0.0)[m] if m < 2 else -1.0


@dataclass(frozen=True, eq=False)
class Game:
    """A loss of one's own: a family, its concave functions on float64 arrays, and their suprema where known.

    Any object with these attributes will do. `separable` needs h1 and h2, `rp` and `allpairs` need h (for `allpairs`
    non-decreasing). A supremum that is None is computed to 1e-10. `xi`, for the registered separable games, is the
    closed form m -> (xi(m), where the critic attains it); without it both are computed.
    """

    family: Family
    h1: Function = None  # type: ignore[assignment]  # None: not of this family, or (suprema) left to `resolve`
    h2: Function = None  # type: ignore[assignment]
    h: Function = None  # type: ignore[assignment]
    sup_h1: float = None  # type: ignore[assignment]
    sup_h2: float = None  # type: ignore[assignment]
    sup_h: float = None  # type: ignore[assignment]
    name: str = "user-defined"
    xi: Callable[[int], tuple[float, float]] | None = None


def _separable(name: str, h1: Function, h2: Function, xi: Callable[[int], tuple[float, float]] | None) -> Game:
    sup = math.inf if h1 is linear else 0.0
    return Game("separable", h1=h1, h2=h2, sup_h1=sup, sup_h2=sup, name=name, xi=xi)


def _relativistic(name: str, family: Family, h: Function) -> Game:
    return Game(family, h=h, sup_h=math.inf if h is linear else 0.0, name=name)


GAMES: dict[str, Game] = {
    game.name: game
    for game in (
        _separable("js", logistic, logistic, _js),
        _separable("ls", least_squares, least_squares_zero, _ls),
        _separable("hinge", hinge, hinge, _hinge),
        _separable("w", linear, linear, None),
        _relativistic("rs", "rp", logistic),
        _relativistic("rp_hinge", "rp", hinge),
        _relativistic("rp_ls", "rp", least_squares),
        _relativistic("rp_w", "rp", linear),
        _relativistic("allpairs_logistic", "allpairs", logistic),
        _relativistic("allpairs_hinge", "allpairs", hinge),
        _relativistic("allpairs_ls", "allpairs", least_squares),
    )
}
ALIASES = {"allpairs": "allpairs_logistic"}


def resolve(loss: Any) -> Game:
    """The game behind a name or a user's object, its functions checked and its suprema known.

    Raises:
        LandscapeError: the name is unknown (the known ones are listed); the object lacks a function of its family, or
            one is not concave, has no finite supremum, or (`allpairs`) decreases somewhere.
    """
    if isinstance(loss, str):
        name = ALIASES.get(loss, loss)
        if name not in GAMES:
            raise LandscapeError(f"unknown loss {loss!r}: use one of {', '.join([*GAMES, *ALIASES])}")
        return GAMES[name]
    if any(loss is game for game in GAMES.values()):
        return cast(Game, loss)
    family = getattr(loss, "family", None)
    if family not in FUNCTIONS:
        raise LandscapeError(f"the loss's `family` is {family!r}: use {', '.join(FUNCTIONS)}")
    found: dict[str, Any] = {}
    for name in FUNCTIONS[family]:
        h = getattr(loss, name, None)
        if not callable(h):
            raise LandscapeError(f"a {family} loss needs {' and '.join(FUNCTIONS[family])}: `{name}` is not a function")
        found[name] = h
        found[f"sup_{name}"] = _check(h, name, getattr(loss, f"sup_{name}", None), monotone=family == "allpairs")
    return Game(
        family, **found, name=getattr(loss, "name", "user-defined"), xi=loss.xi if isinstance(loss, Game) else None
    )


# Around the origin, where losses bend, and coarser out to where they are nearly straight.
_GRIDS = (np.arange(-64, 65) / 16.0, np.arange(-64, 65) / 2.0)


def _check(h: Function, name: str, sup: float | None, monotone: bool) -> float:
    """The supremum of h, once h has been seen to be concave (for `monotone`: non-decreasing) on a grid."""
    for t in _GRIDS:
        try:
            values = np.asarray(h(t.copy()), dtype=np.float64)
        except Exception as error:
            raise LandscapeError(
                f"`{name}` has to take a float64 array and return one: it failed with {type(error).__name__}: "
                f"{' '.join(str(error).split())}"
            ) from error
        if values.shape != t.shape or not np.isfinite(values).all():
            raise LandscapeError(f"`{name}` has to return one finite number for each number of a float64 array")
        rounding = TOLERANCE * (1 + np.abs(values))
        dips = np.flatnonzero(values[:-2] + values[2:] - 2 * values[1:-1] > 4 * rounding[1:-1])
        if len(dips):
            raise LandscapeError(
                f"`{name}` is not concave (near t = {t[dips[0] + 1]:g}): only concave losses have these values"
            )
        falls = np.flatnonzero(np.diff(values) < -2 * rounding[1:])
        if monotone and len(falls):
            raise LandscapeError(
                f"`{name}` decreases near t = {t[falls[0] + 1]:g}: an allpairs loss has to be non-decreasing"
            )
        if sup is not None and values.max() > sup + TOLERANCE:
            raise LandscapeError(f"`{name}` reaches {values.max():g}, above the given sup_{name} = {sup:g}: correct it")
    if sup is None:
        sup = float(maximise_concave(h)[0])
    if not math.isfinite(sup):
        raise LandscapeError(
            f"`{name}` has an infinite supremum, or one approached too slowly to be found: "
            f"give sup_{name} if it is finite"
        )
    return float(sup)


def require_finite(game: Game) -> None:
    """Raises LandscapeError for the Wasserstein games, whose supremum over all critics is infinite."""
    if math.inf in (game.sup_h1, game.sup_h2, game.sup_h):
        raise LandscapeError(
            f"{game.name}: the supremum over all critics is infinite, so no landscape of states exists; "
            f"with 1-Lipschitz critics the value depends on coordinates: value({game.name!r}, Y, X, lipschitz=1)"
        )


def attained(h: Function) -> float:
    """The leftmost t where h attains its supremum; +-inf where h only approaches it."""
    return ATTAINED[h] if h in ATTAINED else float(maximise_concave(h)[1])
