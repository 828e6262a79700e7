"""How DigGAN trains (sections 2, 5 and 9): the game of `training`, as a Lightning module with its looks and its log."""

from __future__ import annotations

import io
import logging
import math
import time
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as L
import torch
from pytorch_lightning.strategies import DDPStrategy
from shared.errors import UserError
from shared.runs.store import write_atomic
from torch import Tensor

from diggan import nets
from diggan.data import LimitedImages
from diggan.data.images import Source, spread
from diggan.evaluation import (
    NEIGHBOURS,
    EvalBN,
    Judge,
    check_eval_bn,
    d_statistics,
    latents,
    rounded,
    sample,
    summary,
    thumbnails,
)
from diggan.features import InceptionFeatures, inception_file, local_features
from diggan.gradient_gap import WRT, Variant
from diggan.kernels.fused_diffaugment import parse_policy
from diggan.losses import Adversarial
from diggan.nets import Network
from diggan.regulariser import Every
from diggan.rivals import LECAM_START, Name, build
from diggan.scores import SPLITS
from diggan.training import AutoWeight, Batch, Game, Terms, adam

log = logging.getLogger(__name__)
LOG_EVERY = 50
LOOKED_AT = 1000  # training and held-out images that D's statistics are over, at most


class DigGAN(L.LightningModule):
    """A GAN on any data of `LimitedImages`.

    Args:
        network, width, classes, latent, shared_embedding, attention: see `nets.build` (classes default: 10).
        regulariser: `none`, `dig`, `lecam`, `r1`, `r2`, `gp`, `dragan` or `cr`.
        weight: of its penalty (default: `rivals.WEIGHTS`); `auto`: see `AutoWeight`, with the ratio `auto_target`.
        variant, smoothing, every, grad_wrt: see `DIGRegularizer` (and `every` of all).
        lecam_start: see `LeCam`.
        loss: `hinge` or `nonsaturating`.
        policy: DiffAugment's, such as `translation,cutout`; empty: none.
        d_steps: updates of D in a G iteration.
        accumulate: batches of each update, see `Game`.
        lr_g, lr_d, betas: of Adam.
        ema, ema_start: of G's average, see `Game`.
        eval_bn: how the sampled generator normalises, see `evaluation.untouched`.
        samples: images of a look; `final_samples`: at the end.
        pictures: samples that the result keeps for a picture, see `thumbnails`.
        inception: file of Inception weights, see `InceptionFeatures`; looked for under the data root, too (None: a
            classifier trained on the data, FID-local). A run without the file does not begin; a dry run goes on by
            FID-local, and says so.

    In mixed precision, gradients that are penalised are computed in float32, and so is what is computed from logits.
    Several processes need the strategy `ddp_find_unused_parameters_true`: the networks take turns. Each has smoothed
    norms (or anchors), images and latents of its own, and gradients are averaged: N processes with B images each are
    one with N B, but for penalties of means over the batch or by LeCam's anchors, and batch normalisation.

    Raises:
        UserError: a name that does not exist, or a setting out of its range.
    """

    def __init__(
        self,
        network: Network = "mlp64",
        width: int | None = None,
        classes: int | None = None,
        latent: int | None = None,
        shared_embedding: bool = False,
        attention: bool = False,
        regulariser: Name = "none",
        weight: float | str | None = None,
        auto_target: float = 0.1,
        variant: Variant = "official",
        smoothing: float = 0.5,
        lecam_start: int = LECAM_START,
        every: Every | None = None,
        grad_wrt: WRT = "augmented",
        loss: Adversarial = "hinge",
        policy: str = "",
        d_steps: int = 2,
        accumulate: int = 1,
        lr_g: float = 5e-4,
        lr_d: float = 5e-4,
        betas: tuple[float, float] = (0.0, 0.999),
        ema: float = 0.99,
        ema_start: int = 100,
        eval_bn: EvalBN = "batch",
        samples: int = 2000,
        final_samples: int = 2000,
        pictures: int = 0,
        inception: str | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if d_steps < 1:
            raise UserError(f"d_steps is {d_steps}: it has to be at least 1")
        if not (lr_g > 0 and lr_d > 0):
            raise UserError(f"lr_g is {lr_g} and lr_d {lr_d}: both have to be > 0")
        if not all(0 <= beta < 1 for beta in betas):
            raise UserError(f"betas is {betas}: both lie in [0, 1)")
        if samples < 2 or final_samples < SPLITS:
            raise UserError(
                f"samples is {samples} and final_samples {final_samples}: distances need at least 2, the inception "
                f"score's splits at least {SPLITS}"
            )
        if isinstance(weight, str) and weight != "auto":
            raise UserError(f"weight is {weight!r}: give a number, or auto")
        if weight == "auto" and regulariser == "none":
            raise UserError("weight is auto without a penalty: choose a regulariser, or leave the weight out")
        parse_policy(policy)
        check_eval_bn(eval_bn)
        self.d_steps, self.lr_g, self.lr_d, self.betas = d_steps, lr_g, lr_d, betas
        self.eval_bn, self.samples, self.final_samples, self.inception = eval_bn, samples, final_samples, inception
        self.pictures = pictures
        g, d = nets.build(network, width, 10 if classes is None else classes, latent, shared_embedding, attention)
        auto = AutoWeight(auto_target) if weight == "auto" else None
        first = 1.0 if weight == "auto" else cast("float | None", weight)
        # CR moves images by whole pixels and mirrors those whose mirror image is one of them, too.
        flip, image = network.startswith("biggan"), cast(tuple[int, int, int], d.image)
        own = build(regulariser, first, variant, smoothing, every, grad_wrt, flip, image, lecam_start)
        self.game = Game(
            g, d, [own] if own else [], loss, policy, grad_wrt, ema, ema_start, auto=auto, accumulate=accumulate
        )
        self.network, self.regulariser = network, own
        # What regularisers remember: DDP would give every process the first one's.
        names = [name for name, _ in self.named_buffers(remove_duplicate=False)]
        self._ddp_params_and_buffers_to_ignore = [n for n in names if n.startswith(("regulariser.", "game.regularis"))]
        self.curves: dict[str, list[float]] = {}
        self.final: dict[str, float] = {}
        self.thumbnails: dict[str, list[float]] = {}
        self.seconds = 0.0
        self.last: Terms | None = None

    # Set-up ----------------------------------------------------------------------------------------------------

    @property
    def data(self) -> LimitedImages:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def plan_options(self) -> dict[str, Any]:
        """What the batches have to hold."""
        g = self.game.g
        kept = {"d_steps": self.d_steps, "accumulate": self.game.accumulate, "policy": self.game.policy}
        return {**kept, "latent": g.latent, "classes": g.classes}

    def setup(self, stage: str) -> None:
        self.check(self.data.source)
        self.data.plan_options = self.plan_options()

    def check(self, source: Source) -> None:
        """Before training.

        Raises:
            UserError: images of another shape or another number of classes than the network's, or so few in the
                reference set that samples could not be compared with them.
        """
        wanted = tuple(self.game.d.image)  # type: ignore[arg-type]
        if source.shape != wanted:
            missing = ["data.to_rgb"] if source.shape[0] < wanted[0] else []
            missing += ["data.resize"] if source.shape[1:] != wanted[1:] else []
            # Colours are not made grey.
            other = "" if source.shape[0] > wanted[0] else f", or set {' and '.join(missing)}"
            raise UserError(
                f"network {self.network} takes images of {_in_words(wanted)}, {source.name} has "
                f"{_in_words(source.shape)}: choose another network{other}"
            )
        if self.game.d.classes and int(self.game.d.classes) != source.classes:  # type: ignore[arg-type]
            raise UserError(f"classes is {self.game.d.classes}: {source.name} has {source.classes}; set model.classes")
        if len(source.test_labels) <= NEIGHBOURS:
            raise UserError(
                f"{source.name} has {len(source.test_labels)} reference images: precision and recall are by the "
                f"{NEIGHBOURS}th neighbour, so give at least {NEIGHBOURS + 1}"
            )

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [adam(self.game.g, self.lr_g, self.betas), adam(self.game.d, self.lr_d, self.betas)]

    def on_fit_start(self) -> None:
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters"):
            raise UserError("trainer.strategy: use ddp_find_unused_parameters_true, as the two networks take turns")
        self.data.to_device(self.device)
        if self.trainer.world_size > 1:  # every process has batches and latents of its own
            self.data.seed += 1_000_003 * self.global_rank
        if self.global_rank == 0 and not getattr(self.trainer, "fast_dev_run", False):
            self.data.save_subset(Path(self.trainer.default_root_dir))

    def on_test_start(self) -> None:
        self.data.to_device(self.device)

    # Training --------------------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        if not self.curves:
            self.look()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        opt_g, opt_d = cast(list[Any], self.optimizers())
        logged = (self.game.iteration + 1) % LOG_EVERY == 0
        # What is logged, or said of a dry run, is the time of what was computed: of all of it, and nothing before it.
        timed = logged or bool(getattr(self.trainer, "fast_dev_run", False))
        if timed:
            self.wait()
        started = time.perf_counter()
        terms = self.last = self.game.iterate(batch, opt_g, opt_d, self.manual_backward)
        if timed:
            self.wait()
            self.seconds = time.perf_counter() - started
        if logged:
            self._log(terms, len(batch.x) * batch.x.shape[1] / self.seconds)

    def wait(self) -> None:
        """For what a GPU has been given to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _log(self, terms: Terms, rate: float) -> None:
        out: dict[str, Any] = {
            "train/d_real": terms.d_real,
            "train/d_fake": terms.d_fake,
            "train/g": terms.g,
            "train/logit_real": terms.real_logits.mean(),
            "train/logit_fake": terms.fake_logits.mean(),
            "train/images_per_second": rate,
            "train/weight": terms.weight,
        }
        if terms.penalty is not None:
            out["train/penalty"] = terms.penalty
        if (share := self.game.clock.share()) is not None:
            out["train/penalty_share_of_d"] = share
        self.log_dict(out, batch_size=1)

    def on_train_epoch_end(self) -> None:
        self.look()

    # Looks -----------------------------------------------------------------------------------------------------

    def judge(self) -> Judge:
        if not hasattr(self, "_judge"):
            weights = inception_file(self.inception) if self.inception else None
            if weights and not weights.is_file() and getattr(self.trainer, "fast_dev_run", False):
                log.warning("%s is missing: this dry run goes on without it, the run will not", weights)
                weights = None
            if weights:
                extractor: Any = InceptionFeatures(weights, self.device)
            else:
                folder = Path(self.trainer.default_root_dir).parent / "features"
                extractor = local_features(self.data.source, folder, self.device)
            # In a tuple, so that it is not taken for a part of the module.
            self._judge = (Judge(extractor, self.data.reference()),)
            validation = self.data.validation()
            self._validation = extractor.extract(validation)[0] if len(validation) > 1 else None
        return self._judge[0]

    def look(self) -> None:
        """Samples against the reference (and validation) images, and D's statistics; appended to the curves."""
        dry = bool(getattr(self.trainer, "fast_dev_run", False))
        count = 64 if dry else self.samples
        values = self.looked(count) | self.losses()
        if not dry and values["fid"] <= min(self.curves.get("fid", [math.inf])):
            self.save_best()
        for name, value in values.items():
            self.curves.setdefault(name, []).append(value)
        self.log_dict({f"val/{name}": value for name, value in values.items() if math.isfinite(value)}, batch_size=1)

    def losses(self) -> dict[str, float]:
        """Of the last iteration; none before training."""
        if self.last is None:
            return {}
        out = {"d_loss": float(self.last.d_real + self.last.d_fake), "g_loss": float(self.last.g)}
        return out if self.last.penalty is None else {**out, "penalty": float(self.last.penalty)}

    def save_best(self) -> None:
        """`best.ckpt` beside the run: what had the lowest FID so far, for `diggan.evaluate`."""
        if self.global_rank == 0:
            content = io.BytesIO()
            torch.save({"state_dict": self.state_dict(), "iteration": self.game.iteration}, content)
            write_atomic(Path(self.trainer.default_root_dir) / "best.ckpt", content.getvalue())

    def looked(self, count: int) -> dict[str, float]:
        judge = self.judge()
        fakes = sample(self.game.sampler, count, self.eval_bn, self.data.batch_size, self.data.seed)
        features = judge.extractor.extract(fakes)[0]
        out = {"fid": judge.frechet(features)}
        if self._validation is not None:
            out["val_fid"] = judge.frechet(features, self._validation)
        rows = spread(len(self.data.images), min(LOOKED_AT, count)).to(self.device)
        held_out, test_labels = (part.to(self.device) for part in self.data.held_out(LOOKED_AT))
        n = len(rows)
        labels: list[Tensor | None] = [None, None, None]
        if self.game.d.classes:
            made_as = cast(Tensor, latents(self.game.sampler, count, self.data.seed)[1])[:n]
            labels = [self.data.labels[rows], test_labels, made_as.to(self.device)]
        statistics = d_statistics(
            self.game.d, self.data.images[rows], held_out, fakes[:n].to(self.device), labels, batch=250
        )
        return out | {name: value.item() for name, value in statistics.items()}

    def test_step(self, batch: Any, batch_idx: int) -> None:
        count = 64 if getattr(self.trainer, "fast_dev_run", False) else self.final_samples
        fakes = sample(self.game.sampler, count, self.eval_bn, self.data.batch_size, self.data.seed)
        self.final = self.judge().scores(fakes, self.data.images.cpu())
        self.thumbnails = thumbnails(fakes, self.data.images.cpu(), self.pictures)
        self.log_dict(
            {f"test/{name}": value for name, value in self.final.items() if "features/" not in name}, batch_size=1
        )

    def results(self) -> dict[str, Any]:
        """Final metrics, and curves over looks: one before training, one after each epoch."""
        curves = {f"curve/{name}": rounded(values) for name, values in self.curves.items()}
        out: dict[str, Any] = {**self.final, **(summary(self.curves) if self.curves else {}), **curves}
        out |= self.thumbnails
        out["subset"] = float(self.data.subset_crc)
        if getattr(self.trainer, "fast_dev_run", False):
            out |= {**self.sizes(), "plan/seconds an iteration": self.seconds}
        return out

    def sizes(self) -> dict[str, float]:
        nets_ = {"G": self.game.g, "D": self.game.d}
        return {f"plan/parameters of {name}": float(nets.parameters(net)) for name, net in nets_.items()}

    # Checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gan"] = {"iteration": self.game.iteration, "curves": self.curves, "penalty": self.game.penalty}
        if self.trainer.world_size > 1:
            state = checkpoint["state_dict"]
            every = {
                name: cast(Tensor, self.all_gather(state[name])).cpu()
                for name in self._ddp_params_and_buffers_to_ignore
            }
            checkpoint["gan"]["every process"] = every

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.game.iteration, self.curves = checkpoint["gan"]["iteration"], checkpoint["gan"]["curves"]
        self.game.penalty = checkpoint["gan"].get("penalty")
        state, here = checkpoint["state_dict"], self.trainer.world_size
        of_all = checkpoint["gan"].get("every process", {})
        saved = here
        for name in self._ddp_params_and_buffers_to_ignore:
            values = of_all.get(name, state[name][None])  # one process alone saves no more than its own
            saved = len(values)
            # Empty: as before the first batch. The first process's, given to all, would be none of the others' own.
            state[name] = values[self.global_rank] if saved == here else torch.empty(0)
        if saved != here and self.global_rank == 0:
            log.warning(
                "the checkpoint is of %d process%s, there %s %d here: what the regulariser remembers starts anew",
                saved, "es" * (saved > 1), "are" if here > 1 else "is", here,
            )  # fmt: skip


def _in_words(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{height} x {width} pixels in {channels} channel{'s' * (channels != 1)}"
