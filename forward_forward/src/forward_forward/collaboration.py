"""Layer collaboration: each layer's logit sees the goodness of the other layers as a constant (section 2.2).

    logit_i = g_i + gamma_i - theta,      gamma_i = gamma_weight * sum_t mask[i, t] g_t   (no gradient)

Training needs no autograd: with `r_ni = (p_ni - t_n) / (2N tau)` the gradient of layer i's loss with respect to its
pre-activations is `c r_ni h_ni`. `local_losses` states the same objective for autograd; the tests compare the two.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor

Schedule = Literal["greedy", "alternate", "simultaneous"]
NAMED_MASKS = ("none", "prev", "all", "next", "neighbours")


def gamma_mask(gamma: str | list[list[int]], layers: int) -> Float[Tensor, "k k"]:
    """Which layers t enter the logit of layer i: a name of `NAMED_MASKS`, or k x k zeros and ones.

    Raises:
        UserError: unknown name, wrong shape, an entry other than 0 or 1, or a diagonal entry.
    """
    i, t = torch.arange(layers)[:, None], torch.arange(layers)[None, :]
    named = {
        "none": torch.zeros(layers, layers, dtype=torch.bool),
        "prev": t < i,
        "all": t != i,
        "next": t > i,
        "neighbours": (t - i).abs() == 1,
    }
    if isinstance(gamma, str):
        if gamma not in named:
            raise UserError(
                f"unknown gamma mask {gamma!r}: use {', '.join(NAMED_MASKS)} or a {layers} x {layers} list of 0 and 1"
            )
        return named[gamma].float()
    if len(gamma) != layers or any(len(row) != layers for row in gamma):
        raise UserError(f"the gamma mask has to be {layers} x {layers}, one row for each layer")
    mask = torch.tensor(gamma, dtype=torch.float32)
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise UserError("the gamma mask may only hold 0 and 1; scale it with gamma_weight")
    if bool(mask.diagonal().any()):
        raise UserError("the diagonal of the gamma mask has to be 0: a layer's own goodness is in its logit already")
    return mask


def check_schedule(schedule: Schedule, mask: Float[Tensor, "k k"]) -> None:
    """`greedy` trains a layer before the later ones exist, so gamma may only look back.

    Raises:
        UserError: `greedy` with a mask that has an entry t > i.
    """
    if schedule == "greedy" and bool(mask.triu(1).any()):
        raise UserError(
            "schedule `greedy` trains layer i while later layers are untrained, so gamma may only hold earlier layers: "
            "use gamma `none` or `prev`, or the schedule `alternate` or `simultaneous`"
        )


def collaborate(
    g: Float[Tensor, "n k"], mask: Float[Tensor, "k k"], weight: float, theta: Float[Tensor, " k"]
) -> Float[Tensor, "n k"]:
    """Logits of every layer; gamma is taken from `g` of the same pair and carries no gradient."""
    gamma = g.detach() @ (weight * mask.T).to(g)
    return g + gamma - theta.to(g)


def residuals(
    logits: Float[Tensor, "n k"], positives: int, tau: float, batch: int | None = None
) -> Float[Tensor, "n k"]:
    """`r = (sigmoid(logit / tau) - t) / (2N tau)`; the first `positives` rows have t = 1.

    `batch`: N of the whole minibatch where these rows are only one process's part of it.
    """
    r = torch.sigmoid(logits / tau)
    r[:positives] -= 1
    return r.mul_(1 / (2 * (batch or positives) * tau))


def losses(logits: Float[Tensor, "n k"], positives: int, tau: float) -> Float[Tensor, " k"]:
    """Binary cross entropy with logits, mean over the 2N rows, for each layer (softplus never overflows)."""
    sign = torch.ones(logits.shape[0], 1, dtype=logits.dtype, device=logits.device)
    sign[:positives] = -1
    return F.softplus(sign * logits / tau).mean(0)


def local_losses(
    x: Float[Tensor, "n d"],
    weights: list[Tensor],
    biases: list[Tensor],
    mask: Float[Tensor, "k k"],
    theta: Float[Tensor, " k"],
    *,
    positives: int,
    norm: str,
    kind: str,
    weight: float = 1.0,
    tau: float = 1.0,
    cut: bool = True,
) -> tuple[Float[Tensor, " k"], Float[Tensor, "n k"]]:
    """The objective as a graph for autograd: losses of all layers, and their goodness.

    `cut=False` lets gradients through the layer inputs: with `all`, the baseline "backprop, pairwise".
    """
    from forward_forward.goodness import goodness, normalise

    h, values = x, []
    for w, b in zip(weights, biases):
        z = normalise(h, norm)  # type: ignore[arg-type]
        h = torch.relu((z.detach() if cut else z) @ w + b)
        values.append(goodness(h.square().sum(1), h.shape[1], kind))  # type: ignore[arg-type]
    g = torch.stack(values, 1)
    return losses(collaborate(g, mask, weight, theta), positives, tau), g
