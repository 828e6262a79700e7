"""What regularises the discriminator, and the one pass of it that serves them all (section 3).

An update of D is one forward pass over [fake; real], with what a regulariser adds appended, and at most one call of
autograd for the inputs' gradients, whichever and however many regularisers ask for them.

Shapes: images [..., B, *], logits [..., B]. The axes before B are those of networks that train side by side; a single
network has none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from shared.errors import UserError
from torch import Tensor, nn

Every = Literal["first_d_step"] | int


class RegulariserError(UserError, ValueError):
    """Settings or batches that a regulariser cannot work with."""


class When(NamedTuple):
    """Where in the training an update of D is: G iteration from 1, D step within it from 0."""

    iteration: int = 1
    d_step: int = 0


class Random:
    """Uniform numbers, each network's from a generator of its own, so that side by side it trains as it does alone.

    Args:
        generators: one for each network; none: PyTorch's global numbers.
    """

    def __init__(self, generators: Sequence[torch.Generator] = ()) -> None:
        self.generators = list(generators)

    def rand(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        """In [0, 1), with dtype and device of `like`; the first axis of several networks' shape is theirs."""
        if len(self.generators) < 2:
            generator = self.generators[0] if self.generators else None
            device = like.device if generator is None else generator.device
            return torch.rand(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
        own = [torch.rand(shape[1:], generator=g, device=g.device, dtype=like.dtype) for g in self.generators]
        return torch.stack(own).to(like.device)


FIRST = When()


@dataclass
class Pass:
    """One pass of D: logits [..., B], and gradients of their sum by the inputs [..., B, *] where they were asked for.

    `grad` is of [fake; real]; `extra` and `extra_grad` of what this regulariser has added (None: nothing).
    """

    fake: Float[Tensor, "*nets B"]
    real: Float[Tensor, "*nets B"]
    grad: Tensor | None = None
    extra: Tensor | None = None
    extra_grad: Tensor | None = None

    @property
    def fake_grad(self) -> Tensor:
        assert self.grad is not None
        return self.grad.chunk(2, self.fake.ndim - 1)[0]

    @property
    def real_grad(self) -> Tensor:
        assert self.grad is not None
        return self.grad.chunk(2, self.fake.ndim - 1)[1]


class Regulariser(nn.Module):
    """Base of all: a weight, a schedule, and a penalty.

    Args:
        weight: of the penalty in D's loss.
        every: `first_d_step` of each G iteration, or all D steps of every so many G iterations.

    Raises:
        RegulariserError (a ValueError): a weight that is negative or no number, or a schedule that does not exist.
    """

    needs_grad = True
    always = True  # called by itself it has its penalty whenever it is called
    grad_wrt: Literal["augmented", "raw"] = "augmented"
    remembered: tuple[str, ...] = ()  # buffers whose size is that of the first batch, or of networks side by side

    def __init__(self, weight: float, every: Every = "first_d_step") -> None:
        super().__init__()
        if isinstance(weight, str) or not 0 <= weight < math.inf:
            raise RegulariserError(f"weight is {weight!r}: a penalty's weight is not negative, and finite")
        if every != "first_d_step" and not (isinstance(every, int) and every >= 1):
            raise RegulariserError(f"every is {every!r}: use first_d_step, or a number of G iterations, at least 1")
        self.weight, self.every = weight, every

    def due(self, when: When) -> bool:
        """Whether this update of D has the penalty."""
        if not self.weight:
            return False
        if self.every == "first_d_step":
            return when.d_step == 0
        return (when.iteration - 1) % self.every == 0

    def add(self, fake: Tensor, real: Tensor, axis: int, random: Random) -> Tensor | None:
        """Inputs to append to the pass, of real images' number and labels."""
        return None

    def observe(self, logits: Pass, when: When) -> None:
        """Called at every update of D, before the penalty."""

    def penalty(self, at: Pass) -> Float[Tensor, "*nets"]:
        """Without the weight. Differentiable."""
        raise TypeError("a regulariser states its penalty")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in self.remembered:  # what is loaded says the size
            if f"{prefix}{name}" in state_dict:
                setattr(self, name, torch.empty_like(state_dict[f"{prefix}{name}"], device=getattr(self, name).device))
        cast(Any, super())._load_from_state_dict(state_dict, prefix, *rest)

    def forward(
        self,
        d: Callable[..., Tensor],
        x_fake: Float[Tensor, "B ..."],
        x_real: Float[Tensor, "B ..."],
        y_fake: Tensor | None = None,
        y_real: Tensor | None = None,
        random: Random | None = None,
        when: When = FIRST,
    ) -> Float[Tensor, ""]:
        """`weight * penalty` from a pass of its own: to be added to the loss of any discriminator.

            reg = DIGRegularizer(weight=10.0)
            loss = loss + reg(d, x_fake, x_real)

        Args:
            d: discriminator, called as d(x), or as d(x, y) where labels are given; gives logits [n] or [n, 1].
            x_fake, x_real: as they are fed to D; the fakes detached from G.
            when: where in the training this is; only LeCam asks, whose anchors and penalty start late.

        Raises:
            RegulariserError (a ValueError): as `discriminate`.
        """
        force = self.always or self.due(when)
        seen = discriminate(
            d, x_fake, x_real, y_fake, y_real, regularisers=[self], force=force, random=random, when=when
        )
        return self.weight * seen.penalties[0].sum()


class Seen(NamedTuple):
    """What `discriminate` returns: logits [..., B], and the penalty [...] of each regulariser (0 where not due)."""

    fake: Tensor
    real: Tensor
    penalties: list[Tensor]


def discriminate(
    d: Callable[..., Tensor],
    fake: Tensor,
    real: Tensor,
    y_fake: Tensor | None = None,
    y_real: Tensor | None = None,
    *,
    regularisers: Sequence[Regulariser] = (),
    when: When = FIRST,
    augment: Callable[[Tensor], Tensor] | None = None,
    wrt: Literal["augmented", "raw"] | None = None,
    random: Random | None = None,
    axis: int = 0,
    force: bool = False,
) -> Seen:
    """One forward pass of D over [fake; real], with the penalties of an update of D.

    Args:
        fake, real: images [..., B, *], before augmentation.
        regularisers: those that are due at `when` (with `force`: all).
        augment: DiffAugment, of fakes and reals together.
        wrt: gradients by the augmented images, as D gets them, or by the raw ones (default: as the regularisers say).
        axis: the batch's, after those of networks side by side.

    Raises:
        RegulariserError (a ValueError): more fakes than reals, or fewer; labels of one half only; a D that does not
            give one logit for each image.
    """
    b, random = real.shape[axis], random or Random()
    if fake.shape[axis] != b:
        raise RegulariserError(
            f"{fake.shape[axis]} fakes and {b} reals: their gradients are compared in pairs, use batches of one size"
        )
    if (y_fake is None) != (y_real is None):
        raise RegulariserError("labels of the fakes and of the reals: give both, or neither")
    wrt = wrt or ("raw" if any(reg.grad_wrt == "raw" for reg in regularisers) else "augmented")
    due = [force or reg.due(when) for reg in regularisers]
    by_gradient = any(go and reg.needs_grad for go, reg in zip(due, regularisers))
    if by_gradient:
        warn_of_batch_norm(d)
    # Mixed precision would round the gradients whose small differences are penalised.
    with torch.autocast(real.device.type, enabled=False) if by_gradient else nullcontext():
        x = torch.cat([fake, real], axis)
        if by_gradient and x.dtype in (torch.float16, torch.bfloat16):
            x = x.float()
        raw = x.detach().requires_grad_() if by_gradient and wrt == "raw" else x
        x = raw if augment is None else augment(raw)
        with torch.no_grad():
            own_fake, own_real = x.narrow(axis, 0, b), x.narrow(axis, b, b)
            added = [reg.add(own_fake, own_real, axis, random) if go else None for go, reg in zip(due, regularisers)]
        extras = [part for part in added if part is not None]
        if extras:
            x = torch.cat([x, *extras], axis)
        if by_gradient and wrt == "augmented":
            x = x.detach().requires_grad_()
        labels = [] if y_real is None else [y_fake, y_real, *[y_real] * len(extras)]
        logits = d(x, torch.cat(labels, axis)) if labels else d(x)  # type: ignore[arg-type]
        logits = logits.flatten(axis)
        if logits.shape[axis] != x.shape[axis]:
            raise RegulariserError(
                f"D gives {logits.shape[axis]} numbers for {x.shape[axis]} images: one logit for each is needed "
                "(of a map of logits take the mean)"
            )
        if logits.dtype in (torch.float16, torch.bfloat16):  # losses and penalties of logits are in float32, too
            logits = logits.float()
        grad = extra_grad = None
        if by_gradient:
            # Of the sum, not the mean: otherwise norms shrink with the batch.
            leaves = [raw, x] if wrt == "raw" and extras else [raw if wrt == "raw" else x]
            grads = torch.autograd.grad(logits.sum(), leaves, create_graph=True, allow_unused=True)
            # None: D does not depend on them at all. A constant D has gradients of 0, and so no gap.
            grad, extra_grad = (
                torch.zeros_like(leaf) if g is None else g
                for g, leaf in ((grads[0], leaves[0]), (grads[-1], leaves[-1]))
            )
        parts = logits.split(b, axis)
        at, penalties = 2, []
        for go, reg, extra in zip(due, regularisers, added):
            seen = Pass(parts[0], parts[1])
            if grad is not None:
                seen.grad = grad.narrow(axis, 0, 2 * b)
            if extra is not None:
                seen.extra = parts[at]
                seen.extra_grad = None if extra_grad is None else extra_grad.narrow(axis, at * b, b)
                at += 1
            reg.observe(seen, when)
            penalties.append(reg.penalty(seen) if go else logits.new_zeros(logits.shape[:axis]))
    return Seen(parts[0], parts[1], penalties)


def warn_of_batch_norm(d: object) -> None:
    """A sample's gradient is taken from the sum of all logits, which batch statistics would mix."""
    if isinstance(d, nn.Module) and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in d.modules()):
        warnings.warn(
            "the discriminator has batch normalisation: gradients of single samples then depend on the whole batch; "
            "use spectral, layer or no normalisation in it",
            stacklevel=3,
        )
