"""How the networks train (sections 3.1, 6 and 8): the classifier, and the pyramid with the light head."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytorch_lightning as L
import torch
from jaxtyping import Float, Int64
from pytorch_lightning.loggers import WandbLogger
from shared.errors import UserError
from torch import Tensor, nn
from torch.nn import functional as F

from autofocusformer.backbone import PATCH, VARIANTS, AutoFocusFormer, BackboneConfig, Level, Pyramid
from autofocusformer.checkpoint import load_weights, read_checkpoint, weights_of
from autofocusformer.data.module import Images, Scenes
from autofocusformer.heads.light import LightHead
from autofocusformer.macs import points_by_stage
from autofocusformer.metrics import Coverage, SegmentationScore
from autofocusformer.sampling import grid_prior
from autofocusformer.variants import STRIDES

LEVELS = ("res2", "res3", "res4", "res5")
LOG_EVERY = 50
NO_DECAY = ("blank_k", "blank_v", "level_embed", "query_feat", "query_embed")  # embeddings, beside norms and biases
DROPS = 92_188, 81_945, 88_773  # steps of COCO's recipe, and those at which its rate drops; others in proportion
REQUIRED = "required"  # of `weights`, in recipes that do not start from scratch

log = logging.getLogger(__name__)


def backbone_config(variant: str, changes: dict[str, Any] | None) -> BackboneConfig:
    """A variant, with some of its settings changed.

    Raises:
        UserError: no such variant or setting.
    """
    if variant not in VARIANTS:
        raise UserError(f"unknown variant {variant!r}: there are {', '.join(VARIANTS)}")
    try:
        return replace(VARIANTS[variant], **(changes or {}))
    except TypeError as error:
        raise UserError(f"backbone: {str(error).split('.')[-1].replace('__init__() ', '')}") from None


def start_from(backbone: nn.Module, path: str, average: bool = False) -> None:
    """The weights of a released file (with `average` their average), or of a checkpoint of a run here, into a backbone.

    Heads and last norms differ between a classifier, another number of classes and a pyramid: those that do not fit are
    dropped, and the log says which. Everything else has to fit.

    Raises:
        UserError: no such file, or another network's weights.
    """
    found, within = read_checkpoint(path), "backbone."
    if "autofocusformer" in found and not average:
        state = found["state_dict"]
        weights = {name.removeprefix(within): value for name, value in state.items() if name.startswith(within)}
    else:
        weights = weights_of(found, average, path)
    own = backbone.state_dict()
    dropped = []
    for name in [name for name in {**own, **weights} if re.match(r"(head|norm\d?)\.", name)]:
        if name not in own or name not in weights or own[name].shape != weights[name].shape:
            if weights.pop(name, None) is not None:
                dropped.append(name)
            if name in own:
                weights[name] = own[name]
    load_weights(backbone, weights, path)
    log.warning("starting from %s; dropped: %s", path, ", ".join(dropped) or "nothing")


def adamw(
    module: nn.Module, lr: float, weight_decay: float, backbone_factor: float = 1.0, fused: bool = False
) -> torch.optim.Optimizer:
    """AdamW without decay of biases, norms and embeddings; the backbone learns at `backbone_factor` x `lr`.

    `fused`: one kernel for all parameters of a group in place of a dozen for each, the same to rounding.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        plain = parameter.ndim < 2 or name.endswith(NO_DECAY)
        groups.setdefault((name.startswith("backbone."), plain), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": 0.0 if plain else weight_decay,
                "lr": lr * (backbone_factor if within else 1),
            }
            for (within, plain), parameters in groups.items()
        ],
        betas=(0.9, 0.999),
        eps=1e-8,
        fused=fused or None,
    )


def factor_at(step: int, steps: int, warm_up: int, schedule: str, least: float, start: float) -> float:
    """The learning rate at a step, in units of its peak.

    Args:
        steps: of the whole training.
        warm_up: steps of a linear rise from `start`.
        schedule: `cosine` down to `least`, `poly` (power 0.9, to 0), `constant`, or `steps` (x 0.1 at each of `DROPS`,
            counted from the start of the warm-up).
    """
    if step < warm_up:
        return start + (1 - start) * step / warm_up
    done = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    if schedule == "cosine":
        return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "poly":
        return (1 - done) ** 0.9
    if schedule == "steps":
        whole, *edges = DROPS
        return 0.1 ** sum(step * whole >= edge * steps for edge in edges)
    return 1.0


SCHEDULES = ("cosine", "poly", "constant", "steps")


