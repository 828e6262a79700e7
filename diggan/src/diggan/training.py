"""How the two networks play (sections 2 and 5): updates of D and of G, the schedule of the penalty, G's average.

Serves a single pair of networks and several that train side by side (`population`): images are [..., B, *] and latents
[..., B, latent], with the axes of the networks first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from shared.errors import UserError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diggan.kernels.fused_diffaugment import Draws, fused_diffaugment
from diggan.losses import Adversarial, d_losses, g_loss
from diggan.losses import check as check_loss
from diggan.regulariser import Random, Regulariser, Seen, When, discriminate


@dataclass
class Batch:
    """What one G iteration takes; of each tensor the first axis is the update: D's in order, then G's.

    Where an update accumulates several batches they follow each other, so the axis is so many times as long.

    Args:
        x: reals [d_steps, ..., B, *]; y: their classes, or None.
        z: latents [d_steps + 1, ..., B, latent]; gy: classes of the fakes, or None.
        augment: DiffAugment's draws: of [fake; real] for each update of D, of the fakes for G's (None: none).
        random: what GP, DRAGAN and CR draw from.
    """

    x: Tensor
    y: Tensor | None
    z: Tensor
    gy: Tensor | None
    augment: Sequence[Draws] | None = None
    random: Random | None = None


@dataclass
class Terms:
    """Loss terms of the last update of each kind, one for each network.

    `penalty`: of the last update of D that had one, in whichever iteration (None: there was none yet), and its
    `weight` (0: no regulariser).
    """

    d_real: Tensor
    d_fake: Tensor
    penalty: Tensor | None
    weight: float
    g: Tensor
    real_logits: Tensor
    fake_logits: Tensor


Moment = float | torch.cuda.Event  # seconds of the CPU's clock, or a place in a GPU's queue


class Clock:
    """What part of the time of D's updates the penalty takes: what those with it take longer than those without.

    The first of each kind, which warms up, is left out. A GPU's time is between events in its queue; only `share` waits
    for it.
    """

    def __init__(self) -> None:
        self.seconds = {True: 0.0, False: 0.0}
        self.updates = {True: -1, False: -1}
        self.pending: deque[tuple[bool, torch.cuda.Event, torch.cuda.Event]] = deque()

    @staticmethod
    def now(device: torch.device) -> Moment:
        if device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, penalised: bool, started: Moment, ended: Moment) -> None:
        if isinstance(started, float) and isinstance(ended, float):
            self._count(penalised, ended - started)
            return
        self.pending.append((penalised, cast(torch.cuda.Event, started), cast(torch.cuda.Event, ended)))
        while self.pending and self.pending[0][2].query():
            self._settle()

    def _settle(self) -> None:
        """The oldest of those whose time was not known yet."""
        penalised, started, ended = self.pending.popleft()
        ended.synchronize()
        self._count(penalised, started.elapsed_time(ended) / 1e3)

    def _count(self, penalised: bool, seconds: float) -> None:
        self.updates[penalised] += 1
        if self.updates[penalised]:
            self.seconds[penalised] += seconds

    def share(self) -> float | None:
        """None while either kind has not been timed: where every update has the penalty nothing is known."""
        while self.pending:
            self._settle()
        if min(self.updates.values()) < 1:
            return None
        more = self.seconds[True] - self.updates[True] * self.seconds[False] / self.updates[False]
        return max(0.0, more) / sum(self.seconds.values())


LEAST = 1e-12  # of a loss and of a penalty, for their ratio


class AutoWeight(nn.Module):
    """A weight that keeps the penalty at `target` times the adversarial loss, both averaged (ours, off by default).

    Args:
        target: the ratio.
        decay: of both averages, from one penalised update to the next.

    A hinge loss can be exactly 0. Its average waits for the first that is not, and the weight stays above 0, by which
    the penalty would never be due again: it is negligible until there is a loss for it to be a part of.
    """

    averages: Tensor

    def __init__(self, target: float = 0.1, decay: float = 0.99) -> None:
        super().__init__()
        if not target > 0:
            raise UserError(f"the target of an automatic weight is {target}: it has to be > 0")
        self.target, self.decay = target, decay
        self.register_buffer("averages", torch.full((2,), float("nan")))

    def forward(self, adversarial: Tensor, penalty: Tensor) -> float:
        new = torch.stack([adversarial.detach().mean(), penalty.detach().mean()]).to(self.averages)
        first = torch.stack([new[0].where(new[0] > 0, torch.nan), new[1]])
        later = self.decay * self.averages + (1 - self.decay) * new
        self.averages.copy_(torch.where(self.averages.isnan(), first, later))
        loss, size = self.averages.nan_to_num(0.0).tolist()
        return self.target * max(loss, LEAST) / max(size, LEAST)


class Game(nn.Module):
    """Two networks, what regularises D, and the average of G.

    Args:
        g, d: called as g(z) and d(x), or with classes g(z, y) and d(x, y).
        regularisers: of D.
        loss: `hinge` or `nonsaturating`.
        policy: DiffAugment's, of every image that D gets; empty: none.
        grad_wrt: see `wrt` of `discriminate`.
        ema: decay of the average of G's parameters and buffers; 0: none.
        ema_start: iteration (from 1) before which the average is a copy.
        axis: the batch's; 1 where networks train side by side.
        auto: sets the first regulariser's weight.
        accumulate: batches of each update, whose gradients are averaged; batch statistics, pairs and smoothed norms
            are of each batch by itself.
    """

    def __init__(
        self,
        g: nn.Module,
        d: nn.Module,
        regularisers: Sequence[Regulariser] = (),
        loss: Adversarial = "hinge",
        policy: str = "",
        grad_wrt: Literal["augmented", "raw"] | None = None,
        ema: float = 0.9999,
        ema_start: int = 1000,
        axis: int = 0,
        auto: AutoWeight | None = None,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        check_loss(loss)
        if accumulate < 1:
            raise UserError(f"accumulate is {accumulate}: an update takes at least 1 batch")
        if not 0 <= ema < 1:
            raise UserError(f"ema is {ema}: a decay lies in [0, 1)")
        self.g, self.d, self.regularisers = g, d, nn.ModuleList(regularisers)
        self.loss, self.policy, self.grad_wrt, self.axis, self.auto = loss, policy, grad_wrt, axis, auto
        self.ema, self.ema_start, self.accumulate = ema, ema_start, accumulate
        average = average_from(ema_start, ema, lambda: self.iteration)
        self.average = AveragedModel(g, multi_avg_fn=average, use_buffers=True) if ema else None
        if self.average is not None:
            self.average.requires_grad_(False)
            # What G was initialised to counts: torch would copy G at the first update, wherever the average starts.
            self.average.n_averaged.fill_(1)
        self.iteration = 0  # G iterations done
        self.penalty: Tensor | None = None  # the first regulariser's, of the last update of D that had it
        self.clock = Clock()

    @property
    def sampler(self) -> nn.Module:
        """The generator that is looked at: the average."""
        return self.g if self.average is None else self.average.module

    def generate(self, z: Tensor, y: Tensor | None) -> Tensor:
        return self.g(z) if y is None else self.g(z, y)

    def iterate(
        self,
        batch: Batch,
        opt_g: Any,
        opt_d: Any,
        backward: Callable[[Tensor], Any] = lambda loss: loss.backward(),
    ) -> Terms:
        """One G iteration: an update of D for each of the batch's reals (or `accumulate` of them), then one of G."""
        self.iteration += 1
        self.g.requires_grad_(False)
        self.d.requires_grad_(True)
        for step in range(len(batch.x) // self.accumulate):
            started = self.clock.now(batch.x.device)
            seen, terms, penalised = self.update_d(batch, step, opt_d, backward)
            self.clock.add(penalised, started, self.clock.now(batch.x.device))
        self.g.requires_grad_(True)
        self.d.requires_grad_(False)
        loss = self.update_g(batch, opt_g, backward)
        self.d.requires_grad_(True)
        if self.average is not None:
            self.average.update_parameters(self.g)
        weight = float(next((reg.weight for reg in self.regularisers if isinstance(reg, Regulariser)), 0.0))
        logits = seen.real.detach(), seen.fake.detach()
        return Terms(*terms, self.penalty, weight, loss, *logits)

    def update_d(
        self, batch: Batch, step: int, opt: Any, backward: Callable[[Tensor], Any]
    ) -> tuple[Seen, tuple[Tensor, Tensor], bool]:
        """Logits, D's loss at reals and fakes, and whether it had a penalty; the first regulariser's is kept."""
        when = When(self.iteration, step)
        regularisers = [reg for reg in self.regularisers if isinstance(reg, Regulariser)]
        due = [reg.due(when) for reg in regularisers]
        found = []
        opt.zero_grad()
        for place in range(step * self.accumulate, (step + 1) * self.accumulate):
            y = None if batch.y is None else batch.y[place]
            gy = None if batch.gy is None else batch.gy[place]
            with torch.no_grad():  # G stays in training mode: batch statistics and power iterations go on
                fake = self.generate(batch.z[place], gy)
            seen = discriminate(
                self.d, fake, batch.x[place], gy, y,
                regularisers=regularisers, when=when, augment=self._augment(batch, place), wrt=self.grad_wrt,
                random=batch.random, axis=self.axis,
            )  # fmt: skip
            at_real, at_fake = d_losses(seen.real, seen.fake, self.loss)
            total = (at_real + at_fake).sum()
            if self.auto is not None and due[0]:
                regularisers[0].weight = self.auto(at_real + at_fake, seen.penalties[0])
            for go, reg, value in zip(due, regularisers, seen.penalties):
                if go:
                    total = total + reg.weight * value.sum()
            backward(total / self.accumulate)
            found.append((at_real.detach(), at_fake.detach(), *(value.detach() for value in seen.penalties[:1])))
        opt.step()
        # Mixed precision keeps its copies of the weights until it is left, here after all updates of the iteration.
        torch.clear_autocast_cache()
        at_real, at_fake, *penalty = (torch.stack(parts).mean(0) for parts in zip(*found))
        if due and due[0]:
            self.penalty = penalty[0]
        return seen, (at_real, at_fake), any(due)

    def update_g(self, batch: Batch, opt: Any, backward: Callable[[Tensor], Any]) -> Tensor:
        """G's loss. No penalty is in it, and D's parameters get no gradient."""
        opt.zero_grad()
        losses = []
        for place in range(-self.accumulate, 0):
            gy = None if batch.gy is None else batch.gy[place]
            x = self.generate(batch.z[place], gy)
            augment = self._augment(batch, place)
            x = x if augment is None else augment(x)
            logits = (self.d(x) if gy is None else self.d(x, gy)).flatten(self.axis)
            loss = g_loss(logits.float() if half(logits) else logits, self.loss)
            backward(loss.sum() / self.accumulate)
            losses.append(loss.detach())
        opt.step()
        return torch.stack(losses).mean(0)

    def _augment(self, batch: Batch, place: int) -> Callable[[Tensor], Tensor] | None:
        if not self.policy:
            return None
        assert batch.augment is not None
        draws, image = batch.augment[place], self.d.image

        def augment(x: Tensor) -> Tensor:
            return fused_diffaugment(x.reshape(-1, *image), self.policy, draws).reshape(x.shape)  # type: ignore[misc]

        return augment


def average_from(
    start: int, decay: float, iteration: Callable[[], int]
) -> Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]:
    """For `AveragedModel`: a copy before iteration `start` (from 1), an average with this decay from it on.

    Whole-number buffers (batches seen) are copied. The iteration is asked for where it is a Python number: that of
    `AveragedModel` lies on the device, and every look at it would wait.
    """

    @torch.no_grad()
    def update(average: Sequence[Tensor], current: Sequence[Tensor], done: Any) -> None:
        share = 1.0 if iteration() < start else 1 - decay
        if average[0].is_floating_point():
            torch._foreach_lerp_(list(average), list(current), share)
        else:
            torch._foreach_copy_(list(average), list(current))

    return update


def half(x: Tensor) -> bool:
    return x.dtype in (torch.float16, torch.bfloat16)


def adam(net: nn.Module, lr: float, betas: tuple[float, float] = (0.0, 0.999), eps: float = 1e-8) -> torch.optim.Adam:
    """The authors' optimiser; betas as floats."""
    return torch.optim.Adam(net.parameters(), lr, betas=(float(betas[0]), float(betas[1])), eps=eps, fused=True)
