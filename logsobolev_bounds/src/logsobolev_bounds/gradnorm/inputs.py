"""Squared norms of the loss's gradient by the input, for explicit draws of the weights (sections 2 and 7, K2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import check_covariance
from ..kernels.quadratic_rows import gram_of_first_layer, quadratic_rows
from ..layers import explicit_weights_only
from .batch import check_batch, check_labels, check_logits, recording, refuse_coupling, usable

Draw = Callable[[Tensor], Tensor]
CHUNK_OF_FUNCTIONS = 1024  # examples of a backward pass
CHUNK_OF_MLPS = 2**14  # pairs of draw and example that are held at once


@dataclass(frozen=True)
class MLPDraws:
    """K draws of the weights of a ReLU network of linear layers, each shared by all examples.

    Args:
        weights: a [K, out, in] for every layer, from the input on.
        biases: a [K, out] for every layer, or None.

    Raises:
        ValueError: shapes that do not follow one another.
    """

    weights: Sequence[Tensor]
    biases: Sequence[Tensor] | None = None

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError("no weights: a network has at least one layer")
        for place, w in enumerate(self.weights):
            known = self.weights[place - 1] if place else None
            if w.ndim != 3 or (known is not None and (len(w), w.shape[2]) != (len(known), known.shape[1])):
                before = "" if known is None else f" after {tuple(known.shape)}"
                raise ValueError(f"weights of layer {place} have shape {tuple(w.shape)}{before}: not [K, out, in]")
        shapes = [w.shape[:2] for w in self.weights]
        if self.biases is not None and [b.shape for b in self.biases] != shapes:
            found = [tuple(b.shape) for b in self.biases]
            raise ValueError(f"biases have shapes {found}: {[tuple(s) for s in shapes]} are needed")

    def __len__(self) -> int:
        return len(self.weights[0])


def input_grad_sq(
    model_draws: MLPDraws | Sequence[Draw] | nn.ModuleList | Draw,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, " n"],
    Sigma: Float[Tensor, "d d"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]]:
    """`(l, g)` of every draw and example: the cross-entropy, and |Sigma^{1/2} grad_x l|^2.

    Args:
        Sigma: covariance of the (flattened) input; None: the identity.
        model_draws, x, y, chunk: see `input_grad_sqs`, which takes several covariances.

    Raises:
        ValueError: what `input_grad_sqs` refuses.
    """
    loss, (g,) = input_grad_sqs(model_draws, x, y, (Sigma,), chunk)
    return loss, g


def input_grad_sqs(
    model_draws: MLPDraws | Sequence[Draw] | nn.ModuleList | Draw,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, " n"],
    Sigmas: Sequence[Float[Tensor, "d d"] | None],
    chunk: int | None = None,
) -> tuple[Float[Tensor, "k n"], list[Float[Tensor, "k n"]]]:
    """`(l, [g, ...])`: the cross-entropy, and |Sigma^{1/2} grad_x l|^2 for each Sigma, all from one gradient.

    Functions take a single backward pass of the summed loss for each draw and chunk: an example's loss is a function of
    its own input. Networks of linear layers given as `MLPDraws` need no autograd, and form no gradient by the input
    where A = W Sigma W' of the first layer is cheaper. Results do not depend on the chunk beyond rounding. Nothing is
    recorded for autograd; parameters' gradients stay as they are.

    Args:
        model_draws: weights of a ReLU network, functions of x to logits (one for each draw), or one of them.
        x: inputs; d is the number of entries of one.
        y: labels.
        Sigmas: covariances of the (flattened) input, at least one; None: the identity.
        chunk: examples of a backward pass (default 1,024); for `MLPDraws`, pairs of draw and example held at once
            (default 16,384).

    Raises:
        ValueError: no draws or examples, labels out of range, shapes that do not fit, logits that autograd cannot trace
            to x, a Sigma that is no covariance, a network with batch normalisation or dropout in training mode, a
            Bayesian layer that would sample for each example (`LocalReparametrisation`).
    """
    check_batch(x, y)
    if not x.is_floating_point():
        raise ValueError(f"x is {x.dtype}: a gradient is by real numbers")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}: at least 1")
    for Sigma in Sigmas:
        if Sigma is not None:
            check_covariance(Sigma, x[0].numel())
    Sigmas = [None if Sigma is None else Sigma.detach().to(x) for Sigma in Sigmas]
    with recording(), explicit_weights_only():
        x, y = usable(x), usable(y)
        if isinstance(model_draws, MLPDraws):
            with torch.no_grad():
                return of_mlps(model_draws, x.flatten(1), y, Sigmas, chunk or CHUNK_OF_MLPS)
        many = isinstance(model_draws, (Sequence, nn.ModuleList))
        draws: Sequence[Draw] = list(model_draws) if many else [model_draws]  # type: ignore[arg-type, list-item]
        if not draws:
            raise ValueError("no draws of the weights")
        rows = [of_function(draw, k, x, y, Sigmas, chunk or CHUNK_OF_FUNCTIONS) for k, draw in enumerate(draws)]
    loss, norms = zip(*rows)
    return torch.stack(loss), [torch.stack(g) for g in zip(*norms)]


def of_function(
    draw: Draw, k: int, x: Tensor, y: Tensor, Sigmas: Sequence[Tensor | None], chunk: int
) -> tuple[Tensor, list[Tensor]]:
    """Losses of one draw, and its squared norms for each Sigma."""
    if isinstance(draw, nn.Module):
        refuse_coupling(draw, noise=False)
    losses: list[Tensor] = []
    norms: list[list[Tensor]] = [[] for _ in Sigmas]
    for part, labels in zip(x.split(chunk), y.split(chunk)):
        part = part.clone().requires_grad_()
        logits = draw(part)
        check_logits(logits, len(part), f"draw {k}")
        check_labels(labels, logits.shape[1])
        loss = F.cross_entropy(logits, labels, reduction="none")
        gradient = torch.autograd.grad(loss.sum(), part, allow_unused=True)[0] if loss.requires_grad else None
        if gradient is None:
            raise ValueError(f"draw {k}: autograd finds no way from logits to x (a detach, or no_grad, in between?)")
        losses.append(loss.detach())
        for own, Sigma in zip(norms, Sigmas):
            own.append(squared(gradient.flatten(1)[None], Sigma)[0])
    return torch.cat(losses), [torch.cat(own) for own in norms]


def squared(gradient: Tensor, Sigma: Tensor | None) -> Tensor:
    """`g' Sigma g` of rows [K, N, d]."""
    if Sigma is None:
        return gradient.square().sum(2)
    return quadratic_rows(gradient, Sigma.expand(len(gradient), -1, -1))


def gram_is_cheaper(n: int, h: int, d: int, weighted: bool) -> bool:
    """Whether W Sigma W' and its quadratic forms take fewer FLOPs than n gradients by the input."""
    gram = n * h * h + h * h * d + (h * d * d if weighted else 0)
    return gram < n * h * d + (n * d * d if weighted else 0)


