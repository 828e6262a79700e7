"""How a search is trained (sections 5 and 6): first the mass predictor, then the classifier that begins as it.

Several members can be trained side by side, each from its own start on its own part of every batch; their losses add
up, and as they share no weights each is trained as if alone. What a checkpoint was trained on stands in it
(`trained_as`): a search refuses strain of another sample rate or of other detectors.
"""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import pytorch_lightning as L
import torch
from jaxtyping import Float32
from pytorch_lightning.strategies import DDPStrategy
from shared.errors import UserError
from torch import Tensor, nn

from mma_realtime import losses, models
from mma_realtime.data.simulated import SimulatedBBH, Windows
from mma_realtime.errors import SearchError
from mma_realtime.metrics import PartialAUROC, TPRAtFAP
from mma_realtime.models import SearchNetwork, combine_statistics
from mma_realtime.models.deepfilter import DeepFilter
from mma_realtime.search.windows import StrainFileDataModule, StrainWindows

LOG_EVERY = 50
FAPS = (1e-2, 1e-3)
RAMP = 0.115  # share of the steps in which the rate rises (onecycle)
FIRST, LAST = 1 / 25, 1e-4  # of the peak rate, at the first and the last step (onecycle)


def rate_at(step: int, steps: int, schedule: str) -> float:
    """Learning rate at `step` of `steps`, as a share of the peak."""
    done = min(1.0, step / max(1, steps))
    if schedule == "none":
        return 1.0
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if done < RAMP:
        return FIRST + (1 - FIRST) * 0.5 * (1 - math.cos(math.pi * done / RAMP))
    return LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * (done - RAMP) / (1 - RAMP)))


