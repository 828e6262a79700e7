"""Moments of the loss tilted by exp(-alpha l), and the exact per-example log-MGF (sections 2 and 3.2).

    M_k(alpha) = 1/N sum_i exp(-alpha l_ki)           G_k(alpha) = sum_i exp(-alpha l_ki) g_ki / sum_i exp(-alpha l_ki)
    psi_k(alpha) = ln M_k(alpha) + alpha mean_i l_ki >= 0

Shapes: loss and g = |Sigma^{1/2} grad_x l|^2 are [K, N], K weight draws and N examples; alphas [T].
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from logsobolev_bounds.errors import BoundError, finite, non_negative
from logsobolev_bounds.kernels.tilted_moments import tilted_moments

MIN_POINTS = 17
_BLOCK = 1 << 22  # numbers in one block of exponentials: 32 MB


def check_grid(alphas: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """The grid in float64.

    Raises:
        BoundError: fewer than 17 values, not uniform, or not from 0.
    """
    alphas = finite("alpha", alphas)
    if alphas.ndim != 1 or len(alphas) < MIN_POINTS:
        raise BoundError(f"T is {alphas.numel()}: the trapezoid rule needs at least {MIN_POINTS} values of alpha")
    if alphas[0] != 0:
        raise BoundError(f"alphas start at {alphas[0].item():.6g}: the integral goes from 0")
    steps = alphas.diff()
    if (steps <= 0).any() or steps.max() - steps.min() > 1e-4 * steps.mean():
        raise BoundError(
            f"steps of alpha from {steps.min().item():.6g} to {steps.max().item():.6g}: use a uniform grid"
        )
    return alphas


def check_examples(loss: Float[Tensor, "K N"], g: Float[Tensor, "K N"] | None = None) -> tuple[Tensor, Tensor | None]:
    """Both in float64; arrays and lists are taken, too.

    Raises:
        BoundError: not [K, N], no draw or no example, different shapes, NaN or infinity, a negative g.
    """
    loss = torch.as_tensor(loss, dtype=torch.float64)
    if loss.ndim != 2:
        raise BoundError(f"the loss has shape {list(loss.shape)}: give [draws, examples]")
    if not loss.numel():
        raise BoundError(f"the loss has shape {list(loss.shape)}: at least one draw and one example are needed")
    loss = finite("the loss", loss)
    if g is None:
        return loss, None
    g = torch.as_tensor(g, dtype=torch.float64)
    if g.shape != loss.shape:
        raise BoundError(f"the loss has shape {list(loss.shape)}, g {list(g.shape)}: one g for each loss")
    return loss, non_negative("g", finite("g", g))


def psi(loss: Float[Tensor, "K N"], alphas: Float[Tensor, " T"]) -> Float[Tensor, "K T"]:
    """Exact log-MGF of the examples as they are, each with probability 1 / N; non-negative, convex, 0 at 0.

    In float64 whatever the loss is: for small alpha it is a difference of nearly equal numbers.

    Raises:
        BoundError: a loss that is not [K, N], empty, NaN or infinite; a negative or infinite alpha.
    """
    loss, _ = check_examples(loss)
    alphas = non_negative("alpha", finite("alpha", alphas))
    centred = loss - loss.mean(1, keepdim=True)
    centred = centred - centred.mean(1, keepdim=True)  # the mean's rounding, which the first term would see
    rows = []
    for u in centred.split(max(1, _BLOCK // (loss.shape[1] * len(alphas)))):
        exponent = -alphas * u[..., None]
        # Small exponents: ln(1 + mean(e^x - 1)) keeps the digits. Large ones: shifted by the least loss.
        near = torch.log1p(torch.expm1(exponent.clamp(-1, 1)).mean(1))
        far = torch.logsumexp(exponent, 1) - math.log(loss.shape[1])
        rows.append(torch.where(exponent.abs().amax(1) < 1, near, far))
    return torch.cat(rows).clamp_min(0)


def tilted(
    loss: Float[Tensor, "K N"], g: Float[Tensor, "K N"], alphas: Float[Tensor, " T"]
) -> tuple[Float[Tensor, "K T"], Float[Tensor, "K T"]]:
    """(ln M, G) at every alpha, in float64.

    Raises:
        BoundError: shapes that differ, an empty batch, NaN or infinity, a negative g or alpha.
    """
    loss, checked_g = check_examples(loss, g)
    assert checked_g is not None
    return moments(loss, checked_g, non_negative("alpha", finite("alpha", alphas)))


def moments(
    loss: Float[Tensor, "K N"], g: Float[Tensor, "K N"], alphas: Float[Tensor, " T"]
) -> tuple[Float[Tensor, "K T"], Float[Tensor, "K T"]]:
    """`tilted` without the checks: what the bounds spend their time in; by the operator K1 on a uniform grid from 0."""
    step = _uniform_step(alphas)
    if step is not None:
        return tilted_moments(loss, g, step, len(alphas))
    least = loss.amin(1, keepdim=True)  # sums of the shifted exponentials stay in [1, N]
    sums, means = [], []
    for l, squares in zip(*((t.split(max(1, _BLOCK // (loss.shape[1] * len(alphas))))) for t in (loss - least, g))):
        weight = torch.exp(-alphas * l[..., None])
        total = weight.sum(1)
        sums.append(total)
        means.append(torch.einsum("knt,kn->kt", weight, squares) / total)
    return torch.cat(sums).log() - math.log(loss.shape[1]) - alphas * least, torch.cat(means)


def _uniform_step(alphas: Float[Tensor, " T"]) -> float | None:
    """The distance of neighbours, where all are the same up to rounding and the first is 0."""
    if len(alphas) < 2 or alphas[0] != 0:
        return None
    step = float(alphas[-1]) / (len(alphas) - 1)
    even = step * torch.arange(len(alphas), dtype=alphas.dtype, device=alphas.device)
    return step if step > 0 and float((alphas - even).abs().max()) <= 1e-14 * float(alphas[-1]) else None


def herbst(loss: Float[Tensor, "K N"], alphas: Float[Tensor, " T"], order: int = 32) -> Float[Tensor, "K T"]:
    """psi by Herbst's identity, alpha int_0^alpha Ent(e^{-s l}) / (s^2 M(s)) ds, Gauss-Legendre (section 3.2).

    Another way to the same numbers: it checks the entropy that the log-Sobolev inequality bounds.

    Raises:
        BoundError: what `psi` refuses.
    """
    loss, _ = check_examples(loss)
    alphas = non_negative("alpha", finite("alpha", alphas))
    x, w = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(order))
    s = (alphas[:, None] * (1 + x) / 2).flatten()
    mean_loss = loss.mean(1, keepdim=True)
    _, tilted_loss = moments(loss, loss, s)
    # Ent(e^{-s l}) / M(s) = -s E_s l - ln M(s), E_s the tilted mean; both terms about the mean loss.
    entropy = s * (mean_loss - tilted_loss) - psi(loss, s)
    ratio = torch.where(s > 0, entropy / s.square().clamp_min(torch.finfo(s.dtype).tiny), 0.0)
    return (ratio.view(len(loss), len(alphas), order) @ w) * alphas.square() / 2
