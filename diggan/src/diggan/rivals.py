"""The other regularisers of D that DigGAN is measured against, behind the same interface (section 3)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from diggan.gradient_gap import WRT, DIGRegularizer, Variant
from diggan.kernels.fused_diffaugment import Draws, fused_diffaugment
from diggan.kernels.fused_diffaugment.reference import largest_shift
from diggan.kernels.grad_gap import norms
from diggan.regulariser import Every, Pass, Random, Regulariser, RegulariserError, When

LECAM_START = 1000  # G iterations without LeCam's penalty
Name = Literal["none", "dig", "lecam", "r1", "r2", "gp", "dragan", "cr"]


class R1(Regulariser):
    """mean_i (n_i^R)^2 (Mescheder et al. 2018); the usual gamma is twice the weight."""

    def penalty(self, at: Pass) -> Tensor:
        return norms(at.real_grad, at.real.ndim).square().mean(-1)


class R2(Regulariser):
    """R1 on fakes."""

    def penalty(self, at: Pass) -> Tensor:
        return norms(at.fake_grad, at.fake.ndim).square().mean(-1)


class GP(Regulariser):
    """mean_i (|grad D(x_i)| - 1)^2 at a uniform mix of a real and a fake each (Gulrajani et al. 2017)."""

    def add(self, fake: Tensor, real: Tensor, axis: int, random: Random) -> Tensor:
        mix = _uniform(real, axis, random)
        return mix * real + (1 - mix) * fake

    def penalty(self, at: Pass) -> Tensor:
        assert at.extra_grad is not None
        return (norms(at.extra_grad, at.real.ndim) - 1).square().mean(-1)


class DRAGAN(GP):
    """GP about the reals (Kodali et al. 2017): x + a std U, a in [0, 1/2) of an image and U in [0, 1) of a pixel."""

    def add(self, fake: Tensor, real: Tensor, axis: int, random: Random) -> Tensor:
        # The deviation of the whole batch, of each network's own where several train side by side.
        spread = real.flatten(axis).std(-1).view(*real.shape[:axis], *[1] * (real.ndim - axis))
        noise = random.rand(real, real.shape)
        return real + _uniform(real, axis, random) * 0.5 * spread * noise


class CR(Regulariser):
    """mean (D(T(x)) - D(x))^2 on reals (Zhang et al. 2020), T a random flip and a translation.

    Args:
        every: here, as of all but LeCam, the first D step of each G iteration; the original has it at all (1).
        flip: half of the images are mirrored (not for digits).
        image: (channels, height, width), where D takes images as rows of pixels.

    Raises:
        RegulariserError (a ValueError), when it is called: rows of pixels without `image`.
    """

    needs_grad = False

    def __init__(
        self, weight: float, every: Every = "first_d_step", flip: bool = True, image: tuple[int, int, int] | None = None
    ) -> None:
        super().__init__(weight, every)
        self.flip, self.image = flip, image

    def add(self, fake: Tensor, real: Tensor, axis: int, random: Random) -> Tensor:
        image = self.image or real.shape[axis + 1 :]
        if len(image) != 3:
            raise RegulariserError(
                f"cr moves images, these are rows of {real.shape[-1]} numbers: say image=(channels, height, width)"
            )
        x = real.reshape(-1, *image)
        mirrored, *shifts = (random.rand(real, real.shape[: axis + 1]).flatten() for _ in range(3))
        steps = [
            (u * (2 * largest_shift(size) + 1)).long() - largest_shift(size) for u, size in zip(shifts, x.shape[-2:])
        ]
        x = fused_diffaugment(x, "translation", Draws(shift_h=steps[0], shift_w=steps[1]))
        if self.flip:
            x = torch.where(mirrored.view(-1, 1, 1, 1) < 0.5, x.flip(-1), x)
        return x.reshape(real.shape)

    def penalty(self, at: Pass) -> Tensor:
        assert at.extra is not None
        return (at.extra - at.real).square().mean(-1)


class LeCam(Regulariser):
    """mean relu(D_R - a_F)^2 + mean relu(a_R - D_F)^2; anchors a are moving averages of logits (Tseng et al. 2021).

    Args:
        decay: of the anchors, from G iteration `start` on (from 1); before it they are the last batch's means.
        start: the penalty is 0 up to this iteration.
    """

    needs_grad = False
    always = False
    anchor_fake: Tensor
    anchor_real: Tensor
    remembered = ("anchor_fake", "anchor_real")

    def __init__(self, weight: float = 0.3, every: Every = 1, decay: float = 0.9, start: int = LECAM_START) -> None:
        super().__init__(weight, every)
        if not 0 <= decay < 1:
            raise RegulariserError(f"decay is {decay}: it lies in [0, 1)")
        self.decay, self.start = decay, start
        for name in self.remembered:
            self.register_buffer(name, torch.zeros(()))

    def due(self, when: When) -> bool:
        return when.iteration > self.start and super().due(when)

    def observe(self, logits: Pass, when: When) -> None:
        for name, values in (("anchor_fake", logits.fake), ("anchor_real", logits.real)):
            new, old = values.detach().mean(-1), getattr(self, name)
            copied = when.iteration < self.start or old.shape != new.shape
            setattr(self, name, new if copied else self.decay * old.to(new) + (1 - self.decay) * new)

    def penalty(self, at: Pass) -> Tensor:
        return lecam(at.real, at.fake, self.anchor_real[..., None], self.anchor_fake[..., None])


def lecam(real: Tensor, fake: Tensor, anchor_real: Tensor, anchor_fake: Tensor) -> Tensor:
    """LeCam's penalty from logits [..., B] at fixed anchors."""
    return (real - anchor_fake).relu().square().mean(-1) + (anchor_real - fake).relu().square().mean(-1)


