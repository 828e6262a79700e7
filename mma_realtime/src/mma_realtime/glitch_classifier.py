"""GlitchNet trained: which of six transients is in a window of whitened noise (section 5).

The windows are those of `data/glitch_windows.py`.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal, cast

import pytorch_lightning as L
import torch
from jaxtyping import Float32, Int64
from shared.errors import UserError
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from mma_realtime import models
from mma_realtime.data.glitch_windows import GlitchWindows, Transients
from mma_realtime.data.glitches import GLITCHES
from mma_realtime.errors import SearchError
from mma_realtime.models import GlitchNet
from mma_realtime.module import LOG_EVERY, check_trained, rate_at

CHIRP = GLITCHES.index("chirp")


def octaves(snr: tuple[float, float]) -> list[float]:
    """Edges: low, 2 low, 4 low, ..., high."""
    edges = [snr[0]]
    while 2 * edges[-1] < snr[1]:
        edges.append(2 * edges[-1])
    return [*edges, snr[1]]


class Confusions(Metric):
    """Counts [octave of the signal-to-noise ratio, true class, predicted class]."""

    full_state_update = False
    counts: Tensor

    def __init__(self, edges: list[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.edges = edges
        shape = len(edges) - 1, len(GLITCHES), len(GLITCHES)
        self.add_state("counts", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Int64[Tensor, " batch"], batch: Transients) -> None:
        """Add windows."""
        octave = torch.bucketize(batch.snr, torch.tensor(self.edges[1:-1], device=batch.snr.device), right=True)
        one = torch.ones_like(predicted)
        self.counts.index_put_((octave, batch.kind, predicted), one, accumulate=True)

    def compute(self) -> Int64[Tensor, "octave true predicted"]:
        return self.counts


def readings(counts: Int64[Tensor, "octave true predicted"], edges: list[float], part: str) -> dict[str, float]:
    """Accuracy: of all windows, of each class and each octave that there is, and of chirps against glitches.

    The last is balanced: the mean of the share of the chirps that are taken for chirps and of the share of the glitches
    that are not; whichever is always said, it is 0.5.
    """
    matrix, out = counts.sum(0).double(), dict[str, float]()
    if not int(counts.sum()):
        return out
    right = matrix.diagonal()
    out[f"{part}/accuracy"] = float(right.sum() / matrix.sum())
    seen = matrix.sum(1)
    out |= {f"{part}/accuracy/{name}": float(right[k] / seen[k]) for k, name in enumerate(GLITCHES) if seen[k]}
    for (low, high), octave in zip(pairwise(edges), counts.double(), strict=True):
        if octave.sum():
            out[f"{part}/accuracy/snr{low:g}-{high:g}"] = float(octave.diagonal().sum() / octave.sum())
    glitches = seen.sum() - seen[CHIRP]
    if seen[CHIRP] and glitches:
        false = (matrix[:, CHIRP].sum() - right[CHIRP]) / glitches
        out[f"{part}/chirps_from_glitches"] = float((right[CHIRP] / seen[CHIRP] + 1 - false) / 2)
    return out


class GlitchClassifier(L.LightningModule):
    """A `GlitchNet` that is trained by cross-entropy.

    Args:
        width: channels of its first convolution.
        lr: peak rate of Adam.
        schedule: `onecycle`, `cosine` or `none`.

    Raises:
        SearchError: a setting that is out of its range.
    """

    def __init__(
        self, width: int = 8, lr: float = 3e-3, schedule: Literal["onecycle", "cosine", "none"] = "onecycle"
    ) -> None:
        super().__init__()
        if width < 1 or not lr > 0:
            raise SearchError(f"width is {width} and lr {lr}: at least 1, and above 0")
        if schedule not in ("onecycle", "cosine", "none"):
            raise SearchError(f"schedule is {schedule!r}: use onecycle, cosine or none")
        self.width, self.lr, self.schedule = width, lr, schedule
        self.net: GlitchNet | None = None
        self.confusions = Confusions([1.0, 1.0])
        self.curves: dict[str, list[float]] = {}
        self.measured: dict[str, Any] = {}

    @property
    def data(self) -> GlitchWindows:
        return cast(GlitchWindows, self.trainer.datamodule)  # type: ignore[attr-defined]

    def configure_model(self) -> None:
        if self.net is None:
            data = self.data
            net = GlitchNet(data.samples, data.sample_rate, data.band, len(GLITCHES), self.width)
            self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast
            self.confusions = Confusions(octaves(data.snr))

    def forward(self, x: Float32[Tensor, "batch 1 time"]) -> Float32[Tensor, "batch class"]:
        assert self.net is not None
        out: Tensor = self.net(x)
        return out

    def on_fit_start(self) -> None:
        if self.device.type == "cpu":
            models.keep_freed_memory()
        self.data.to_device(self.device)

    def on_test_start(self) -> None:
        self.data.to_device(self.device)

    def training_step(self, batch: Transients, index: int) -> Tensor:
        loss = cross_entropy(self(batch.x), batch.kind)
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

    def on_validation_epoch_start(self) -> None:
        self.confusions.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Transients, index: int) -> None:
        self.confusions.update(self(batch.x).argmax(1), batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self.log_dict(readings(self.confusions.compute(), self.confusions.edges, "val"), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        counts, edges = self.confusions.compute(), self.confusions.edges
        found = readings(counts, edges, "test")
        self.log_dict(found, sync_dist=True)
        by_octave = {low: found.get(f"test/accuracy/snr{low:g}-{high:g}") for low, high in pairwise(edges)}
        by_octave = {low: share for low, share in by_octave.items() if share is not None}
        self.measured = {
            **found,
            "parameters": float(sum(p.numel() for p in self.parameters())),
            "curve/confusion": counts.sum(0).double().flatten().tolist(),  # one true class after the other
            "curve/snr": list(by_octave),
            "curve/accuracy": list(by_octave.values()),
        }

    def results(self) -> dict[str, Any]:
        """What `reproduce.py` stores."""
        return {**self.measured, **self.curves}

    def trained_as(self) -> dict[str, Any]:
        """What the weights mean something under."""
        data = self.data
        return {
            "network": "glitchnet", "width": self.width, "classes": list(GLITCHES), "sample_rate": data.sample_rate,
            "window": data.window, "band": list(data.band),
        }  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["curves"], checkpoint["trained"] = self.curves, self.trained_as()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises SearchError for a checkpoint that was trained otherwise than this run asks for."""
        check_trained(checkpoint.get("trained"), self.trained_as())
        self.curves = checkpoint["curves"]