class Trained(L.LightningModule):
    """What all trainings share: AdamW, its schedule by step, and curves for the ledger.

    Args:
        lr, weight_decay: of AdamW.
        backbone_factor: the backbone's learning rate in units of `lr`.
        warm_up, schedule, least, start: see `factor_at`.
        weights: a file that the backbone starts from (see `start_from`); `required`: the recipe does not say which, but
            is not meant to start from scratch; None: from scratch.
        average: of a released file, the average of the weights over its training (`model_ema`) instead.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float,
        backbone_factor: float,
        warm_up: int,
        schedule: str,
        least: float,
        start: float,
        weights: str | None = None,
        average: bool = False,
    ) -> None:
        super().__init__()
        if not lr > 0 or weight_decay < 0 or warm_up < 0:
            raise UserError(f"lr is {lr}, weight_decay {weight_decay}, warm_up {warm_up}: lr > 0, the others >= 0")
        if schedule not in SCHEDULES:
            raise UserError(f"schedule is {schedule!r}: choose {', '.join(SCHEDULES)}")
        self.lr, self.weight_decay, self.backbone_factor = lr, weight_decay, backbone_factor
        self.warm_up, self.schedule, self.least, self.start = warm_up, schedule, least, start
        self.weights, self.average = weights, average
        self.config: BackboneConfig
        self.settings: dict[str, Any] = {}
        self.log_every = LOG_EVERY
        self.curves: dict[str, list[float]] = {}
        self.tokens = 0
        self.since: float | None = None
        self.final: dict[str, float] = {}
        self.pictured: dict[str, list[float]] = {}

    @property
    def data(self) -> Images:
        return cast(Images, self.trainer.datamodule)  # type: ignore[attr-defined]

    def start_backbone(self, backbone: nn.Module) -> None:
        """From `weights`, if there are any; not where a run goes on, or a trained network is tested."""
        if self.trainer.ckpt_path is not None:
            return  # about to be read, with all weights in it
        if self.weights != REQUIRED:
            if self.weights is not None:
                start_from(backbone, self.weights, self.average)
        elif getattr(self.trainer, "fast_dev_run", False):
            log.warning("this recipe starts from weights: this dry run goes on without them")
        else:
            raise UserError(
                "this recipe needs weights to start from: give a released file or final.ckpt of a training on ImageNet "
                "(imagenet.yaml) as model.init_args.weights; null trains from scratch"
            )

    def configure_optimizers(self) -> Any:
        # Lightning refuses to clip gradients of a fused optimiser in mixed precision.
        fused = self.trainer.precision == "32-true"
        optimizer = adamw(self, self.lr, self.weight_decay, self.backbone_factor, fused)
        steps = int(self.trainer.estimated_stepping_batches)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda s: factor_at(s, steps, self.warm_up, self.schedule, self.least, self.start)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def due(self, index: int) -> bool:
        """Whether the curves have a point here: at the first of the batches that a step accumulates, every so often."""
        return self.global_step % self.log_every == 0 and index % self.trainer.accumulate_grad_batches == 0

    def note(self, values: dict[str, float]) -> None:
        """A point of each curve, in the results and in the log; the speed since the last one in the log alone."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append(value)
        logged, now = {f"train/{name}": value for name, value in values.items()}, time.perf_counter()
        if self.since is not None:
            logged["train/tokens_per_second"] = self.tokens / (now - self.since)
        self.tokens, self.since = 0, now
        self.log_dict(logged, batch_size=1)

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        """Counts the tokens that went through this device's four stages."""
        images = batch[0]
        canvas = (-(-images.shape[2] // PATCH), -(-images.shape[3] // PATCH))
        self.tokens += len(images) * sum(points_by_stage(self.config, canvas))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["curves"] = self.curves
        # What it takes to build the network again without the run's folder (see `trained.load`).
        about: dict[str, Any] = {"kind": type(self).__name__, "settings": self.settings}
        about |= {"names": list(self.data.names), "small": list(self.data.small), "things": self.data.things}
        checkpoint["autofocusformer"] = about

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.curves = checkpoint["curves"]

    def results(self) -> dict[str, Any]:
        """Test metrics, and curves: one point every 50 steps, or as `log_every` says."""
        out: dict[str, Any] = self.final | self.pictured
        for name, values in self.curves.items():
            out[f"curve/{name}"] = [round(value, 6) for value in values]
        if "loss" in self.curves:
            first, last = self.curves["loss"][0], self.curves["loss"][-1]
            out |= {"loss/first": first, "loss/last": last, "loss/ratio": last / first}
        out["parameters"] = float(sum(p.numel() for p in self.parameters()))
        return out


def _cell(positions: Int64[Tensor, "b n 2"], w: int) -> Int64[Tensor, "b n"]:
    """Which of the canvas's cells, counted along rows of w."""
    return positions[..., 1] * w + positions[..., 0]


def first_importance(levels: Sequence[Level]) -> dict[str, list[float]]:
    """Of a batch's first image, for a figure: the importance of each cell of stage 1, row by row, and what was kept."""
    first = levels[0]
    assert first.importance is not None
    h, w = first.canvas
    order = _cell(first.positions[:1], w)[0].argsort()
    return {
        "picture/canvas": [float(h), float(w)],
        "picture/importance": [round(value, 3) for value in first.importance[0, order].float().tolist()],
        "picture/kept": [float(value) for value in levels[1].positions[0].flatten().tolist()],
    }


class Segmenter(Trained):
    """A pyramid with the light head, by cross entropy.

    Args:
        variant, backbone: of the backbone, and settings of it that differ (`sampling`, `rate`, `alpha`, ...).
        levels: which of res2..res5 the head reads.
        head_width: see `LightHead`.
        object_weight: weight of the small classes in the loss (1: plain cross entropy).
        log_every: steps from one point of the curves to the next.
        lr and so on: see `Trained`.
    """

    class_weight: Tensor

    def __init__(
        self,
        variant: str = "nano",
        backbone: dict[str, Any] | None = None,
        levels: list[str] | None = None,
        head_width: int = 64,
        object_weight: float = 1.0,
        log_every: int = LOG_EVERY,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        backbone_factor: float = 1.0,
        warm_up: int = 0,
        schedule: str = "cosine",
        least: float = 0.01,
        start: float = 1e-3,
        weights: str | None = None,
        average: bool = False,
    ) -> None:
        super().__init__(lr, weight_decay, backbone_factor, warm_up, schedule, least, start, weights, average)
        self.config = backbone_config(variant, backbone)
        self.levels = list(LEVELS) if levels is None else levels
        if not self.levels or set(self.levels) - set(LEVELS):
            raise UserError(f"levels is {self.levels}: choose from {', '.join(LEVELS)}")
        if log_every < 1:
            raise UserError(f"log_every is {log_every}: it has to be at least 1")
        self.head_width, self.object_weight, self.log_every = head_width, object_weight, log_every
        self.settings = {"variant": variant, "backbone": backbone, "levels": self.levels, "head_width": head_width}

    def build(self, classes: int, small: Sequence[int] = (), names: Sequence[str] = ()) -> None:
        """The networks for so many classes; called with the data's own before training, by hand for inference."""
        self.read = [LEVELS.index(name) for name in self.levels]
        self.backbone = Pyramid(self.config, self.read)
        self.head = LightHead([self.config.widths[i] for i in self.read], classes, self.head_width)
        self.score, self.coverage = SegmentationScore(classes, small, names), Coverage(3)
        weight = torch.ones(classes)
        weight[list(small)] = self.object_weight
        self.register_buffer("class_weight", weight, persistent=False)

    def configure_model(self) -> None:
        self.data.of_oracle = self.config.sampling == "oracle"
        if not hasattr(self, "head"):
            self.data.setup("fit")
            self.build(self.data.classes, self.data.small, self.data.names)
            self.start_backbone(self.backbone)

    def forward(
        self, images: Float[Tensor, "b 3 h4 w4"], oracle: Float[Tensor, "b h w"] | None = None
    ) -> tuple[Float[Tensor, "b classes h4 w4"], list[Level]]:
        """Class scores of every pixel, and the tokens they came from."""
        levels = self.backbone(images, oracle)
        read = [levels[i] for i in self.read]
        scores = self.head([level.features for level in read], [level.positions for level in read], levels[0].canvas)
        return scores[..., : images.shape[2], : images.shape[3]], levels

    def loss(self, scores: Float[Tensor, "b c h w"], labels: Int64[Tensor, "b h w"]) -> Tensor:
        return F.cross_entropy(scores.float(), labels, self.class_weight, ignore_index=255)

    def training_step(self, batch: Scenes, index: int) -> Tensor:
        scores, levels = self(batch.images, batch.oracle)
        loss = self.loss(scores, batch.labels)
        if self.due(index):
            self.note({"loss": loss.item()} | self.looked_at(levels, batch))
        return loss

    @torch.no_grad()
    def looked_at(self, levels: list[Level], batch: Scenes) -> dict[str, float]:
        """Of this batch: coverage of each sampling, spread of the importance, share of kept points on the grid prior.

        The prior is that of the points before the sampling: from the second sampling on, the locally next coarser grid.
        """
        coverage = Coverage(3).to(self.device)
        coverage.update(batch.objects, [level.positions for level in levels[1:]])
        out = {name: value.item() for name, value in coverage.compute().items() if name.startswith("coverage")}
        for number, level in enumerate(levels[:3], start=2):
            assert level.importance is not None
            low, high = level.importance.float().quantile(torch.tensor([0.05, 0.95], device=self.device)).tolist()
            out[f"spread/{number}"] = high - low
            before, kept = level.positions, levels[number - 1].positions
            h, w = level.canvas
            on_prior = torch.zeros(len(kept), h * w, dtype=torch.bool, device=kept.device)
            on_prior.scatter_(1, _cell(before, w), grid_prior(before, STRIDES[number - 2], level.canvas))
            out[f"prior/{number}"] = on_prior.gather(1, _cell(kept, w)).float().mean().item()
        return {name: value for name, value in out.items() if math.isfinite(value)}

    def on_test_start(self) -> None:
        self.score.reset()
        self.coverage.reset()

    def test_step(self, batch: Scenes, index: int) -> None:
        scores, levels = self(batch.images, batch.oracle)
        self.score.update(scores.argmax(1), batch.labels)
        self.coverage.update(batch.objects, [level.positions for level in levels[1:]])
        if index == 0:
            self.log_panel(levels, batch, scores)
            if self.config.sampling == "adaptive":
                self.pictured = first_importance(levels)

    def log_panel(self, levels: list[Level], batch: Scenes, scores: Float[Tensor, "b c h w"]) -> None:
        """What was kept of the first test image, and what was said of it, as a picture in W&B."""
        if not isinstance(self.logger, WandbLogger) or not self.trainer.is_global_zero:
            return
        import matplotlib.pyplot as plt

        from autofocusformer.panels import panel

        figure = panel(levels, batch.images[0], scores[0], batch.labels[0])
        self.logger.log_image("test/tokens", [figure])
        plt.close(figure)

    def on_test_epoch_end(self) -> None:
        found = {**self.score.compute(), **self.coverage.compute()}
        self.final = {f"test/{name}": value.item() for name, value in found.items() if value.isfinite()}
        self.log_dict({name: value for name, value in self.final.items() if "iou/" not in name})


class Classifier(Trained):
    """The classifier, by cross entropy against classes or mixed targets.

    Args:
        variant, backbone: of the backbone, and settings of it that differ.
        smoothing: of labels, where the data do not bring mixed targets.
        lr and so on: see `Trained`.
    """

    def __init__(
        self,
        variant: str = "nano",
        backbone: dict[str, Any] | None = None,
        smoothing: float = 0.0,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        backbone_factor: float = 1.0,
        warm_up: int = 0,
        schedule: str = "cosine",
        least: float = 0.01,
        start: float = 1e-3,
        weights: str | None = None,
        average: bool = False,
    ) -> None:
        super().__init__(lr, weight_decay, backbone_factor, warm_up, schedule, least, start, weights, average)
        self.config, self.smoothing = backbone_config(variant, backbone), smoothing
        self.settings = {"variant": variant, "backbone": backbone}
        if self.config.sampling == "oracle":
            raise UserError("sampling: oracle needs labels of pixels: a classifier has none")

    def build(self, classes: int) -> None:
        self.backbone = AutoFocusFormer(self.config, classes)

    def configure_model(self) -> None:
        if not hasattr(self, "backbone"):
            self.data.setup("fit")
            self.build(self.data.classes)
            self.start_backbone(self.backbone)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        return self.backbone(images)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, targets = batch
        smoothing = self.smoothing if targets.ndim == 1 else 0.0
        loss = F.cross_entropy(self(images).float(), targets, label_smoothing=smoothing)
        if self.due(index):
            self.note({"loss": loss.item()})
        return loss

    def on_test_start(self) -> None:
        self.right = self.among_five = self.seen = 0

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, labels = batch
        best = self(images).topk(min(5, self.data.classes), dim=1).indices
        self.right += int((best[:, 0] == labels).sum())
        self.among_five += int((best == labels[:, None]).any(1).sum())
        self.seen += len(labels)

    def on_test_epoch_end(self) -> None:
        self.final = {"test/top1": 100 * self.right / self.seen, "test/top5": 100 * self.among_five / self.seen}
        self.log_dict(self.final)
