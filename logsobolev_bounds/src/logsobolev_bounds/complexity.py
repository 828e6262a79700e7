"""The complexity C(lambda, p) of a prior on examples (section 3.8), and what its ingredients look like draw by draw.

K explicit draws of all weights, N examples: losses [K, N] and squared input gradients [K, N] under an assumed
covariance of the inputs; from these psi and its bound by the log-Sobolev inequality on a grid of alpha = lambda / m,
for each draw; and C = ln mean_k exp(m bound_k), with the effective sample size that says whether to believe it.

Draws are made, measured and reduced to a few numbers each in groups that a memory budget holds (`of_prior`), whatever
their number; where a file is given, it keeps what the groups so far have left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int64
from shared.errors import UserError
from shared.resume import load_state, save_state
from torch import Tensor

from logsobolev_bounds.data import BUDGET, class_covariances, covariance, within_covariance
from logsobolev_bounds.errors import check_covariance
from logsobolev_bounds.gradnorm import MLPDraws, input_grad_sqs
from logsobolev_bounds.layers import Weights
from logsobolev_bounds.mgf import class_corrected, log_c, lsi, psi
from logsobolev_bounds.models import MLP, BayesNet, one

Mode = Literal["identity", "total", "within", "class_corrected"]
T_GRID = 65
UNITS = 120  # numbers that a convolutional network's graph keeps for each input of an example, about
WEIGHT_COPIES = 5  # of a draw's weights while it is made
ROWS = 12  # float64 numbers for each pair of draw and example: the loss, norms under each covariance, their moments


@dataclass(frozen=True)
class PerDraw:
    """What the inequality says of each draw: everything that C needs.

    Args:
        alphas: [T], a uniform grid from 0. bound: [K, T], on the log-MGF psi of these examples.
        ratio: [K], psi / bound at one alpha (`place`): above 1 the inequality is false there.
        loss, grad_sq: [K], means over examples. mode: the covariance that was assumed.
    """

    alphas: Float[Tensor, " T"]
    bound: Float[Tensor, "K T"]
    ratio: Float[Tensor, " K"]
    loss: Float[Tensor, " K"]
    grad_sq: Float[Tensor, " K"]
    mode: Mode

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


def place(alpha: float, alphas: Float[Tensor, " T"]) -> int:
    """Which point of the grid lies next to alpha.

    Raises:
        ComplexityError (a ValueError): an alpha that is not positive, or beyond the grid.
    """
    at = round(alpha / float(alphas[1]))
    if not 0 < at < len(alphas):
        raise ComplexityError(f"alpha = {alpha:g} is outside the grid, which goes from 0 to {alphas[-1]:g}")
    return at


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
    """Cross-entropy and g = grad_x' Sigma grad_x of every draw at every example (Sigma None: the identity)."""
    loss, (g,) = loss_and_gradients(net, stacked, x, y, (sigma,), budget)
    return loss, g


