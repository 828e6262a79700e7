"""What one two-cluster training program is (sections 7 and 8 of the specification), and the form of its parameters.

Shared by the PyTorch and the Triton program; imports PyTorch only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from shared.errors import UserError
from torch import Tensor

SEPARABLE = ("js", "ls", "hinge")
RELATIVISTIC = ("rs", "rp_ls", "rp_hinge")
LOSSES = (*SEPARABLE, *RELATIVISTIC)
PAIRINGS = ("fixed", "shuffled", "all_pairs")
GENERATORS = ("nonsaturating", "minimax")
# The cost u(t) of a critic difference t on the wrong side that a loss is made of, u(t) = -h(-t): relativistic losses
# are means of u(f(y) - f(x)), separable ones of u(-f(x)) and u(f(y)) (LS: u(f(y) - 1)).
COSTS = {"js": "logistic", "rs": "logistic", "ls": "ls", "rp_ls": "ls", "hinge": "hinge", "rp_hinge": "hinge"}


@dataclass(frozen=True)
class Recipe:
    """Losses and schedule of a two-cluster run; the defaults are the reference's, RS with fixed pairing.

    Args:
        loss: js, ls, hinge (separable) or rs, rp_ls, rp_hinge (relativistic).
        pairing: of a relativistic loss: fixed (by index), shuffled (a new random pairing at every step of either
            player) or all_pairs.
        halved: the D loss of a separable loss times 1/2, as in the reference's two-cluster run; G's loss is not.
        generator: nonsaturating (G's loss is D's with the roles of real and fake exchanged; hinge: -mean f(y)) or
            minimax (G's loss is minus D's).
        d_steps, g_steps: steps of each player in one iteration.
        momentum: of the gradient descent, `v = momentum v + gradient; w = w - lr v`.

    Raises:
        UserError: an unknown name, a pairing or a halved loss that means nothing for this loss, or a step count < 1.
    """

    loss: str = "rs"
    pairing: str = "fixed"
    halved: bool = False
    generator: str = "nonsaturating"
    d_steps: int = 10
    g_steps: int = 10
    momentum: float = 0.9

    def __post_init__(self) -> None:
        for what, value, known in (
            ("loss", self.loss, LOSSES),
            ("pairing", self.pairing, PAIRINGS),
            ("generator", self.generator, GENERATORS),
        ):
            if value not in known:
                raise UserError(f"unknown {what} {value!r}: use one of {', '.join(known)}")
        if self.relativistic and self.halved:
            raise UserError(f"halved applies to the D loss of {', '.join(SEPARABLE)}, not to {self.loss}: leave it out")
        if not self.relativistic and self.pairing != "fixed":
            raise UserError(f"loss {self.loss} does not pair points: leave the pairing at fixed")
        if self.d_steps < 1 or self.g_steps < 1:
            raise UserError(f"d_steps = {self.d_steps} and g_steps = {self.g_steps}: both have to be at least 1")

    @property
    def relativistic(self) -> bool:
        return self.loss in RELATIVISTIC

    @property
    def cost(self) -> str:
        """Which u(t): logistic, softplus(t); ls, (1 + t)^2; hinge, max(0, 1 + t)."""
        return COSTS[self.loss]

    @property
    def factor(self) -> float:
        """Of the D loss: 1/2 where it is halved."""
        return 0.5 if self.halved else 1.0

    @property
    def steps(self) -> int:
        """Steps of both players in one iteration."""
        return self.d_steps + self.g_steps


class Players(NamedTuple):
    """All weights of S GANs and their velocities, a row per GAN, in the order of `parameters_to_vector`.

    One row holds W1 [w, 1], b1 [w], W2 [w, w], b2 [w], W3 [1, w], b3 [1] of a network of two hidden layers of width w.
    """

    d: Tensor
    g: Tensor
    d_velocity: Tensor
    g_velocity: Tensor


def parameter_count(width: int) -> int:
    """Of a network 1 - width - width - 1: 141 for width 10, 46 for width 5."""
    return width * width + 4 * width + 1


def width_of(parameters: Tensor) -> int:
    """Width of the hidden layers of networks whose rows of parameters these are.

    Raises:
        ValueError: no width gives rows of this length.
    """
    count = parameters.shape[1]
    width = math.isqrt(count + 3) - 2
    if width < 1 or parameter_count(width) != count:
        raise ValueError(f"{count} parameters are not those of a network 1 - w - w - 1 (w^2 + 4 w + 1)")
    return width
