"""The registered operator of spectral normalisation, and of its gradient.

Kept apart from `triton.py` so that a machine without Triton has it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """What products of such weights are summed in."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def normalise_layers(
    weights: Sequence[Tensor], us: Sequence[Tensor], eps: float
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    normalised, sigma, left, _ = spectral_norm(list(weights), list(us), eps)
    sigmas = [s.to(weights[0].dtype) for s in sigma.split(1)]
    new = [u.to(old.dtype).view(1, -1) for u, old in zip(left.detach().split([len(w) for w in weights]), us)]
    return normalised, sigmas, new


@torch.library.custom_op("diggan::spectral_norm", mutates_args=())
def spectral_norm(
    weights: Sequence[Tensor], us: Sequence[Tensor], eps: float
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """`(W / sigma, sigma [layers], u, v)`; the new u of all layers behind each other, and v; both are constants."""
    from . import triton

    return triton.launch_spectral_norm(weights, us, eps)


@spectral_norm.register_fake
def _(weights: Sequence[Tensor], us: Sequence[Tensor], eps: float) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    first, dtype = weights[0], accumulator(weights[0].dtype)
    rows, columns = sum(len(w) for w in weights), sum(w.numel() // len(w) for w in weights)
    sigma, u, v = (first.new_empty(k, dtype=dtype) for k in (len(weights), rows, columns))
    return [w.new_empty(w.shape) for w in weights], sigma, u, v


@torch.library.custom_op("diggan::spectral_norm_backward", mutates_args=())
def spectral_norm_backward(
    grads: Sequence[Tensor], weights: Sequence[Tensor], dsigma: Tensor, sigma: Tensor, u: Tensor, v: Tensor
) -> list[Tensor]:
    """`g / sigma - (<g, W> / sigma^2 - dsigma) u v^T` of every layer; sigma = u W v^T is a function of W."""
    from . import triton

    return triton.launch_backward(grads, weights, dsigma, sigma, u, v)


@spectral_norm_backward.register_fake
def _(grads: Sequence[Tensor], weights: Sequence[Tensor], *args: Tensor) -> list[Tensor]:
    return [w.new_empty(w.shape) for w in weights]


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[list[Tensor], Tensor, Tensor, Tensor]) -> None:
    weights, us, _ = inputs
    ctx.us = len(us)
    ctx.save_for_backward(*weights, *output[1:])


def backward(ctx: Any, grads: list[Tensor], dsigma: Tensor, du: Tensor, dv: Tensor) -> tuple[Any, ...]:
    *weights, sigma, u, v = ctx.saved_tensors
    constants = (x.detach() for x in (sigma, u, v))
    return spectral_norm_backward(grads, weights, dsigma, *constants), [None] * ctx.us, None


spectral_norm.register_autograd(backward, setup_context=save)


def save_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    grads, weights, _, _, u, v = inputs
    ctx.save_for_backward(*grads, *weights, u, v)


def double_backward(ctx: Any, seeds: list[Tensor]) -> tuple[Any, ...]:
    """Second derivatives, which the training of a GAN does not take: plain PyTorch, differentiable in turn.

    With h the seed, S = <h, dW> = <h, g> / sigma - (<g, W> / sigma^2 - dsigma) u h v^T, and sigma = u W v^T.
    """
    *tensors, u, v = ctx.saved_tensors
    grads, weights = tensors[: len(seeds)], tensors[len(seeds) :]
    lefts = u.split([len(w) for w in weights])
    rights = v.split([w.numel() // len(w) for w in weights])
    by_grad, by_weight, by_sigma = [], [], []
    for seed, grad, weight, left, right in zip(seeds, grads, weights, lefts, rights):
        h, g, w = (x.flatten(1).to(u.dtype) for x in (seed, grad, weight))
        sigma, outer = left @ w @ right, torch.outer(left, right)
        along, hg, gw = left @ h @ right, (h * g).sum(), (g * w).sum()
        dg = h / sigma - along / sigma**2 * w
        dw = (2 * along * gw / sigma**3 - hg / sigma**2) * outer - along / sigma**2 * g
        by_grad.append(dg.to(grad.dtype).view_as(grad))
        by_weight.append(dw.to(weight.dtype).view_as(weight))
        by_sigma.append(along)
    return by_grad, by_weight, torch.stack(by_sigma), None, None, None


spectral_norm_backward.register_autograd(double_backward, setup_context=save_backward)