class Detector(L.LightningModule):
    """Networks that tell windows with a signal from windows without.

    Args:
        network: a key of `models.NETWORKS`.
        size: further arguments of the network; window, detectors and outputs follow from data and loss.
        members: networks trained side by side; `batch_size` is divided among them.
        combine: of the members' statistics, `mean` or `min`.
        loss: `cross_entropy` (two logits), `bce`, `focal` or `partial_auc` (one logit).
        lr: peak rate.
        optimiser: `adam` or `adamw`.
        weight_decay: of adamw.
        schedule: `onecycle`, `cosine` or `none`; of each phase by itself.
        pretrain_steps: steps in which the mass predictor is trained, which then initialises the classifier (0: none).

    Raises:
        SearchError: a setting that does not exist or is out of its range.
    """

    def __init__(
        self,
        network: str = "deepfilter_shallow",
        size: dict[str, Any] | None = None,
        members: int = 1,
        combine: Literal["mean", "min"] = "mean",
        loss: Literal["cross_entropy", "bce", "focal", "partial_auc"] = "cross_entropy",
        lr: float = 1e-3,
        optimiser: Literal["adam", "adamw"] = "adam",
        weight_decay: float = 0.0,
        schedule: Literal["onecycle", "cosine", "none"] = "cosine",
        pretrain_steps: int = 0,
    ) -> None:
        super().__init__()
        if network not in models.NETWORKS:
            raise SearchError(f"network is {network!r}: use one of {', '.join(models.NETWORKS)}")
        if loss not in losses.LOSSES:
            raise SearchError(f"loss is {loss!r}: use one of {', '.join(losses.LOSSES)}")
        if not lr > 0 or weight_decay < 0:
            raise SearchError(f"lr is {lr} and weight_decay {weight_decay}: the first is > 0, the second not negative")
        if members < 1 or pretrain_steps < 0:
            raise SearchError(f"members is {members} and pretrain_steps {pretrain_steps}: at least 1 and 0")
        if combine not in ("mean", "min"):
            raise SearchError(f"combine is {combine!r}: use mean or min")
        if pretrain_steps and not issubclass(models.NETWORKS[network], DeepFilter):
            raise SearchError(f"pretrain_steps: {network} has no predictor to begin as; deepfilter networks have")
        self.network, self.size, self.count, self.combine = network, dict(size or {}), members, combine
        self.loss_name, self.lr, self.optimiser, self.weight_decay = loss, lr, optimiser, weight_decay
        self.schedule, self.pretrain_steps = schedule, pretrain_steps
        self.members: nn.ModuleList | None = None
        self.predictors = nn.ModuleList()
        self.begun = False  # whether the classifier has taken over the predictor's weights
        self.trained_with: dict[str, Any] | None = None
        self.tpr = nn.ModuleList([TPRAtFAP(fap) for fap in FAPS])
        self.area = PartialAUROC(FAPS[-1])
        self.errors: list[Tensor] = []
        self.curves: dict[str, list[float]] = {}
        self.measured: dict[str, Any] = {}

    # ---- the networks ----

    def build(self, data: SimulatedBBH) -> None:
        """The networks for these windows; called by Lightning before training and testing."""
        fixed = {"input_length": data.samples, "channels": len(data.detectors)}
        outputs = 2 if self.loss_name == "cross_entropy" else 1
        make = [models.build(self.network, **self.size, **fixed, outputs=outputs) for _ in range(self.count)]
        self.members = nn.ModuleList(make)
        if self.pretrain_steps:
            more = [models.build(self.network, **self.size, **fixed, outputs=2) for _ in range(self.count)]
            self.predictors = nn.ModuleList(more)
        if data.batch_size < 2 * self.count:
            raise SearchError(f"batch_size is {data.batch_size}: {self.count} members need at least {2 * self.count}")

    def configure_model(self) -> None:
        if self.members is None:
            self.build(self.data)

    @property
    def data(self) -> SimulatedBBH:
        return cast(SimulatedBBH, self.trainer.datamodule)  # type: ignore[attr-defined]

    @property
    def nets(self) -> list[SearchNetwork]:
        """The members."""
        return cast("list[SearchNetwork]", list(self.members or ()))

    def statistic(self, x: Float32[Tensor, "batch detector time"]) -> Float32[Tensor, " batch"]:
        """The combined detection statistic of windows."""
        return combine_statistics(torch.stack([net.statistic(x) for net in self.nets]), self.combine)

    def predict_masses(self, x: Float32[Tensor, "batch detector time"]) -> Float32[Tensor, "batch 2"]:
        """Component masses (solar masses) by the predictors, averaged.

        Raises:
            SearchError: no predictor was trained.
        """
        if not len(self.predictors):
            raise SearchError("this model has no mass predictor: train it with pretrain_steps > 0")
        return torch.stack([losses.masses_of(net(x)) for net in self.predictors]).mean(0)

    # ---- training ----

    def on_fit_start(self) -> None:
        if self.device.type == "cpu":
            models.keep_freed_memory()
        strategy = self.trainer.strategy
        lenient = isinstance(strategy, DDPStrategy) and strategy._ddp_kwargs.get("find_unused_parameters")
        if isinstance(strategy, DDPStrategy) and self.pretrain_steps and not lenient:
            raise UserError(
                "trainer.strategy: use ddp_find_unused_parameters_true, as predictor and classifier take turns"
            )
        self.data.to_device(self.device)

    def on_test_start(self) -> None:
        if isinstance(self.data, SimulatedBBH):
            self.data.to_device(self.device)
        else:
            self.check_windows()

    def on_predict_start(self) -> None:
        self.check_windows()

    def check_windows(self) -> None:
        """Raises SearchError for windows of strain that is conditioned otherwise than the networks were trained on."""
        data = cast(StrainFileDataModule, self.data)
        conditioner = data.conditioner
        wanted = {
            "sample_rate": conditioner.sample_rate, "window": data.window, "band": list(conditioner.band),
        }  # fmt: skip
        if self.trained_with is not None:
            check_trained(self.trained_with, wanted)
        channels = 1 if data.detectors == "each" else len(data.detectors)
        if self.nets[0].channels != channels:
            raise SearchError(
                f"the networks look at {self.nets[0].channels} detector(s) together, the windows hold {channels}: give "
                "the data module `detectors` as the networks were trained"
            )

    def on_train_batch_start(self, *_: Any) -> None:
        if self.pretrain_steps and not self.begun and self.global_step >= self.pretrain_steps:
            for member, predictor in zip(self.nets, self.predictors, strict=True):
                cast(DeepFilter, member).init_from(cast(DeepFilter, predictor))
            self.begun = True

    def loss(self, batch: Windows) -> Float32[Tensor, ""]:
        """Sum over the members, each on its own rows of the batch."""
        predicting = self.global_step < self.pretrain_steps
        parts = [self.member_loss(number, batch, predicting) for number in range(self.count)]
        return torch.stack(parts).sum()

    def member_loss(self, number: int, batch: Windows, predicting: bool) -> Float32[Tensor, ""]:
        rows = slice(number, None, self.count)
        x, label = batch.x[rows], batch.label[rows]
        if not predicting:
            return losses.LOSSES[self.loss_name](self.nets[number](x), label)
        signal = label > 0.5
        if not bool(signal.any()):  # of so small a batch there may be none: no step for this member, yet a graph
            return 0.0 * cast(Tensor, self.predictors[number](x)).sum()
        return losses.relative_mass_error(self.predictors[number](x[signal]), batch.masses[rows][signal])

    def training_step(self, batch: Windows, index: int) -> Tensor:
        loss = self.loss(batch)
        if (self.global_step + 1) % LOG_EVERY == 0:  # when Lightning hands logs on
            value = float(loss.detach()) / self.count
            if not math.isfinite(value):
                raise UserError(
                    f"the loss is {value} at step {self.global_step}: training has diverged; lower model.lr, or clip "
                    "gradients with trainer.gradient_clip_val"
                )
            name = "train/mass_error" if self.global_step < self.pretrain_steps else "train/loss"
            self.log(name, value, batch_size=1)
            self.log("train/lr", self.optimizers().param_groups[0]["lr"], batch_size=1)  # type: ignore[union-attr]
            self.curves.setdefault("curve/step", []).append(float(self.global_step))
            self.curves.setdefault("curve/train_loss", []).append(value)
        return loss

    def configure_optimizers(self) -> Any:
        kind = torch.optim.AdamW if self.optimiser == "adamw" else torch.optim.Adam
        parameters = [p for part in (self.predictors, self.nets) for net in part for p in net.parameters()]
        # Fused: one call for all parameters. Those without a gradient, of the network whose turn it is not, stay.
        optimiser = kind(parameters, self.lr, weight_decay=self.weight_decay, fused=True)
        last = max(1, int(self.trainer.estimated_stepping_batches))
        if self.pretrain_steps >= last > 1:
            raise SearchError(f"pretrain_steps is {self.pretrain_steps} of {last} steps: none is left to classify")

        def rate(step: int) -> float:
            if step < self.pretrain_steps:
                return rate_at(step, self.pretrain_steps, self.schedule)
            return rate_at(step - self.pretrain_steps, last - self.pretrain_steps, self.schedule)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # ---- search ----

    def predict_step(self, batch: StrainWindows, index: int) -> Float32[Tensor, " batch"]:
        """The statistic of each window of strain."""
        return self.statistic(batch.x)

    # ---- validation and test ----

    def reset(self) -> None:
        for metric in (*self.tpr, self.area):
            cast(Any, metric).reset()
        self.errors = []

    on_validation_epoch_start = reset
    on_test_epoch_start = reset

    def validation_step(self, batch: Windows, index: int) -> None:
        statistic = self.statistic(batch.x)
        for metric in (*self.tpr, self.area):
            cast(Any, metric).update(statistic, batch.label)
        signal = batch.label > 0.5
        if len(self.predictors) and bool(signal.any()):
            masses = batch.masses[signal]
            self.errors.append(((self.predict_masses(batch.x[signal]) - masses).abs() / masses).mean(1))

    test_step = validation_step

    def reading(self, part: str) -> dict[str, float]:
        """Detection at false-alarm probabilities 1e-2 and 1e-3, area of the curve up to 1e-3, mean mass error."""
        out = {f"{part}/tpr_at_fap_{fap:g}": float(cast(Any, m).compute()) for fap, m in zip(FAPS, self.tpr)}
        out[f"{part}/partial_auroc"] = float(self.area.compute())
        if self.errors:
            out[f"{part}/mass_error"] = float(torch.cat(self.errors).mean())
        return {name: value for name, value in out.items() if math.isfinite(value)}

    def on_validation_epoch_end(self) -> None:
        for name, value in self.reading("val").items():
            self.log(name, value, sync_dist=True)
            self.curves.setdefault(f"curve/{name}", []).append(value)
        self.curves.setdefault("curve/val_step", []).append(float(self.global_step))

    def on_test_epoch_end(self) -> None:
        self.measured = self.reading("test")
        self.measured["parameters"] = float(sum(p.numel() for p in self.nets[0].parameters()))
        self.log_dict(self.measured, sync_dist=True)

    def results(self) -> dict[str, Any]:
        """What `reproduce.py` stores."""
        return {**self.measured, **self.curves}

    # ---- checkpoints ----

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["curves"], checkpoint["begun"] = self.curves, self.begun
        checkpoint["trained"] = self.trained_as(self.data)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises SearchError for a checkpoint that was trained otherwise than this run asks for."""
        check_trained(checkpoint.get("trained"), self.trained_as(self.data))
        self.curves, self.begun = checkpoint["curves"], checkpoint["begun"]

    def trained_as(self, data: SimulatedBBH) -> dict[str, Any]:
        """What the weights mean something under."""
        return {
            "network": self.network, "size": self.size, "members": self.count, "combine": self.combine,
            "loss": self.loss_name, "predictor": self.pretrain_steps > 0, "sample_rate": data.sample_rate,
            "window": data.window, "detectors": list(data.detectors), "band": list(data.band),
        }  # fmt: skip


def check_trained(made: Any, wanted: dict[str, Any]) -> None:
    """Whether what a checkpoint was trained as is what is wanted of it.

    Args:
        made: `trained` of the checkpoint.
        wanted: what it has to agree with; not more than these keys is compared.

    Raises:
        SearchError: it was trained on another sample rate, other detectors, with another network, ...
    """
    if not isinstance(made, dict):
        raise SearchError("this checkpoint does not say how it was trained: it is not one of this project")
    for name, value in wanted.items():
        if made.get(name) != value:
            raise SearchError(
                f"the checkpoint was trained with {name} {made.get(name)!r}, here it is {value!r}: give strain and "
                "settings as it was trained on, or another checkpoint"
            )


def load_detector(path: Any, wanted: dict[str, Any] | None = None) -> Detector:
    """A trained `Detector` from a Lightning checkpoint, for scoring: the library's way from `train.py` to scores.

    Searches read model files (`search.model_file`), which carry threshold and time offset too.

    Args:
        path: a checkpoint of a training run.
        wanted: see `check_trained`, e.g. sample_rate and detectors of the strain it is to search.

    Raises:
        SearchError: not such a checkpoint, or one that was trained as something else.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    made = checkpoint.get("trained") if isinstance(checkpoint, dict) else None
    check_trained(made, wanted or {})
    made = cast(dict[str, Any], made)
    state = checkpoint["state_dict"]
    detector = Detector(made["network"], made["size"], made["members"], made["combine"], made["loss"])
    fixed = {"input_length": round(made["window"] * made["sample_rate"]), "channels": len(made["detectors"])}

    def filled(prefix: str, outputs: int) -> nn.ModuleList:
        nets = [models.build(made["network"], **made["size"], **fixed, outputs=outputs) for _ in range(made["members"])]
        for number, net in enumerate(nets):
            own = f"{prefix}.{number}."
            net.load_state_dict({key.removeprefix(own): v for key, v in state.items() if key.startswith(own)})
        return nn.ModuleList(nets)

    detector.members = filled("members", 2 if made["loss"] == "cross_entropy" else 1)
    if made["predictor"]:
        detector.predictors = filled("predictors", 2)
    detector.trained_with = made
    return detector.eval()
