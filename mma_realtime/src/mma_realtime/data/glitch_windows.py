"""Windows of simulated noise with one transient in each, for `GlitchNet` (section 5), as a Lightning module.

The windows hold one transient each, of the classes `GLITCHES`: five shapes of glitches, and chirps, which are signals
of the bank. All have the same law of strength and of place, and the same noise, so that nothing but the shape tells
them apart. As in `simulated`, batch k is a function of (seed, k), and what is saved is how many were handed out;
training, validation and test have noise, shapes and signals of their own, and share no masses.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytorch_lightning as L
import torch
from jaxtyping import Float32, Float64, Int64
from shared.data.root import data_root
from torch import Tensor

from mma_realtime.data.bank import AFTER, SEGMENT, make_noise_bank, make_signal_bank
from mma_realtime.data.draws import band_fraction, log_uniform, recipe_fingerprint, stream, uniform, whole
from mma_realtime.data.glitches import GLITCHES, GlitchBank, make_glitch_bank
from mma_realtime.data.loaders import NextBatches, SameBatches
from mma_realtime.errors import SearchError
from mma_realtime.gw.psd import NoiseCurve, measured_curves
from mma_realtime.kernels import fused_inject


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

    def train_dataloader(self) -> NextBatches[Transients]:
        return NextBatches(self, self.batch)

    def val_dataloader(self) -> SameBatches[Transients]:
        return SameBatches(self, partial(self.windows, "validation"))

    def test_dataloader(self) -> SameBatches[Transients]:
        return SameBatches(self, partial(self.windows, "test"))

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
