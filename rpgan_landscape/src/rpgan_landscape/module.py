"""How a GAN trains (sections 7, 8 and 11): two players, two optimisers, any loss and pairing, gradient penalties.

An iteration is `g_steps` steps of G and `d_steps` of D, in the order that the reference has for these data. The data
module makes an epoch of so many iterations, and at its end G is looked at.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from typing import Any, Literal, cast

import pytorch_lightning as L
import torch
from shared.errors import UserError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rpgan_landscape import nets
from rpgan_landscape.data import VARIANCE, Batch, GanData
from rpgan_landscape.losses import Generator, Kind, Pairing, RelativisticLoss
from rpgan_landscape.modes import Modes, count_modes, first_covered
from rpgan_landscape.nets.toy import Points
from rpgan_landscape.regularisers import r1_r2, wgan_gp

LOG_EVERY = 50  # iterations
SAMPLES = 2500  # of a look at G on points
DRY_SAMPLES = 32  # images that a dry run evaluates
FAR = 10.0  # times the data's largest coordinate: samples beyond have diverged


class RelativisticGAN(L.LightningModule):
    """A GAN on any data of `GanData`.

    Args:
        network: `two_cluster`, `gaussians`, or one of the image networks (`nets.build` lists them).
        width: of the network; None: its regular one.
        kind, pairing, generator, halve_separable: the loss, see `RelativisticLoss`. With pairing `fixed` the latents
            are drawn once, one for each real point.
        order: `g_first` (the reference on images) or `d_first` (on points, D and G on the same latents).
        d_steps, g_steps: steps of each player in an iteration; every step has its own reals.
        optimiser: `adam` with `betas`, or `sgd` with momentum `betas[0]`.
        lr_g, lr_d: learning rates.
        decay_from: share of the iterations after which both fall linearly to 0 (1: never).
        r1, r2: gammas of the penalties at reals and at fakes; `gamma_end`: they fall to this share of themselves over
            the run (R3GAN: 1 to 0.1), along half a cosine.
        wgan_gp: weight of WGAN-GP.
        normalize_last: D's last weight row is divided by its norm after every step of D (section 5.2); `auto`: for a
            relativistic loss on the Gaussians' network, as in the reference.
        ema: decay of the average of G (parameters and buffers) that is evaluated; 0: none.
        evaluation: settings of `evaluation.evaluate` for images (None: samples are not evaluated).

    Raises:
        UserError: a network or loss that does not exist, or a setting out of its range.
    """

    def __init__(
        self,
        network: str = "cnn32",
        width: int | None = None,
        kind: Kind = "logistic",
        pairing: Pairing = "batch",
        generator: Generator = "nonsaturating",
        halve_separable: bool = False,
        order: Literal["g_first", "d_first"] = "g_first",
        d_steps: int = 1,
        g_steps: int = 1,
        optimiser: Literal["adam", "sgd"] = "adam",
        lr_g: float = 2e-4,
        lr_d: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        decay_from: float = 1.0,
        r1: float = 0.0,
        r2: float = 0.0,
        gamma_end: float = 1.0,
        wgan_gp: float = 0.0,
        normalize_last: Literal["auto", "on", "off"] = "auto",
        ema: float = 0.0,
        evaluation: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.loss = RelativisticLoss(kind, pairing, generator, halve_separable)
        self.network, self.order, self.d_steps, self.g_steps = network, order, d_steps, g_steps
        self.optimiser, self.lr_g, self.lr_d, self.betas = optimiser, lr_g, lr_d, betas
        self.decay_from, self.gamma_end, self.weight_gp = decay_from, gamma_end, wgan_gp
        self.gammas, self.evaluation = (r1, r2), evaluation
        if min(d_steps, g_steps) < 1:
            raise UserError(f"d_steps is {d_steps} and g_steps {g_steps}: both have to be at least 1")
        if not (lr_g > 0 and lr_d > 0):
            raise UserError(f"lr_g is {lr_g} and lr_d {lr_d}: both have to be > 0")
        if not 0 <= ema < 1:
            raise UserError(f"ema is {ema}: a decay lies in [0, 1)")
        if not 0 <= decay_from <= 1:
            raise UserError(f"decay_from is {decay_from}: it is a share of the iterations, in [0, 1]")
        if min(r1, r2, wgan_gp) < 0:
            raise UserError(f"r1 = {r1}, r2 = {r2}, wgan_gp = {wgan_gp}: a penalty's weight is not negative")
        self.G, self.D = nets.build(network, width)
        relativistic = pairing != "separable"
        normalized = normalize_last == "on" or (normalize_last == "auto" and network == "gaussians" and relativistic)
        if normalized and not isinstance(self.D, Points):
            raise UserError(f"normalize_last is for the networks on points, not for {network}: leave it at auto")
        # In a tuple, so that it is not taken for one more part of the module.
        self.normalized = (self.D.last,) if normalized and isinstance(self.D, Points) else ()
        self.average = AveragedModel(self.G, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True) if ema else None
        self.iteration, self.seconds = 0, 0.0
        self.curves: dict[str, list[float]] = {}
        self.final: dict[str, float] = {}
        self.diverged_at: int | None = None

    # Set-up ----------------------------------------------------------------------------------------------------

    @property
    def data(self) -> GanData:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def iterations(self) -> int:
        """Of the whole run."""
        return self.data.iterations_per_epoch * max(1, self.trainer.max_epochs or 1)

    @property
    def reals_per_iteration(self) -> int:
        """Batches of reals that one iteration takes."""
        return self.d_steps + self.g_steps * self.loss.g_needs_real

    @property
    def same_batch(self) -> bool:
        """Whether both players of an iteration meet the same reals and latents, as in the reference on points."""
        return self.order == "d_first"

    def setup(self, stage: str) -> None:
        self.data.draws = 1 if self.same_batch else self.reals_per_iteration
        if (self.loss.pairing == "fixed") != (self.data.pairing == "fixed") and self.loss.pairing != "separable":
            raise UserError(
                f"model.pairing is {self.loss.pairing} and data.pairing {self.data.pairing}: fixed pairs need data in "
                "a fixed order, and the others shuffled ones; set both to fixed, or neither"
            )
        wanted = (3, self.data.size) if self.data.size else ()
        made = nets.NETWORKS[self.network].image
        if made != wanted:
            raise UserError(
                f"network {self.network} makes {_in_words(made)}, {self.data.dataset} has {_in_words(wanted)}: "
                "choose another network, or another size"
            )

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        def make(net: nn.Module, lr: float) -> torch.optim.Optimizer:
            if self.optimiser == "sgd":
                return torch.optim.SGD(net.parameters(), lr, momentum=self.betas[0])
            return torch.optim.Adam(net.parameters(), lr, betas=self.betas, fused=True)

        return [make(self.G, self.lr_g), make(self.D, self.lr_d)]

    def on_fit_start(self) -> None:
        self.data.to_device(self.device)
        if self.trainer.world_size > 1:  # processes share the reals of a batch, so their latents have to differ
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    # Training --------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        started = time.perf_counter()
        self.iterate(batch)
        self.seconds = time.perf_counter() - started

    def iterate(self, batch: Batch) -> None:
        """One iteration."""
        self._schedule()
        opt_g, opt_d = cast(list[Any], self.optimizers())
        single = self.data.draws == 1
        # On points both players of an iteration meet one batch and its latents; on images every step has its own.
        reals = itertools.repeat(batch.x) if single else iter(batch.x)
        n = batch.x.shape[0 if single else 1]
        latents: Iterator[Tensor]
        if batch.z is not None:
            latents = itertools.repeat(batch.z) if single else iter(batch.z)
        elif self.same_batch:
            latents = itertools.repeat(torch.randn(n, self.G.latent, device=self.device))
        else:
            latents = (torch.randn(n, self.G.latent, device=self.device) for _ in itertools.count())
        for player in "gd" if self.order == "g_first" else "dg":
            for _ in range(self.g_steps if player == "g" else self.d_steps):
                if player == "d":
                    d_loss = self.step_critic(opt_d, next(reals), next(latents))
                else:
                    real = next(reals) if self.loss.g_needs_real else None
                    g_loss = self.step_generator(opt_g, real, next(latents))
        self.iteration += 1
        if self.iteration % LOG_EVERY == 0:
            self._log(d_loss, g_loss)

    def step_critic(self, opt: Any, real: Tensor, z: Tensor) -> Tensor:
        """One step of D; fakes are held fixed."""
        with torch.no_grad():
            fake = self.G(z)
        penalised = any(self.gammas)
        if penalised:
            real, fake = real.detach().requires_grad_(), fake.requires_grad_()
        f, r = self.D(fake), self.D(real)  # this order, as spectral norm iterates in every pass
        loss = total = self.loss.d_loss(r, f)
        if penalised:
            gamma = self._gamma()
            total = total + r1_r2(r, real, f, fake, (self.gammas[0] * gamma, self.gammas[1] * gamma)).sum()
        if self.weight_gp:
            total = total + wgan_gp(self.D, real, fake, self.weight_gp)
        opt.zero_grad()
        self.manual_backward(total)
        opt.step()
        with torch.no_grad():
            for layer in self.normalized:
                layer.weight.div_(layer.weight.norm())
        return loss.detach()

    def step_generator(self, opt: Any, real: Tensor | None, z: Tensor) -> Tensor:
        """One step of G; gradients reach G only, but a relativistic loss needs D at reals too."""
        self.D.requires_grad_(False)
        f = self.D(self.G(z))
        r = None if real is None else self.D(real)
        loss = self.loss.g_loss(r, f)
        opt.zero_grad()
        self.manual_backward(loss)
        opt.step()
        self.D.requires_grad_(True)
        if self.average is not None:
            self.average.update_parameters(self.G)
        return loss.detach()

    def _gamma(self) -> float:
        """Of the penalties' weights, what is left at this iteration."""
        done = min(1.0, self.iteration / self.iterations)
        return self.gamma_end + (1 - self.gamma_end) * (1 + math.cos(math.pi * done)) / 2

    def _schedule(self) -> None:
        first = self.decay_from * self.iterations
        if self.iteration < first or first >= self.iterations:
            return
        left = (self.iterations - self.iteration) / (self.iterations - first)
        for optimiser in cast(list[Any], self.optimizers()):
            for group in optimiser.param_groups:
                group["lr"] = group.setdefault("base_lr", group["lr"]) * left

    def _log(self, d_loss: Tensor, g_loss: Tensor) -> None:
        norms = {name: _gradient_norm(net) for name, net in (("g", self.G), ("d", self.D))}
        self.log_dict(
            {"train/d_loss": d_loss, "train/g_loss": g_loss, **{f"train/gradient_{n}": v for n, v in norms.items()}}
        )
        if not (math.isfinite(d_loss.item()) and math.isfinite(g_loss.item())):
            self._stop()
        self.curves.setdefault("d_loss", []).append(d_loss.item())

    def _stop(self) -> None:
        if self.diverged_at is None:
            self.diverged_at = self.iteration
        self.trainer.should_stop = True

    # Looking at G ----------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> nets.Generator:
        """The generator that is evaluated: the average, where one is kept."""
        return self.G if self.average is None else cast(nets.Generator, self.average.module)

    def on_train_epoch_end(self) -> None:
        if self.data.centres is None:
            return
        found = self.look()
        self.curves.setdefault("modes", []).append(found.covered)
        self.curves.setdefault("high_quality", []).append(found.high_quality)
        self.log_dict({"modes": float(found.covered), "high_quality": found.high_quality})
        if len(found.shares) <= 5:
            self.log_dict({f"fakes/mode_{k + 1}": share for k, share in enumerate(found.shares)})

    @torch.no_grad()
    def look(self) -> Modes:
        """Modes covered by 2500 samples; samples far outside the data mean that training has diverged."""
        centres = self.data.centres
        assert centres is not None
        samples = self.sampler(torch.randn(SAMPLES, self.G.latent, device=self.device))
        if not (samples.abs().amax(1) <= FAR * centres.abs().max()).double().mean() > 0.5:
            self._stop()
        return count_modes(samples, centres, VARIANCE)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Everything at the first batch: samples are compared with the whole reference part."""
        if batch_idx:
            return
        if self.data.centres is not None:
            self._test_points()
        elif self.evaluation is not None:
            from rpgan_landscape.evaluation import evaluate

            settings = dict(self.evaluation)
            if getattr(self.trainer, "fast_dev_run", False):
                settings |= {"samples": DRY_SAMPLES, "score_samples": DRY_SAMPLES}
            with torch.inference_mode(False), torch.enable_grad():  # a classifier may be trained on the spot
                self.final |= evaluate(self.sampler, self.data, **settings)
        lately = self.curves.get("d_loss", [])[-20:]
        if lately and all(math.isfinite(v) for v in lately):
            self.final["d_loss"] = sum(lately) / len(lately)
        self.final["diverged"] = float(self.diverged_at is not None)
        self.final["diverged_at"] = float(self.iterations if self.diverged_at is None else self.diverged_at)
        self.log_dict(self.final)

    def _test_points(self) -> None:
        found = self.look()
        covered = [int(v) for v in self.curves["modes"]]
        k = len(self.data.centres)  # type: ignore[arg-type]
        first = first_covered(covered, k)
        self.final |= {
            "modes": float(found.covered),
            "all_modes": float(found.covered == k),
            "high_quality": found.high_quality,
            # A run that never covers them all counts with its length, as it has no later time.
            "first_all_modes": float(
                self.iterations if first is None else (first + 1) * self.data.iterations_per_epoch
            ),
            "found_all_modes": float(first is not None),
        }

    def results(self) -> dict[str, Any]:
        """Final metrics, and curves over epochs (`modes`, `high_quality`) or every 50 iterations (`d_loss`)."""
        curves = {f"curve/{name}": [v for v in values if math.isfinite(v)] for name, values in self.curves.items()}
        return {**self.final, **curves, **self.planned()}

    def planned(self) -> dict[str, float]:
        """Of a dry run: sizes of the networks, and seconds that an epoch would take by the one step that was made."""
        if not getattr(self.trainer, "fast_dev_run", False):
            return {}
        sizes = {
            f"plan/parameters of {name}": float(nets.parameters(net)) for name, net in (("G", self.G), ("D", self.D))
        }
        return {**sizes, "plan/seconds an epoch": self.seconds * self.data.iterations_per_epoch}

    # Checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gan"] = {"iteration": self.iteration, "curves": self.curves, "diverged_at": self.diverged_at}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["gan"]
        self.iteration, self.curves, self.diverged_at = saved["iteration"], saved["curves"], saved["diverged_at"]


def _in_words(image: tuple[int, ...]) -> str:
    return f"images of {image[1]} x {image[1]} pixels" if image else "points"


def _gradient_norm(net: nn.Module) -> Tensor:
    norms = [p.grad.norm() for p in net.parameters() if p.grad is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())
