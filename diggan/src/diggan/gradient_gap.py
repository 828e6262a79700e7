"""DigGAN's regulariser: the gap between D's gradient norms on fakes and on reals (section 3).

n_i = |dD(x_i) / dx_i|                          of fakes (F) and of reals (R), as D gets them
s_t = n_t / 2 + stopgrad(s_{t-1}) / 2           of each place in the batch; s = n at the first call
R   = 1/B sum_i (s_i^F - s_i^R)^2
"""

from __future__ import annotations

import logging
from typing import Literal, get_args

import torch
from torch import Tensor

from diggan.kernels.grad_gap import grad_gap, norms
from diggan.regulariser import Every, Pass, Regulariser, RegulariserError

log = logging.getLogger(__name__)

Variant = Literal["official", "pair", "mean", "allpairs", "port"]
WRT = Literal["augmented", "raw"]


class DIGRegularizer(Regulariser):
    """The gradient-gap penalty and its variants.

    Args:
        variant: `official`; `pair` (no smoothing); `mean` (gap of the means only); `allpairs` (`pair` averaged over all
            pairings: (gap of means)^2 + both variances); `port` (what the authors' second code base computes: after
            the first call the reals drop out).
        weight: lambda: 10^3 to 10^4 for spectrally normalised networks with norms far below 1, 1 to 100 for others.
        smoothing: share of the old norms in the smoothed ones (`official`).
        every: `first_d_step` of each G iteration, or all D steps of every so many G iterations. For `Game` and
            `discriminate`, which are told where in the training they are; called by itself, as `reg(d, x_fake,
            x_real)`, it has its penalty at every call, and the loop that calls it says when.
        grad_wrt: gradients by the augmented images, as D gets them, or by the raw ones.

    The smoothed norms are buffers, so a resumed run goes on with them. They belong to places in the batch, not to
    images; when the batch changes its size they start anew. In several processes each has its own.

    Raises:
        RegulariserError (a ValueError): an unknown variant (the known are listed) or a setting out of its range.
    """

    s_fake: Tensor
    s_real: Tensor
    remembered = ("s_fake", "s_real")

    def __init__(
        self,
        variant: Variant = "official",
        weight: float = 500.0,
        smoothing: float = 0.5,
        every: Every = "first_d_step",
        grad_wrt: WRT = "augmented",
    ) -> None:
        super().__init__(weight, every)
        if variant not in get_args(Variant):
            raise RegulariserError(f"unknown variant {variant!r}: there are {', '.join(get_args(Variant))}")
        if not 0 <= smoothing < 1:
            raise RegulariserError(f"smoothing is {smoothing}: it is the old norms' share, in [0, 1)")
        if grad_wrt not in get_args(WRT):
            raise RegulariserError(f"unknown grad_wrt {grad_wrt!r}: there are {', '.join(get_args(WRT))}")
        self.variant, self.smoothing, self.grad_wrt = variant, smoothing, grad_wrt
        self.said = False
        for name in self.remembered:
            self.register_buffer(name, torch.empty(0))

    def penalty(self, at: Pass) -> Tensor:
        keep = at.fake.ndim
        if keep == 1 and at.grad is not None and self.variant in ("official", "pair"):
            state = self.state(at.fake) if self.variant == "official" else None
            value, _, new = grad_gap(at.grad, state, self.smoothing)
            if self.variant == "official":
                self.s_fake, self.s_real = new.chunk(2)
            return value
        return self.gap(norms(at.fake_grad, keep), norms(at.real_grad, keep))

    def gap(self, fake: Tensor, real: Tensor) -> Tensor:
        """The penalty from norms [..., B]."""
        if self.variant == "mean":
            return (fake.mean(-1) - real.mean(-1)).square()
        if self.variant == "allpairs":
            cross = fake.mean(-1) * real.mean(-1)
            return fake.square().mean(-1) + real.square().mean(-1) - 2 * cross
        state = None if self.variant == "pair" else self.state(fake)
        if self.variant == "port":
            other = real if state is None else (fake + state.chunk(2, -1)[0]) / 2
            self.s_fake, self.s_real = fake.detach(), real.detach()
            return (fake - other).square().mean(-1)
        if state is not None:
            old_fake, old_real = state.chunk(2, -1)
            fake = (1 - self.smoothing) * fake + self.smoothing * old_fake
            real = (1 - self.smoothing) * real + self.smoothing * old_real
        if self.variant == "official":
            self.s_fake, self.s_real = fake.detach(), real.detach()
        return (fake - real).square().mean(-1)

    def state(self, like: Tensor) -> Tensor | None:
        """Old norms [..., 2B], fakes first; None at the first call, and when the batch has changed its size."""
        if not self.s_fake.numel():
            return None
        if self.s_fake.shape != like.shape:
            if not self.said:
                log.warning(
                    "batch of %d after one of %d: the smoothed gradient norms start anew (said once)",
                    like.shape[-1], self.s_fake.shape[-1],
                )  # fmt: skip
                self.said = True
            return None
        return torch.cat([self.s_fake, self.s_real], -1).to(like.device)
