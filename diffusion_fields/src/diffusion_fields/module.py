"""How a field diffusion is trained (sections 2.3, 3 and 10): any data of `Fields`, any score network, any prediction.

Each step: t for every field, one noise field each, noisy context and queries, mean squared error of the queries. AdamW,
linear warm-up and half a cosine to 0, and an average of the weights that everything is measured and sampled with.
"""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import numpy as np
import pytorch_lightning as L
import torch
from jaxtyping import Float, Float64, Int64
from pytorch_lightning.loggers import WandbLogger
from shared.errors import UserError
from torch import Tensor, nn

from diffusion_fields import draw, evaluation, models
from diffusion_fields.averaging import ema
from diffusion_fields.controls import ContextBlind
from diffusion_fields.data import FieldBatch, Fields
from diffusion_fields.diffusion import Noise, Prediction, draw_times, field_errors, field_loss
from diffusion_fields.domains import canvas_of
from diffusion_fields.errors import FieldError
from diffusion_fields.looks import Settings
from diffusion_fields.oracle import Denoiser, context_efficiency
from diffusion_fields.schedules import make_schedule

LOG_EVERY = 50
TIMES = range(10, 1000, 20)  # of 1000 steps: where losses and floors are taken (section 6)


class DiffusionField(L.LightningModule):
    """A diffusion model of fields.

    Args:
        network: `perceiver`, `transformer` or `mlp_mixer`.
        size: arguments of the network (`num_freq`, `d_model`, ...), without those that follow from the data.
        prediction: what the network gives: `eps`, `v`, `x0` or `flow`.
        noise: `shared` (one noise field, indexed by both sets) or `independent` (an ablation).
        schedule, T: of the diffusion; see `make_schedule`.
        lr, betas, weight_decay: of AdamW.
        warmup: steps of linear warm-up; then half a cosine to 0 at the last step.
        ema: decay of the average of the weights.
        conditional: the network is told the class.
        label_drop: share of the fields whose class is hidden in training, for guidance.
        context_blind: the control that sees no context.
        sampling: how the trained model is sampled and measured at the end, see `evaluation.Settings`.

    Raises:
        FieldError, UserError: a name that does not exist, a setting out of its range, or a loss that is not finite.
    """

    def __init__(
        self,
        network: Literal["perceiver", "transformer", "mlp_mixer"] = "perceiver",
        size: dict[str, Any] | None = None,
        prediction: Prediction = "v",
        noise: Noise = "shared",
        schedule: Literal["cosine", "linear"] = "cosine",
        T: int = 1000,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        warmup: int = 100,
        ema: float = 0.999,
        conditional: bool = False,
        label_drop: float = 0.1,
        context_blind: bool = False,
        sampling: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not lr > 0:
            raise FieldError(f"lr is {lr}: it has to be > 0")
        if not all(0 <= beta < 1 for beta in betas):
            raise FieldError(f"betas is {betas}: both lie in [0, 1)")
        if warmup < 0 or weight_decay < 0:
            raise FieldError(f"warmup is {warmup} and weight_decay {weight_decay}: neither can be negative")
        if not 0 <= ema < 1:
            raise FieldError(f"ema is {ema}: the decay of an average lies in [0, 1)")
        if not 0 <= label_drop <= 1:
            raise FieldError(f"label_drop is {label_drop}: a share lies in [0, 1]")
        self.network, self.size, self.prediction, self.noise = network, dict(size or {}), prediction, noise
        self.lr, self.betas, self.weight_decay, self.warmup, self.decay = lr, betas, weight_decay, warmup, ema
        self.conditional, self.label_drop, self.context_blind = conditional, label_drop, context_blind
        self.schedule = make_schedule(schedule, T)
        self.settings = Settings.read(sampling or {})
        self.net: nn.Module | None = None
        self.sums = dict.fromkeys(("val", "floor", "own", "fields"), 0.0)
        self.above: list[Tensor] = []
        self.measured: dict[str, Any] = {}
        self.curves: dict[str, list[float]] = {}

    # ---- the network ----

    def build(self, data: Fields) -> None:
        """The network for these data, and its average; called by Lightning before training and testing."""
        fields = data.field_set
        if self.conditional and fields.num_classes is None:
            raise FieldError(f"conditional: {data.dataset} has no classes")
        if self.conditional and not data.labels:
            raise FieldError("conditional: the data hand out no classes; set data.labels to true")
        self.settings.check(fields, data.context_range[1], self.prediction)
        fixed: dict[str, Any] = {"coord_dim": fields.coord_dim, "signal_dim": fields.signal_dim}
        if self.conditional:
            fixed["num_classes"] = fields.num_classes
        if self.network == "mlp_mixer":  # a mixer mixes sets of one size
            fixed |= {"num_context": data.context_range[1], "num_query": data.num_query or fields.num_points}
        net = models.build(self.network, **{**self.size, **fixed})
        self.net = ContextBlind(net) if self.context_blind else net
        self.average = ema(self.net, self.decay)
        self.average.eval()

    def configure_model(self) -> None:
        if self.net is None:
            self.build(self.fields)

    def ema_net(self) -> nn.Module:
        """The network with the averaged weights."""
        return self.average.module

    @property
    def fields(self) -> Fields:
        return cast(Fields, self.trainer.datamodule)  # type: ignore[attr-defined]

    def train(self, mode: bool = True) -> DiffusionField:
        """Only the network that is trained; the average never drops out."""
        super().train(mode)
        if self.net is not None:
            self.average.eval()
        return self

    # ---- training ----

    def on_fit_start(self) -> None:
        self.fields.to_device(self.device)

    def on_test_start(self) -> None:
        self.fields.to_device(self.device)
        self.reset_sums()
        self.above = []

    def loss(self, batch: tuple[FieldBatch, Tensor, Tensor]) -> Float[Tensor, ""]:
        """Section 2.3, in the network's own target."""
        fields, context, query = batch
        if self.conditional:
            hidden = torch.rand(len(fields.signal), device=self.device) < self.label_drop
            assert fields.label is not None
            null = torch.full_like(fields.label, cast(Any, self.net).num_classes)
            fields = fields._replace(label=torch.where(hidden, null, fields.label))
        else:
            fields = fields._replace(label=None)
        t = draw_times(len(fields.signal), self.schedule, self.prediction).to(self.device)
        net = cast(nn.Module, self.net)
        return field_loss(net, fields, t, context, query, self.schedule, prediction=self.prediction, noise=self.noise)

    def training_step(self, batch: tuple[FieldBatch, Tensor, Tensor], index: int) -> Tensor:
        loss = self.loss(batch)
        if (self.global_step + 1) % LOG_EVERY == 0:  # when Lightning hands logs on
            value = float(loss.detach())
            if not math.isfinite(value):
                raise UserError(
                    f"the loss is {value} at step {self.global_step}: training has diverged; lower model.lr, or clip "
                    "gradients with trainer.gradient_clip_val"
                )
            self.log("train/loss", value, batch_size=1)
            self.log("train/lr", self.optimizers().param_groups[0]["lr"], batch_size=1)  # type: ignore[union-attr]
            self.curves.setdefault("curve/step", []).append(float(self.global_step))
            self.curves.setdefault("curve/train_loss", []).append(value)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if (self.global_step + 1) % LOG_EVERY == 0:  # when Lightning hands logs on
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
            self.log("train/gradient_norm", norm, batch_size=1)

    def on_train_batch_end(self, *_: Any) -> None:
        self.average.update_parameters(cast(nn.Module, self.net))

    def configure_optimizers(self) -> Any:
        parameters = [p for p in cast(nn.Module, self.net).parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(  # fused: one call in place of hundreds, a seventh of a step of the quick network
            parameters, self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=True
        )
        last = max(1, int(self.trainer.estimated_stepping_batches))
        if self.warmup >= last > 1:
            raise FieldError(f"warmup is {self.warmup} steps of {last}: it has to end before the last")

        def rate(step: int) -> float:
            if step < self.warmup:
                return (step + 1) / self.warmup
            return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, last - self.warmup)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ---- losses and floors on the average's weights (section 6) ----

    def reset_sums(self) -> None:
        self.sums = dict.fromkeys(self.sums, 0.0)

    def times(self) -> Int64[Tensor, " times"]:
        """Steps 10, 30, ..., 990 of 1000; of a schedule of another length the same shares of it."""
        T = self.schedule.T
        return torch.tensor(sorted({min(T - 1, t * T // 1000) for t in TIMES}))

    @torch.no_grad()
    def add_errors(
        self, fields: FieldBatch, t: Int64[Tensor, " B"], context: Tensor, query: Tensor, generator: torch.Generator
    ) -> Float64[Tensor, " B"]:
        """Add the eps errors of these fields, and of a known law the floors at the same t and contexts.

        Returns:
            The error of each field, less its floor where that is known.
        """
        fields = fields if self.conditional else fields._replace(label=None)
        errors = field_errors(
            self.ema_net(), fields, t.to(self.device), context, query, self.schedule,
            prediction=self.prediction, measure="eps", generator=generator,
        )  # fmt: skip
        errors = errors.double().cpu()
        self.sums["val"] += float(errors.sum())
        self.sums["fields"] += len(errors)
        abars = self.schedule.alphas_cumprod[t].numpy()
        truth = self.fields.truth
        if truth is not None and fields.coords.ndim == 2 and context.ndim == 1:
            K = truth.covariance(fields.coords.cpu().numpy())
            levels, where = np.unique(abars, return_inverse=True)
            asked = query.cpu().numpy()
            mse = Denoiser(K, context.cpu().numpy()).mse(levels)[:, asked].mean(1)
            signal = abars[:, None] * K.diagonal()[asked]
            self.sums["floor"] += float(mse[where].sum())
            self.sums["own"] += float((signal / (signal + 1 - abars[:, None])).mean(1).sum())
            errors = errors - torch.from_numpy(mse[where])
        return errors

    def validation_step(self, batch: tuple[FieldBatch, Tensor, Tensor], index: int) -> None:
        """A cheap monitor: every field at one t, the t of all fields spread evenly. `test_step` has all t of each."""
        times, b = self.times(), len(batch[0].signal)
        t = times[(torch.arange(b) + index * b) % len(times)]
        self.add_errors(batch[0], t, batch[1], batch[2], self._noise("validation", index))

    def on_validation_epoch_start(self) -> None:
        self.reset_sums()

    def on_validation_epoch_end(self) -> None:
        for name, value in self.reading("val").items():
            self.log(name, value, sync_dist=True)
            self.curves.setdefault(f"curve/{name}", []).append(value)
        self.curves.setdefault("curve/val_step", []).append(float(self.global_step))

    def test_step(self, batch: tuple[FieldBatch, Tensor, Tensor], index: int) -> None:
        """Every field at every t, each t with a context of its own; all points are queries."""
        fields, n = batch[0], batch[0].signal.shape[1]
        above = torch.zeros(len(fields.signal), dtype=torch.float64)
        for t in self.times().tolist():
            generator = self._noise("test", 1000 * index + t)
            context, _ = self.fields.sets(fields, generator)
            query = torch.arange(n, device=self.device)
            if self.network == "mlp_mixer" or context.ndim == 2:
                context, query = self.fields.sets(fields, generator)
            above += self.add_errors(fields, torch.full((len(fields.signal),), t), context, query, generator)
        self.above.append(above / len(self.times()))

    def on_test_epoch_end(self) -> None:
        self.measured = self.reading("test")
        above = torch.cat(self.above)
        if self.sums["own"] > 0 and len(above) > 1:  # the loss above the Bayes floor, in standard errors over fields
            self.measured["test/above_floor_se"] = float(above.mean() / (above.std() / len(above) ** 0.5))
        self.measured |= {"parameters": float(sum(p.numel() for p in cast(nn.Module, self.net).parameters()))}
        net = self.ema_net()
        dry = bool(getattr(self.trainer, "fast_dev_run", False))
        settings = self.settings.dry() if dry else self.settings
        found, pictures = evaluation.evaluate(net, self.fields, self.schedule, self.prediction, settings)
        self.measured |= found
        self.log_samples(pictures)
        scalars = {name: value for name, value in self.measured.items() if isinstance(value, int | float)}
        self.log_dict({name: value for name, value in scalars.items() if math.isfinite(value)}, sync_dist=True)

    def log_samples(self, pictures: dict[str, evaluation.Picture]) -> None:
        """Samples of every look as pictures in W&B: images, maps, curves or bodies."""
        if not isinstance(self.logger, WandbLogger) or not self.trainer.is_global_zero:
            return
        import matplotlib.pyplot as plt

        fields = self.fields.field_set
        batch = self.fields.validation(1).coords
        points = (batch if batch.ndim == 2 else batch[0]).cpu()
        for name, picture in pictures.items():
            canvas = canvas_of(fields, points, picture.coords, picture.shape)
            if canvas is None:
                return
            figure = draw.fields(canvas, picture.values, fields.bounded, name)
            self.logger.log_image(f"samples/{name}", [figure])
            plt.close(figure)

    def reading(self, part: str) -> dict[str, float]:
        """Losses and floors as summed up, and the context efficiency that follows."""
        n = max(1.0, self.sums["fields"])
        out = {f"{part}/loss": self.sums["val"] / n}
        if self.sums["own"] > 0:
            floor, own = self.sums["floor"] / n, self.sums["own"] / n
            out |= {f"{part}/bayes_floor": floor, f"{part}/own_only": own}
            out[f"{part}/context_efficiency"] = context_efficiency(own, self.sums["val"] / n, floor)
        return out

    def _noise(self, use: str, number: int) -> torch.Generator:
        return evaluation.stream(self.fields.run_seed, use, number, self.device)

    def results(self) -> dict[str, Any]:
        """What `reproduce.py` stores."""
        return {**self.measured, **self.curves}

    # ---- checkpoints ----

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["curves"] = self.curves
        checkpoint["trained"] = self.trained_as(self.fields)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises UserError for a checkpoint that was trained otherwise than this run asks for."""
        self.check_trained(checkpoint.get("trained"), self.fields)
        self.curves = checkpoint["curves"]

    def trained_as(self, data: Fields) -> dict[str, Any]:
        """What a checkpoint's weights mean something under."""
        return {
            "network": self.network, "size": self.size, "prediction": self.prediction, "noise": self.noise,
            "T": self.schedule.T, "beta_1": float(self.schedule.betas[0]), "conditional": self.conditional,
            "context_blind": self.context_blind, "num_context": list(data.context_range),
        }  # fmt: skip

    def check_trained(self, made: Any, data: Fields) -> None:
        """Raises UserError where a checkpoint was `made` under something else than this configuration says."""
        if not isinstance(made, dict):
            raise UserError("this checkpoint does not say how it was trained: it is not one of this project")
        for name, value in self.trained_as(data).items():
            if made.get(name) != value:
                raise UserError(
                    f"the checkpoint was trained with {name} {made.get(name)!r}, this configuration has {value!r}: "
                    "give the configuration that lies beside it"
                )
