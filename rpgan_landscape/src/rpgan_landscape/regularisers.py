"""Gradient penalties of the critic: R1, R2 (Mescheder et al. 2018) and WGAN-GP (Gulrajani et al. 2017).

    R1          gamma/2 mean_i |grad D(x_i)|^2 at reals
    R2          the same at fakes
    WGAN-GP     lambda mean_i (|grad D(x_i)| - 1)^2 at random points between reals and fakes

The squared norm is a sum over all entries of a sample, so a fitting gamma
grows with the number of pixels. A sample's gradient is taken from the sum of all logits: batch normalisation in the
critic would mix samples.

    real.requires_grad_(); fake = G(z).detach().requires_grad_()
    r, f = D(real), D(fake)
    (loss.d_loss(r, f) + r1_r2(r, real, f, fake, gamma=10.0).sum()).backward()
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor


class RegulariserError(UserError, ValueError):
    """Samples that no gradient can be taken for."""


def r1(logits: Float[Tensor, n * rest], samples: Float[Tensor, n * sample], gamma: float) -> Float[Tensor, ""]:
    """`gamma/2 mean_i |d logits / d samples_i|^2`: R1 at reals, R2 at fakes. Differentiable (float32 at least).

    Args:
        logits: the critic's output at `samples`, which required gradients when it was computed.

    Raises:
        RegulariserError (a ValueError): the logits do not depend on the samples.
    """
    return gamma / 2 * _squared_norms(logits.sum(), [samples])[0].mean()


r2 = r1


def r1_r2(
    real_logits: Float[Tensor, n * rest],
    real: Float[Tensor, n * sample],
    fake_logits: Float[Tensor, m * rest],
    fake: Float[Tensor, m * sample],
    gamma: float | tuple[float, float],
) -> Float[Tensor, 2]:
    """`(R1, R2)` in one backward pass through the critic; `gamma` for both, or one for each.

    Raises:
        RegulariserError (a ValueError): as `r1`.
    """
    norms = _squared_norms(real_logits.sum() + fake_logits.sum(), [real, fake])
    weights = gamma if isinstance(gamma, tuple) else (gamma, gamma)
    return torch.stack([g / 2 * n.mean() for g, n in zip(weights, norms)])


def wgan_gp(
    critic: Callable[[Tensor], Tensor],
    real: Float[Tensor, n * sample],
    fake: Float[Tensor, n * sample],
    weight: float = 10.0,
    mix: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """`weight * mean_i (|grad critic(x_i)| - 1)^2` at `x_i = e_i real_i + (1 - e_i) fake_i`.

    Args:
        mix: e, uniform in [0, 1) unless given.

    Raises:
        RegulariserError (a ValueError): real and fake differ in shape.
    """
    if real.shape != fake.shape:
        raise RegulariserError(
            f"real and fake have shapes {tuple(real.shape)} and {tuple(fake.shape)}: WGAN-GP mixes them row by row, "
            "give it batches of one shape"
        )
    e = torch.rand(len(real), device=real.device, dtype=real.dtype) if mix is None else mix
    e = e.reshape(-1, *[1] * (real.ndim - 1))
    x = (e * real + (1 - e) * fake).detach().requires_grad_()
    # The norm has no slope where the gradient is zero: the smallest number makes it 0 there, not NaN.
    squares = _squared_norms(critic(x).sum(), [x])[0]
    norms = (squares + torch.finfo(squares.dtype).tiny).sqrt()
    return weight * (norms - 1).square().mean()


def _squared_norms(total: Tensor, samples: list[Tensor]) -> list[Float[Tensor, " n"]]:
    """|grad|^2 of `total` for every sample, in one call, squared in float32 at least; the graph is kept."""
    attached = total.requires_grad and all(x.requires_grad for x in samples)
    grads = torch.autograd.grad(total, samples, create_graph=True, allow_unused=True) if attached else (None,)
    used = [g if g.dtype is torch.float64 else g.float() for g in grads if g is not None]
    if len(used) < len(samples):
        raise RegulariserError(
            "the logits do not depend on the samples: call samples.requires_grad_() before the critic, and give both "
            "from one forward pass"
        )
    return [g.flatten(1).square().sum(1) for g in used]