def loss_and_gradients(
    net: BayesNet,
    stacked: Sequence[Weights],
    x: Float[Tensor, "N d"],
    y: Int64[Tensor, " N"],
    sigmas: Sequence[Float[Tensor, "d d"] | None],
    budget: int = BUDGET,
) -> tuple[Float[Tensor, "K N"], list[Float[Tensor, "K N"]]]:
    """Cross-entropy, and g = grad_x' Sigma grad_x for each of several Sigma, of every draw at every example.

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
        return input_grad_sqs(MLPDraws(weights, biases), x, y, sigmas, chunk=pairs)
    functions = [partial(net.at, one(stacked, k)) for k in range(draws)]
    return input_grad_sqs(functions, x, y, sigmas, chunk=max(1, budget // (entry * UNITS * x.shape[1])))


def forward_chunk(net: BayesNet, x: Float[Tensor, "N d"], budget: int) -> int:
    """Examples that a forward pass of one draw may take at once within `budget` bytes."""
    held = UNITS // 3 * x.shape[1]  # nothing is kept for a backward pass
    if isinstance(net, MLP):
        held = 3 * max(layer.mu.shape[0] for layer in net.layers)
    return max(1, budget // (x.element_size() * held))


def draws_at_once(net: BayesNet, examples: int, budget: int) -> int:
    """Explicit draws whose weights, losses and norms at so many examples `budget` bytes hold."""
    entry = next(net.parameters()).element_size()
    return max(1, budget // (WEIGHT_COPIES * entry * net.weights() + ROWS * 8 * examples))


@dataclass(frozen=True)
class Assumed:
    """The covariances that a measurement assumes: by mode one for all examples, and one for each class."""

    pooled: dict[Mode, Tensor | None]
    of_classes: dict[int, Tensor] | None

    @classmethod
    def of(
        cls, x: Float[Tensor, "N d"], y: Int64[Tensor, " N"], modes: Sequence[Mode], budget: int = BUDGET
    ) -> Assumed:
        """Those of the examples themselves, in chunks of `budget` bytes.

        Raises:
            ComplexityError, BadData (ValueErrors): an unknown mode, a class with one example.
        """
        found: dict[Mode, Tensor | None] = {}
        for mode in modes:
            if mode not in get_args(Mode):
                raise ComplexityError(f"unknown covariance {mode!r}: there are {', '.join(get_args(Mode))}")
            if mode == "identity":
                found[mode] = None
            elif mode != "class_corrected":
                own = covariance(x, budget) if mode == "total" else within_covariance(x, y, budget)
                found[mode] = own.to(x)
        of_classes = class_covariances(x, y, budget) if "class_corrected" in modes else None
        return cls(found, of_classes and {label: own.to(x) for label, own in of_classes.items()})


def per_draws(
    net: BayesNet,
    stacked: Sequence[Weights],
    x: Float[Tensor, "N d"],
    y: Int64[Tensor, " N"],
    alphas: Float[Tensor, " T"],
    assumed: Assumed,
    ratio_at: float,
    budget: int = BUDGET,
) -> dict[Mode, PerDraw]:
    """psi and its log-Sobolev bound for each draw and covariance; one gradient serves all that are not by class."""
    at, out = place(ratio_at, alphas), dict[Mode, PerDraw]()

    def reduced(bound: Tensor, loss: Tensor, g: Tensor, mode: Mode) -> PerDraw:
        ratio = psi(loss, alphas[at : at + 1])[:, 0] / bound[:, at].clamp_min(1e-300)
        return PerDraw(alphas, bound, ratio, loss.mean(1), g.mean(1), mode)

    if assumed.pooled:
        found, norms = loss_and_gradients(net, stacked, x, y, list(assumed.pooled.values()), budget)
        loss = found.double().cpu()
        for mode, g in zip(assumed.pooled, norms):
            wide = g.double().cpu()
            out[mode] = reduced(lsi(loss, wide, alphas), loss, wide, mode)
    if assumed.of_classes is not None:
        loss, g = (torch.empty(len(stacked[0].weight), len(y), dtype=torch.float64) for _ in range(2))
        for label, own in assumed.of_classes.items():
            rows = (y == label).nonzero()[:, 0]
            for some in rows.split(max(1, budget // (x.element_size() * x.shape[1]))):
                part = loss_and_gradient(net, stacked, x[some], y[some], own, budget)
                loss[:, some.cpu()], g[:, some.cpu()] = (v.double().cpu() for v in part)
        out["class_corrected"] = reduced(class_corrected(loss, g, y.cpu(), alphas), loss, g, "class_corrected")
    return out


def per_draw(
    net: BayesNet,
    stacked: Sequence[Weights],
    x: Float[Tensor, "N d"],
    y: Int64[Tensor, " N"],
    alphas: Float[Tensor, " T"],
    mode: Mode = "total",
    sigma: Float[Tensor, "d d"] | None = None,
    budget: int = BUDGET,
    ratio_at: float | None = None,
) -> PerDraw:
    """psi and its log-Sobolev bound for each draw, under one covariance.

    Args:
        mode: `identity` (the papers' Euclidean norm), `total`, `within` (pooled within-class covariance) or
            `class_corrected` (section 3.6: each class with its own covariance, and the entropy between classes).
        sigma: a covariance of one's own instead of the examples' (not for class_corrected).
        ratio_at: alpha of the ratio psi / bound (default: the largest).

    Raises:
        ComplexityError, BoundError, BadData (ValueErrors): an unknown mode, a covariance that is none, a class with
            one example, a `ratio_at` outside the grid.
    """
    if sigma is None:
        assumed = Assumed.of(x, y, (mode,), budget)
    else:
        if mode == "class_corrected":
            raise ComplexityError("class_corrected takes the covariance of every class: leave sigma out, or use total")
        check_covariance(sigma, x.shape[1])
        assumed = Assumed({mode: sigma.to(x)}, None)
    at = float(alphas[-1]) if ratio_at is None else ratio_at
    return per_draws(net, stacked, x, y, alphas, assumed, at, budget)[mode]


def of_prior(
    net: BayesNet,
    draws: int,
    generator: torch.Generator,
    x: Float[Tensor, "N d"],
    y: Int64[Tensor, " N"],
    alphas: Float[Tensor, " T"],
    modes: Sequence[Mode],
    ratio_at: float | None = None,
    budget: int = BUDGET,
    kept: Path | None = None,
) -> dict[Mode, PerDraw]:
    """`per_draw` of so many prior draws under each covariance, in groups that `budget` (bytes) holds.

    Args:
        kept: a file that has what the groups so far left, and goes on from there if it exists; it is of the caller's
            settings, and of no others.

    Raises:
        UserError: `kept` is damaged, or of another number of draws or other covariances.
        ComplexityError, BadData (ValueErrors): what `per_draw` refuses.
    """
    assumed = Assumed.of(x, y, modes, budget)
    at = float(alphas[-1]) if ratio_at is None else ratio_at
    size = draws_at_once(net, len(y), budget)
    made_with: dict[str, Any] = {"draws": draws, "covariances": list(modes), "alphas": len(alphas), "examples": len(y)}
    parts: dict[Mode, list[list[Tensor]]] = {mode: [] for mode in modes}
    done = 0
    if kept is not None and kept.exists():
        state = load_state(kept, made_with)
        done, parts = int(state["done"]), state["parts"]
        generator.set_state(state["generator"])
    while done < draws:
        stacked = net.draws(min(size, draws - done), generator, prior=True)
        found = per_draws(net, stacked, x, y, alphas, assumed, at, budget)
        for mode in modes:
            each = found[mode]
            parts[mode].append([each.bound, each.ratio, each.loss, each.grad_sq])
        done += len(stacked[0].weight)
        if kept is not None and done < draws:
            save_state(kept, made_with, {"done": done, "parts": parts, "generator": generator.get_state()})
    whole = {mode: [torch.cat(each) for each in zip(*parts[mode])] for mode in modes}
    return {
        mode: PerDraw(alphas, bound, ratio, loss, grad_sq, mode)
        for mode, (bound, ratio, loss, grad_sq) in whole.items()
    }