def blocks(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def of_mlps(
    draws: MLPDraws, x: Tensor, y: Tensor, Sigmas: Sequence[Tensor | None], chunk: int
) -> tuple[Tensor, list[Tensor]]:
    """Losses and, for each Sigma, squared norms of all draws, `chunk` pairs of draw and example at a time."""
    first, last = draws.weights[0], draws.weights[-1]
    K, N, d = len(draws), *x.shape
    if not K:
        raise ValueError("no draws of the weights")
    if first.shape[2] != d:
        raise ValueError(f"weights of layer 0 have shape {tuple(first.shape)}: inputs have {d} entries")
    check_labels(y, last.shape[1])
    gram = [gram_is_cheaper(N, first.shape[1], d, Sigma is not None) for Sigma in Sigmas]
    examples = min(N, chunk)
    loss, norms = x.new_empty(K, N), [x.new_empty(K, N) for _ in Sigmas]
    for k in blocks(K, max(1, chunk // examples)):
        weights = [w[k].detach() for w in draws.weights]
        biases = None if draws.biases is None else [b[k].detach() for b in draws.biases]
        forms = [gram_of_first_layer(weights[0], Sigma) if small else None for Sigma, small in zip(Sigmas, gram)]
        for n in blocks(N, examples):
            loss[k, n], delta = first_layer_gradient(weights, biases, x[n], y[n])
            # One gradient by the input for all covariances that need it.
            gradient = None if all(gram) else delta @ weights[0]
            for g, Sigma, A in zip(norms, Sigmas, forms):
                if A is None:
                    assert gradient is not None
                    g[k, n] = squared(gradient, Sigma)
                else:
                    g[k, n] = quadratic_rows(delta, A)
    return loss, norms


def first_layer_gradient(
    weights: Sequence[Tensor], biases: Sequence[Tensor] | None, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss [K, N], and its gradient at the first pre-activation [K, N, h]."""
    K, N = len(weights[0]), len(x)
    hidden = list[Tensor]()
    h = x.expand(K, -1, -1)
    for place, w in enumerate(weights):
        h = torch.bmm(h, w.mT) if biases is None else torch.baddbmm(biases[place][:, None], h, w.mT)
        if place < len(weights) - 1:
            hidden.append(h.clamp_(min=0))
    loss = F.cross_entropy(h.flatten(0, 1), y.repeat(K), reduction="none").view(K, N)
    delta = h.softmax(2)
    delta[:, torch.arange(N, device=y.device), y] -= 1
    for w, active in zip(reversed(weights[1:]), reversed(hidden)):
        delta = torch.bmm(delta, w).mul_(active > 0)
    return loss, delta