def _uniform(like: Tensor, axis: int, random: Random) -> Tensor:
    """One number in [0, 1) for each image."""
    return random.rand(like, like.shape[: axis + 1]).view(*like.shape[: axis + 1], *[1] * (like.ndim - axis - 1))


# Where neither the paper nor its code says a weight (all but dig and lecam), it is the literature's usual one.
WEIGHTS = {"none": 0.0, "dig": 500.0, "lecam": 0.3, "r1": 10.0, "r2": 10.0, "gp": 10.0, "dragan": 10.0, "cr": 10.0}
RIVALS: dict[str, type[Regulariser]] = {"lecam": LeCam, "r1": R1, "r2": R2, "gp": GP, "dragan": DRAGAN, "cr": CR}


def build(
    name: Name,
    weight: float | None = None,
    variant: Variant = "official",
    smoothing: float = 0.5,
    every: Every | None = None,
    grad_wrt: WRT = "augmented",
    flip: bool = True,
    image: tuple[int, int, int] | None = None,
    lecam_start: int = LECAM_START,
) -> Regulariser | None:
    """A regulariser by name; None for `none`.

    Args:
        weight: default `WEIGHTS`.
        variant, smoothing, grad_wrt: of dig. `flip`, `image`: of cr. lecam_start: of lecam, see `LeCam`.
        every: default every D step for lecam, the first of each G iteration for the others.

    Raises:
        RegulariserError (a ValueError): an unknown name (the known are listed) or a setting out of its range.
    """
    if name not in WEIGHTS:
        raise RegulariserError(f"unknown regulariser {name!r}: there are {', '.join(WEIGHTS)}")
    if name == "none":
        return None
    weight = WEIGHTS[name] if weight is None else weight
    when = {} if every is None else {"every": every}
    if name == "dig":
        return DIGRegularizer(variant, weight, smoothing, grad_wrt=grad_wrt, **when)
    extra: dict[str, dict[str, Any]] = {"cr": {"flip": flip, "image": image}, "lecam": {"start": lecam_start}}
    own = extra.get(name, {})
    return RIVALS[name](weight, **when, **own)
