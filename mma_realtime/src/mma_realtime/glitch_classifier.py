"""GlitchNet trained: which of six transients is in a window of whitened noise (section 5).

The windows hold one transient each, of the classes `GLITCHES`: five shapes of glitches, and chirps, which are signals
of the bank. All have the same law of strength and of place, and the same noise, so that nothing but the shape tells
them apart. As in `data/simulated.py`, batch k is a function of (seed, k), and what is saved is how many were handed
out; training, validation and test have noise, shapes and signals of their own, and share no masses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import pytorch_lightning as L
import torch
from jaxtyping import Float32, Float64, Int64
from shared.data.root import data_root
from shared.errors import UserError
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from mma_realtime import models
from mma_realtime.data.bank import AFTER, SEGMENT, make_noise_bank, make_signal_bank
from mma_realtime.data.draws import band_fraction, log_uniform, recipe_fingerprint, stream, uniform, whole
from mma_realtime.data.glitches import GLITCHES, GlitchBank, make_glitch_bank
from mma_realtime.errors import SearchError
from mma_realtime.gw.psd import NoiseCurve, measured_curves
from mma_realtime.kernels import fused_inject
from mma_realtime.models import GlitchNet
from mma_realtime.module import LOG_EVERY, check_trained, rate_at

CHIRP = GLITCHES.index("chirp")


class Transients(NamedTuple):
    """A batch: whitened windows, the class in each (index into `GLITCHES`), its optimal signal-to-noise ratio."""

    x: Float32[Tensor, "batch 1 time"]
    kind: Int64[Tensor, " batch"]
    snr: Float32[Tensor, " batch"]


class Part(NamedTuple):
    """What the windows of training, validation or test are made of.

    Attributes:
        noise: of unit variance in the band.
        shapes: of unit signal-to-noise ratio, the classes in turn, each with its middle (chirp: merger) in its middle.
        masses: m1 >= m2 of the chirps (solar masses).
    """

    noise: Float32[Tensor, "row time"]
    shapes: GlitchBank
    masses: Float64[Tensor, "chirp 2"]


class GlitchWindows(L.LightningDataModule):
    """Windows of one detector with one transient in each, the classes equally often, simulated on the fly.

    Args:
        sample_rate: Hz.
        window: s of a window.
        band: f_low, f_high in Hz; f_low <= f < f_high is kept.
        m_range: of both component masses of a chirp (solar masses, detector frame).
        q_max: largest mass ratio.
        bank_size: transients of each class for training; validation and test have a quarter each.
        noise_seconds: of training noise; validation and test have a quarter each.
        noise: "white", or "conditioned" (coloured, then whitened by an estimated spectrum).
        snr: interval of the optimal signal-to-noise ratio, log-uniform.
        margin: s at either end of the window in which no transient has its middle (chirp: merger).
        batch_size: windows.
        steps_per_epoch: batches of an epoch.
        validation_windows: of validation, and of the test part.
        root: where the measured noise curves lie that whiten the chirps (default: `DATA_ROOT`, else `./data`); without
            them the design curves are drawn, perturbed.
        seed: of everything (default: the run's).

    Raises:
        SearchError: settings that do not go together, each named.
    """

    def __init__(
        self,
        sample_rate: int = 1024,
        window: float = 1.0,
        band: Sequence[float] = (20.0, 400.0),
        m_range: Sequence[float] = (5.0, 75.0),
        q_max: float = 10.0,
        bank_size: int = 2000,
        noise_seconds: float = 2048.0,
        noise: Literal["white", "conditioned"] = "white",
        snr: Sequence[float] = (8.0, 100.0),
        margin: float = 0.1,
        batch_size: int = 128,
        steps_per_epoch: int = 100,
        validation_windows: int = 6144,
        root: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        counts = {"bank_size": bank_size, "batch_size": batch_size, "steps_per_epoch": steps_per_epoch}
        for name, count in {**counts, "validation_windows": validation_windows}.items():
            if count < 1:
                raise SearchError(f"{name} is {count}: at least 1 is needed")
        for name, pair in {"band": band, "m_range": m_range, "snr": snr}.items():
            if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
                raise SearchError(f"{name} is {list(pair)}: [low, high] is needed, above 0")
        if not 0 <= margin < window / 2:
            raise SearchError(f"margin is {margin:g} s: from 0 to below half of the window of {window:g} s is needed")
        if noise_seconds < SEGMENT or window > SEGMENT / 2:
            raise SearchError(
                f"noise_seconds is {noise_seconds:g} and window {window:g} s: "
                f"at least {SEGMENT:g} s of noise, windows of at most {SEGMENT / 2:g} s"
            )
        if noise not in ("white", "conditioned"):
            raise SearchError(f"noise is {noise!r}: white or conditioned")
        self.band = float(band[0]), float(band[1])
        band_fraction(sample_rate, self.band)
        self.sample_rate, self.window, self.margin = sample_rate, window, margin
        self.m_range, self.q_max = (float(m_range[0]), float(m_range[1])), q_max
        self.bank_size, self.noise_seconds, self.noise = bank_size, noise_seconds, noise
        self.snr = float(snr[0]), float(snr[1])
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.validation_windows, self.root, self.seed = validation_windows, root, seed
        self.handed_out = 0
        self.device = torch.device("cpu")
        self.curves: list[NoiseCurve] | None = None
        self.made: dict[str, Part] = {}

    @property
    def samples(self) -> int:
        """Of a window."""
        return round(self.window * self.sample_rate)

    @property
    def run_seed(self) -> int:
        if self.seed is None:
            self.seed = torch.initial_seed() % 2**31
        return self.seed

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit"):
            self.part("train")
        if stage == "test":
            self.part("test")

    def part(self, name: str) -> Part:
        """Noise and transients of a part, made when they are first asked for."""
        if name not in self.made:
            self.made[name] = self._make(name)
        return self.made[name]

    def _curves(self) -> list[NoiseCurve]:
        if self.curves is None:
            self.curves = measured_curves(Path(self.root) if self.root else data_root())
        return self.curves

    def _make(self, name: str) -> Part:
        seed, rate, band, curves = self.run_seed, self.sample_rate, self.band, self._curves()
        each = self.bank_size if name == "train" else max(1, self.bank_size // 4)
        seconds = self.noise_seconds if name == "train" else self.noise_seconds / 4
        signals = make_signal_bank(
            each, seed, rate, band, self.window + AFTER, self.m_range, self.q_max, curves, part=name
        )
        chirps = torch.zeros(each, round(2 * self.window * rate))
        begin = chirps.shape[1] // 2 - signals.merger  # so that the merger is where glitches have their middle
        rows = signals.values[:, 0, max(0, -begin) :][:, : chirps.shape[1] - max(0, begin)]
        chirps[:, max(0, begin) :][:, : rows.shape[1]] = rows
        shapes = make_glitch_bank(len(GLITCHES) * each, seed, rate, band, 2 * self.window, GLITCHES, name, chirps)
        noise = make_noise_bank(seconds, seed, rate, band, name, self.noise == "conditioned", curves)
        masses = torch.stack([signals.m1, signals.m2], 1)
        return Part(noise.to(self.device), shapes.to(self.device), masses)

    def to_device(self, device: torch.device) -> None:
        """Have the banks, and put the windows together, where the model is."""
        self.device = device
        self.made = {k: Part(v.noise.to(device), v.shapes.to(device), v.masses) for k, v in self.made.items()}

    def windows(self, part: str, number: int, count: int, snr: tuple[float, float] | None = None) -> Transients:
        """`count` windows of a part; (seed, part, number) say which.

        Args:
            snr: interval of the signal-to-noise ratio (default: the module's).
        """
        noise, shapes, _ = self.part(part)
        generator = stream(self.run_seed, f"glitch windows {part}", number)
        u = torch.rand(7, count, generator=generator, dtype=torch.float64)
        kinds = len(GLITCHES)
        kind = (torch.randperm(count, generator=generator) + torch.randint(kinds, (1,), generator=generator)) % kinds
        row = kinds * whole(u[0], len(shapes.values) // kinds) + kind
        size = log_uniform(u[1], *(snr or self.snr))
        sign, flip = (torch.where(draw < 0.5, 1.0, -1.0).double() for draw in u[2:4])
        place = uniform(u[4], self.margin * self.sample_rate, self.samples - self.margin * self.sample_rate).long()
        start = whole(u[6], noise.shape[1] - self.samples + 1)
        places = torch.stack([whole(u[5], len(noise)), start, row, shapes.centre - place])[..., None].to(self.device)
        sizes = torch.stack([flip, size * sign, torch.ones_like(flip)])[..., None].float().to(self.device)
        (noise_row, begin, index, delay), (polarity, ratio, heard) = places, sizes
        x = fused_inject(noise, noise_row, begin, polarity, shapes.values, index, delay, ratio, heard, self.samples)
        return Transients(x, kind.to(self.device), size.float().to(self.device))

    def batch(self, k: int) -> Transients:
        """Batch k of this process: of several processes each takes every world_size-th of the run's batches."""
        rank, world = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        return self.windows("train", k * world + rank, self.batch_size)

    def train_dataloader(self) -> NextBatches:
        return NextBatches(self)

    def val_dataloader(self) -> SameBatches:
        return SameBatches(self, "validation")

    def test_dataloader(self) -> SameBatches:
        return SameBatches(self, "test")

    def recipe(self) -> dict[str, Any]:
        """All that the windows depend on."""
        names = ("sample_rate", "window", "band", "m_range", "q_max", "bank_size", "noise_seconds", "noise", "snr",
                 "margin", "batch_size")  # fmt: skip
        values = {name: getattr(self, name) for name in names}
        recipe = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
        return {**recipe, "curves": [[curve.name, float(curve.log10asd.sum())] for curve in self._curves()]}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the recipe."""
        return recipe_fingerprint("glitch_windows", **self.recipe())

    @property
    def detail(self) -> str:
        """What the data are, in one line."""
        return (
            f"simulated: {', '.join(GLITCHES)} of signal-to-noise ratio {self.snr[0]:g} to {self.snr[1]:g} in "
            f"{self.noise} noise, {self.sample_rate} Hz"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"handed_out": self.handed_out, "seed": self.run_seed, "recipe": self.recipe()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the batches that were handed out.

        Raises:
            SearchError: the checkpoint is of a run with other batches.
        """
        ours, theirs = {"seed": self.run_seed, **self.recipe()}, {"seed": state_dict["seed"], **state_dict["recipe"]}
        for key, value in ours.items():
            if theirs.get(key) != value:
                raise SearchError(f"the checkpoint was made with {key} {theirs.get(key)}, this run has {value}")
        self.handed_out = state_dict["handed_out"]


class NextBatches:
    """The next `steps_per_epoch` batches of the run."""

    def __init__(self, data: GlitchWindows) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.steps_per_epoch

    def __iter__(self) -> Iterator[Transients]:
        for _ in range(len(self)):
            self.data.handed_out += 1
            yield self.data.batch(self.data.handed_out - 1)


class SameBatches:
    """The same windows every time, of validation or test."""

    def __init__(self, data: GlitchWindows, part: str) -> None:
        self.data, self.part = data, part

    def __len__(self) -> int:
        return -(-self.data.validation_windows // self.data.batch_size)

    def __iter__(self) -> Iterator[Transients]:
        size, left = self.data.batch_size, self.data.validation_windows
        for k in range(len(self)):
            yield self.data.windows(self.part, k, min(size, left - k * size))


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
