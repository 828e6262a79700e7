"""The denoiser trained: the whitened signal from a window of signal and noise (section 5, optional).

Measured by the overlap <a, b> / sqrt(<a, a> <b, b>) of what comes out with the signal that was put in. In whitened
strain the inner product of section 2 is the plain sum over samples. Beside it stand the overlap of the window as it
is, which no gain changes, and that of the best linear estimate: the signals' covariance C, taken from training
windows, times (C + 1)^-1 where the noise has unit variance. Every band-pass and every gating in time is a linear
estimate too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import pytorch_lightning as L
import torch
from jaxtyping import Float32
from shared.errors import UserError
from torch import Tensor

from mma_realtime import models
from mma_realtime.data.loaders import NextBatches, SameBatches
from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.errors import SearchError
from mma_realtime.models import Denoiser
from mma_realtime.module import LOG_EVERY, check_trained, rate_at

SNRS = (6.0, 8.0, 10.0, 15.0, 20.0)
COVARIANCE_WINDOWS = 4000


class Pairs(NamedTuple):
    """A batch: windows, the signal in each of them, its optimal signal-to-noise ratio."""

    x: Float32[Tensor, "batch detector time"]
    signal: Float32[Tensor, "batch detector time"]
    snr: Float32[Tensor, " batch"]


class SignalWindows(SimulatedBBH):
    """`SimulatedBBH` whose windows all hold a signal, with that signal beside them.

    Validation and test have `validation_windows` of every signal-to-noise ratio of `SNRS`, of masses that were not
    trained on.
    """

    def pairs(self, part: str, use: str, number: int, count: int, snr: tuple[float, float]) -> Pairs:
        """`count` windows of a part with their signals; (seed, use, number) say which.

        Args:
            snr: interval of the optimal signal-to-noise ratio.
        """
        loud = self.windows(part, use, number, count, snr, 1.0, coherent=True)
        quiet = self.windows(part, use, number, count, (0.0, 0.0), 1.0, coherent=True)  # the same draws, no signal
        return Pairs(loud.x, loud.x - quiet.x, loud.snr)

    def next_pairs(self, k: int) -> Pairs:
        """Batch k of this process, as `batch` has it."""
        rank, world = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        interval = self.snr_interval(k / max(1, self.total_steps))
        return self.pairs("train", "train", k * world + rank, self.batch_size, interval)

    def same_pairs(self, part: str, k: int, count: int) -> Pairs:
        """Batch k of validation or test: `count` windows of every signal-to-noise ratio."""
        each = [self.pairs(part, f"{part} pairs at {s:g}", k, count, (s, s)) for s in SNRS]
        return Pairs(*(torch.cat(values) for values in zip(*each, strict=True)))

    def train_dataloader(self) -> NextBatches[Pairs]:  # type: ignore[override]
        return NextBatches(self, self.next_pairs)

    def val_dataloader(self) -> SameBatches[Pairs]:  # type: ignore[override]
        return SameBatches(self, partial(self.same_pairs, "validation"))

    def test_dataloader(self) -> SameBatches[Pairs]:  # type: ignore[override]
        return SameBatches(self, partial(self.same_pairs, "test"))


def overlap(
    a: Float32[Tensor, "batch detector time"], b: Float32[Tensor, "batch detector time"]
) -> Float32[Tensor, " batch"]:
    """<a, b> / sqrt(<a, a> <b, b>), from -1 to 1; 0 where either is nothing."""
    both = (a.square().sum((1, 2)) * b.square().sum((1, 2))).sqrt()
    return (a * b).sum((1, 2)) / both.clamp_min(1e-12)


def relative_error(pairs: Pairs, estimate: Float32[Tensor, "batch detector time"]) -> Float32[Tensor, ""]:
    """Mean over the windows of |estimate - signal|^2 / |signal|^2: 1 where nothing is said, 0 at best."""
    error = (estimate - pairs.signal).square().sum((1, 2))
    return (error / pairs.signal.square().sum((1, 2)).clamp_min(1e-12)).mean()


class LinearEstimate:
    """The linear map of least squared error, for signals of any strength alike.

    Args:
        signals: of training windows, of unit mean square signal-to-noise ratio.
    """

    def __init__(self, signals: Float32[Tensor, "signal detector time"]) -> None:
        flat = signals.flatten(1).double()
        variances, self.vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
        self.variances = variances.clamp_min(0)

    def __call__(
        self, x: Float32[Tensor, "batch detector time"], snr: Float32[Tensor, " batch"]
    ) -> Float32[Tensor, "batch detector time"]:
        """Of windows with signals of those signal-to-noise ratios, which it is told."""
        expected = snr[:, None].double().square() * self.variances
        gain = expected / (expected + 1)
        return (((x.flatten(1).double() @ self.vectors) * gain) @ self.vectors.T).view_as(x).float()


class Denoising(L.LightningModule):
    """A `Denoiser` that is trained by the relative squared error of the signal.

    Args:
        widths, kernel, stride: of the network.
        lr: peak rate of Adam.
        schedule: `onecycle`, `cosine` or `none`.

    Raises:
        SearchError: a setting that is out of its range.
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64, 64),
        kernel: int = 9,
        stride: int = 4,
        lr: float = 5e-3,
        schedule: Literal["onecycle", "cosine", "none"] = "onecycle",
    ) -> None:
        super().__init__()
        if not lr > 0 or schedule not in ("onecycle", "cosine", "none"):
            raise SearchError(f"lr is {lr} and schedule {schedule!r}: above 0; onecycle, cosine or none")
        self.size = {"widths": list(widths), "kernel": kernel, "stride": stride}
        self.lr, self.schedule = lr, schedule
        self.net: Denoiser | None = None
        self.linear: LinearEstimate | None = None
        self.overlaps: list[Float32[Tensor, "what window"]] = []  # strength, then ours, the window's, the linear
        self.curves: dict[str, list[float]] = {}
        self.measured: dict[str, float] = {}

    @property
    def data(self) -> SignalWindows:
        return cast(SignalWindows, self.trainer.datamodule)  # type: ignore[attr-defined]

    def configure_model(self) -> None:
        if self.net is None:
            self.net = Denoiser(self.data.samples, len(self.data.detectors), **cast(dict[str, Any], self.size))

    def forward(self, x: Float32[Tensor, "batch detector time"]) -> Float32[Tensor, "batch detector time"]:
        assert self.net is not None
        out: Tensor = self.net(x)
        return out

    def on_fit_start(self) -> None:
        if self.device.type == "cpu":
            models.keep_freed_memory()
        self.data.to_device(self.device)

    def on_test_start(self) -> None:
        self.data.to_device(self.device)
        known = self.data.pairs("train", "covariance", 0, COVARIANCE_WINDOWS, (1.0, 1.0))
        self.linear = LinearEstimate(known.signal)

    def training_step(self, batch: Pairs, index: int) -> Tensor:
        loss = relative_error(batch, self(batch.x))
        if (self.global_step + 1) % LOG_EVERY == 0:
            value = float(loss.detach())
            if not math.isfinite(value):
                raise UserError(f"the loss is {value} at step {self.global_step}: training has diverged; lower lr")
            self.log("train/loss", value, batch_size=1)
            self.curves.setdefault("curve/step", []).append(float(self.global_step))
            self.curves.setdefault("curve/train_loss", []).append(value)
        return loss

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.Adam(self.parameters(), self.lr, fused=True)
        last = max(1, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_at(step, last, self.schedule))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def validation_step(self, batch: Pairs, index: int) -> None:
        self.log("val/error", relative_error(batch, self(batch.x)), batch_size=len(batch.x), sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self.overlaps.clear()

    def test_step(self, batch: Pairs, index: int) -> None:
        assert self.linear is not None
        estimates = self(batch.x), batch.x, self.linear(batch.x, batch.snr)
        self.overlaps.append(torch.stack([batch.snr, *(overlap(y, batch.signal) for y in estimates)]))

    def on_test_epoch_end(self) -> None:
        """`overlap/snr10`; `_noisy`: of the window; `_linear`: of the best linear estimate; gains over both."""
        snrs, *overlaps = torch.cat(self.overlaps, 1)
        for snr in SNRS:
            ours, noisy, linear = (values[snrs == snr] for values in overlaps)
            self.measured |= {
                f"overlap/snr{snr:g}": float(ours.mean()),
                f"overlap_median/snr{snr:g}": float(ours.median()),
                f"overlap_noisy/snr{snr:g}": float(noisy.mean()),
                f"overlap_linear/snr{snr:g}": float(linear.mean()),
                f"overlap_gain/snr{snr:g}": float((ours - noisy).mean()),
                f"overlap_gain_linear/snr{snr:g}": float((ours - linear).mean()),
            }
        self.measured["parameters"] = float(sum(p.numel() for p in self.parameters()))
        self.log_dict(self.measured, sync_dist=True)

    def results(self) -> dict[str, Any]:
        """What `reproduce.py` stores."""
        return {**self.measured, **self.curves}

    def trained_as(self) -> dict[str, Any]:
        """What the weights mean something under."""
        data = self.data
        return {
            "network": "denoiser", "size": self.size, "sample_rate": data.sample_rate, "window": data.window,
            "detectors": list(data.detectors), "band": list(data.band),
        }  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["curves"], checkpoint["trained"] = self.curves, self.trained_as()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises SearchError for a checkpoint that was trained otherwise than this run asks for."""
        check_trained(checkpoint.get("trained"), self.trained_as())
        self.curves = checkpoint["curves"]
