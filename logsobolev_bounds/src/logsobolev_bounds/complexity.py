"""The complexity C(lambda, p) of a prior on examples (section 3.8), and what its ingredients look like draw by draw.

K explicit draws of all weights, N examples: losses [K, N] and squared input gradients [K, N] under an assumed
covariance of the inputs; from these psi and its bound by the log-Sobolev inequality on a grid of alpha = lambda / m,
for each draw; and C = ln mean_k exp(m bound_k), with the effective sample size that says whether to believe it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from shared.errors import UserError
from torch import Tensor

from logsobolev_bounds.data import class_covariances, covariance, within_covariance
from logsobolev_bounds.errors import check_covariance
from logsobolev_bounds.gradnorm import MLPDraws, input_grad_sq
from logsobolev_bounds.layers import Weights
from logsobolev_bounds.mgf import class_corrected, log_c, lsi, psi
from logsobolev_bounds.models import MLP, BayesNet, one

Mode = Literal["identity", "total", "within", "class_corrected"]
T_GRID = 65
BUDGET = 256 * 2**20  # bytes that a chunk of examples may take, unless said otherwise
UNITS = 120  # numbers that a convolutional network's graph keeps for each input of an example, about


@dataclass(frozen=True)
class PerDraw:
    """What the inequality says of each draw: everything that C needs.

    Args:
        alphas: [T], a uniform grid from 0. bound: [K, T], on the log-MGF psi of these examples.
        loss: [K, N]. grad_sq: [K], means over examples. mode: the covariance that was assumed.
    """

    alphas: Float[Tensor, " T"]
    bound: Float[Tensor, "K T"]
    loss: Float[Tensor, "K N"]
    grad_sq: Float[Tensor, " K"]
    mode: Mode

    def ratio(self, alpha: float) -> Float[Tensor, " K"]:
        """psi / bound of every draw at the point of the grid next to alpha: above 1 the inequality is false there."""
        at = min(len(self.alphas) - 1, round(alpha / float(self.alphas[1])))
        exact = psi(self.loss, self.alphas[at : at + 1])[:, 0]
        return exact / self.bound[:, at].clamp_min(1e-300)

    def complexity(self, lam: float, m: int) -> tuple[float, float]:
        """(C, effective sample size) at lambda; alpha = lambda / m has to be a point of the grid.

        Raises:
            ComplexityError (a ValueError): lambda is not positive or not on the grid, m < 1.
        """
        if not lam > 0 or m < 1:
            raise ComplexityError(f"lambda is {lam:g} and m {m}: lambda has to be > 0 and m at least 1")
        at = lam / m / float(self.alphas[1])
        if abs(at - round(at)) > 1e-6 * max(1.0, at) or round(at) >= len(self.alphas):
            raise ComplexityError(
                f"lambda = {lam:g} is not on the grid of alpha = lambda / m up to {self.alphas[-1]:g}"
            )
        found = log_c(m * self.bound[:, round(at)])
        return float(found.C), float(found.ess)


class ComplexityError(UserError, ValueError):
    """Settings that no complexity can be computed with."""


def grid(largest: float, points: int = T_GRID) -> Float[Tensor, " T"]:
    """alpha from 0 to `largest`, in float64.

    Raises:
        ComplexityError (a ValueError): fewer than 17 points, which the trapezoid rule needs.
    """
    if points < 17:
        raise ComplexityError(f"T is {points}: the trapezoid rule needs at least 17 points")
    if not largest > 0:
        raise ComplexityError(f"lambda / m is {largest}: it has to be > 0")
    return torch.linspace(0, largest, points, dtype=torch.float64)


def loss_and_gradient(
    net: BayesNet,
    stacked: Sequence[Weights],
    x: Float[Tensor, "N d"],
    y: Int64[Tensor, " N"],
    sigma: Float[Tensor, "d d"] | None = None,
    budget: int = BUDGET,
) -> tuple[Float[Tensor, "K N"], Float[Tensor, "K N"]]:
    """Cross-entropy and g = grad_x' Sigma grad_x of every draw at every example (Sigma None: the identity).

    One draw serves all examples. The result does not depend on the chunks that `budget` (bytes) makes.
    """
    if not len(y):
        raise ComplexityError("there are no examples: a mean over none does not exist")
    draws, entry = len(stacked[0].weight), x.element_size()
    if isinstance(net, MLP):
        # Pairs of draw and example held at once, each with its units' activations and gradients.
        widest = max(w.weight.shape[1] for w in stacked)
        weights = [w.weight for w in stacked]
        biases = [w.bias for w in stacked if w.bias is not None] or None
        pairs = max(draws, budget // (4 * entry * len(stacked) * widest))
        return input_grad_sq(MLPDraws(weights, biases), x, y, sigma, chunk=pairs)
    functions = [partial(net.at, one(stacked, k)) for k in range(draws)]
    return input_grad_sq(functions, x, y, sigma, chunk=max(1, budget // (entry * UNITS * x.shape[1])))


def forward_chunk(net: BayesNet, x: Float[Tensor, "N d"], budget: int) -> int:
    """Examples that a forward pass of one draw may take at once within `budget` bytes."""
    held = UNITS // 3 * x.shape[1]  # nothing is kept for a backward pass
    if isinstance(net, MLP):
        held = 3 * max(layer.mu.shape[0] for layer in net.layers)
    return max(1, budget // (x.element_size() * held))


def per_draw(
    net: BayesNet,
    stacked: Sequence[Weights],
    x: Float[Tensor, "N d"],
    y: Int64[Tensor, " N"],
    alphas: Float[Tensor, " T"],
    mode: Mode = "total",
    sigma: Float[Tensor, "d d"] | None = None,
    budget: int = BUDGET,
) -> PerDraw:
    """psi and its log-Sobolev bound for each draw.

    Args:
        mode: `identity` (the papers' Euclidean norm), `total`, `within` (pooled within-class covariance) or
            `class_corrected` (section 3.6: each class with its own covariance, and the entropy between classes).
        sigma: a covariance of one's own instead of the examples' (not for class_corrected).

    Raises:
        ComplexityError, BoundError, BadData (ValueErrors): an unknown mode, a covariance that is none, a class with
            one example.
    """
    if mode not in get_args(Mode):
        raise ComplexityError(f"unknown covariance {mode!r}: there are {', '.join(get_args(Mode))}")
    if sigma is not None:
        if mode == "class_corrected":
            raise ComplexityError("class_corrected takes the covariance of every class: leave sigma out, or use total")
        check_covariance(sigma, x.shape[1])
    if mode == "class_corrected":
        draws = len(stacked[0].weight)
        loss, g = (torch.empty(draws, len(y), dtype=torch.float64) for _ in range(2))
        for label, own in class_covariances(x, y).items():
            rows = (y == label).nonzero()[:, 0]
            found = loss_and_gradient(net, stacked, x[rows], y[rows], own.to(x), budget)
            loss[:, rows.cpu()], g[:, rows.cpu()] = (v.double().cpu() for v in found)
        bound = class_corrected(loss, g, y.cpu(), alphas)
    else:
        if sigma is None and mode != "identity":
            sigma = covariance(x) if mode == "total" else within_covariance(x, y)
        loss, g = (
            v.double().cpu()
            for v in loss_and_gradient(net, stacked, x, y, None if sigma is None else sigma.to(x), budget)
        )
        bound = lsi(loss, g, alphas)
    return PerDraw(alphas, bound, loss, g.mean(1), mode)
