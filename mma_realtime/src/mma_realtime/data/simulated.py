"""Windows of simulated noise with and without a binary black hole, as one Lightning module (section 3).

Batch k of a run is a function of (seed, k) and nothing else: all its draws come from one table of uniform numbers of
its own, and the banks it draws from are made from the seed. So what has to be saved is how many batches were handed
out, and a run resumed anywhere goes on with the same bits. Draws are made on the CPU, whatever device the banks lie on.

Training, validation and test have noise, glitches and signals of their own, and share no masses (`draws.mass_part`).

How a window is put together: `windows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as L
import torch
from shared.data.root import data_root

from mma_realtime.data.bank import AFTER, SEGMENT, make_noise_bank, make_signal_bank
from mma_realtime.data.draws import band_fraction, recipe_fingerprint, stream
from mma_realtime.data.glitches import GlitchBank, falling_chirps, make_glitch_bank
from mma_realtime.data.loaders import NextBatches, SameBatches
from mma_realtime.data.windows import Banks, Recipe, Windows, draw_windows
from mma_realtime.errors import SearchError
from mma_realtime.gw.psd import NoiseCurve, measured_curves

DETECTORS = {1: ("H1",), 2: ("H1", "L1")}
GLITCHES_IN_BANK = 2000
SLACK = 0.03  # s that a row is longer than any window shows of it: light takes 21 ms to the Earth's centre


class SimulatedBBH(L.LightningDataModule):
    """Windows for training a search, simulated on the fly.

    Args:
        detectors: 1, which stands for any, or 2 (H1 and L1).
        sample_rate: Hz.
        window: s of a window.
        band: f_low, f_high in Hz; f_low <= f < f_high is kept.
        m_range: of both component masses (solar masses, detector frame).
        q_max: largest mass ratio.
        bank_size: training signals; validation and test have a tenth each.
        noise_seconds: of training noise; validation and test have a quarter each.
        batch_size: windows.
        steps_per_epoch: batches of an epoch.
        steps: of the whole run, for the curriculum (default: what the trainer is set to).
        waveform_probability: share of the windows that are given a signal, exactly that in every batch.
        snr_law: "curriculum": uniform in an interval that slides from `snr_start` to `snr_end`; "power": density
            proportional to snr^-3 in `snr_end` all along.
        snr_start, snr_end: intervals of the signal-to-noise ratio.
        snr_slide: share of the steps in which the interval slides.
        first_phase: batches after which the curriculum begins anew: `pretrain_steps` of the model, whose predictor
            else would never see a faint signal.
        merger_range: s before the window's end in which the merger lies.
        glitch_probability: share of the windows without a signal that are given a glitch, in one detector.
        falling: share of the glitches, below 1, that are signals run backwards.
        mute, swap: share of the signals that are taken from one detector, or that meet another event's part in one;
            of two detectors only.
        noise: "white", or "conditioned" (coloured, then whitened by an estimated spectrum).
        validation_windows: of validation, and of the test part.
        root: where the measured noise curves lie (default: `DATA_ROOT`, else `./data`); without them the design
            curves are drawn, perturbed.
        seed: of everything (default: the run's).

    Raises:
        SearchError: settings that do not go together, each named.
    """

    def __init__(
        self,
        detectors: int = 1,
        sample_rate: int = 1024,
        window: float = 1.0,
        band: Sequence[float] = (20.0, 400.0),
        m_range: Sequence[float] = (5.0, 75.0),
        q_max: float = 10.0,
        bank_size: int = 20_000,
        noise_seconds: float = 8192.0,
        batch_size: int = 128,
        steps_per_epoch: int = 100,
        steps: int | None = None,
        waveform_probability: float = 0.5,
        snr_law: Literal["curriculum", "power"] = "curriculum",
        snr_start: Sequence[float] = (20.0, 40.0),
        snr_end: Sequence[float] = (4.0, 16.0),
        snr_slide: float = 0.6,
        first_phase: int = 0,
        merger_range: Sequence[float] = (0.05, 0.25),
        glitch_probability: float = 0.0,
        falling: float = 0.0,
        mute: float = 0.055,
        swap: float = 0.014,
        noise: Literal["white", "conditioned"] = "white",
        validation_windows: int = 2048,
        root: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if detectors not in DETECTORS:
            raise SearchError(f"detectors is {detectors!r}: 1, which stands for any, or 2 (H1 and L1)")
        whole_numbers = {"bank_size": bank_size, "batch_size": batch_size, "steps_per_epoch": steps_per_epoch}
        for name, count in {**whole_numbers, "validation_windows": validation_windows}.items():
            if count < 1:
                raise SearchError(f"{name} is {count}: at least 1 is needed")
        shares = {"waveform_probability": waveform_probability, "glitch_probability": glitch_probability}
        for name, share in {**shares, "mute": mute, "swap": swap, "snr_slide": snr_slide}.items():
            if not 0 <= share <= 1:
                raise SearchError(f"{name} is {share:g}: a share from 0 to 1 is needed")
        pairs = {"band": band, "m_range": m_range, "snr_start": snr_start, "snr_end": snr_end}
        for name, pair in {**pairs, "merger_range": merger_range}.items():
            if len(pair) != 2 or not 0 <= pair[0] <= pair[1]:
                raise SearchError(f"{name} is {list(pair)}: [low, high] is needed, from 0 up")
        if merger_range[1] > min(window, AFTER - SLACK):
            raise SearchError(
                f"merger_range ends {merger_range[1]:g} s before the window's end: "
                f"at most {min(window, AFTER - SLACK):g} s fit a window of {window:g} s"
            )
        if noise_seconds < SEGMENT or window > SEGMENT / 2:
            raise SearchError(
                f"noise_seconds is {noise_seconds:g} and window {window:g} s: "
                f"at least {SEGMENT:g} s of noise, windows of at most {SEGMENT / 2:g} s"
            )
        if snr_law not in ("curriculum", "power") or noise not in ("white", "conditioned"):
            raise SearchError(f"snr_law is {snr_law!r} (curriculum or power), noise {noise!r} (white or conditioned)")
        if snr_law == "power" and not snr_end[0] > 0:
            raise SearchError("snr_law power: snr_end has to begin above 0")
        self.band = float(band[0]), float(band[1])
        band_fraction(sample_rate, self.band)
        self.detectors, self.sample_rate, self.window = DETECTORS[detectors], sample_rate, window
        self.m_range, self.q_max = (float(m_range[0]), float(m_range[1])), q_max
        self.bank_size, self.noise_seconds, self.noise = bank_size, noise_seconds, noise
        self.batch_size, self.steps_per_epoch, self.steps = batch_size, steps_per_epoch, steps
        if not 0 <= falling < 1:
            raise SearchError(f"falling is {falling:g}: a share of the glitches from 0 to below 1 is needed")
        self.waveform_probability, self.glitch_probability = waveform_probability, glitch_probability
        self.falling = falling
        if first_phase < 0:
            raise SearchError(f"first_phase is {first_phase}: a number of batches from 0 is needed")
        self.snr_law, self.snr_slide, self.first_phase = snr_law, snr_slide, first_phase
        self.snr_start, self.snr_end = tuple(map(float, snr_start)), tuple(map(float, snr_end))
        self.merger_range = tuple(map(float, merger_range))
        self.mute, self.swap = (mute, swap) if detectors == 2 else (0.0, 0.0)
        self.validation_windows, self.root, self.seed = validation_windows, root, seed
        self.handed_out = 0
        self.device = torch.device("cpu")
        self.curves: list[NoiseCurve] | None = None
        self.made: dict[str, Banks] = {}

    # -- banks --------------------------------------------------------------------------------------------------------

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
            self.banks("train")
        self.banks("test" if stage == "test" else "validation")

    def banks(self, part: str) -> Banks:
        """Noise, signals and glitches of a part, made when they are first asked for."""
        if part not in self.made:
            self.made[part] = self._make(part).to(self.device)
        return self.made[part]

    def _curves(self) -> list[NoiseCurve]:
        if self.curves is None:
            self.curves = measured_curves(Path(self.root) if self.root else data_root())
        return self.curves

    def _make(self, part: str) -> Banks:
        seed, rate, band = self.run_seed, self.sample_rate, self.band
        signals = self.bank_size if part == "train" else max(1, self.bank_size // 10)
        seconds = self.noise_seconds if part == "train" else self.noise_seconds / 4
        row = self.window - self.merger_range[0] + AFTER + SLACK
        glitches = None
        if self.glitch_probability:
            glitches = make_glitch_bank(GLITCHES_IN_BANK, seed, rate, band, 2 * self.window, use=part)
        bank = make_signal_bank(
            signals, seed, rate, band, row, self.m_range, self.q_max, self._curves(), self.detectors, part
        )
        if glitches is not None and self.falling:
            count = min(len(bank), round(self.falling / (1 - self.falling) * GLITCHES_IN_BANK))
            chirps = falling_chirps(bank.values[:count, 0], bank.merger, rate, band, 2 * self.window)
            glitches = GlitchBank(torch.cat([glitches.values, chirps.values]), torch.cat([glitches.kind, chirps.kind]))
        noise = make_noise_bank(seconds, seed, rate, band, part, self.noise == "conditioned", self._curves())
        return Banks(noise, bank, glitches)

    def to_device(self, device: torch.device) -> None:
        """Have the banks, and put the windows together, where the model is."""
        self.device = device
        self.made = {part: banks.to(device) for part, banks in self.made.items()}

    # -- windows ------------------------------------------------------------------------------------------------------

    @property
    def total_steps(self) -> int:
        """Steps of the whole run.

        Raises:
            SearchError: the trainer has no end, and nothing was said.
        """
        if self.steps is not None:
            return self.steps
        if self.trainer is None:
            return self.steps_per_epoch
        ends = [self.trainer.max_steps] if self.trainer.max_steps > 0 else []
        if self.trainer.max_epochs is not None and self.trainer.max_epochs > 0:
            ends.append(self.trainer.max_epochs * self.steps_per_epoch)
        if not ends:
            raise SearchError("the curriculum has to know how long the run is: set `steps`, max_steps or max_epochs")
        return min(ends)

    def snr_interval(self, progress: float) -> tuple[float, float]:
        """Of the signals when that share of the steps is done."""
        if self.snr_law == "power" or self.snr_slide == 0:
            return self.snr_end[0], self.snr_end[1]
        done = min(1.0, progress / self.snr_slide)
        low, high = (a + done * (b - a) for a, b in zip(self.snr_start, self.snr_end))
        return low, high

    def batch(self, k: int) -> Windows:
        """Batch k of this process: of several processes each takes every world_size-th of the run's batches."""
        rank, world = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        begin, end = (0, self.first_phase) if k < self.first_phase else (self.first_phase, self.total_steps)
        interval = self.snr_interval((k - begin) / max(1, end - begin))
        return self.windows("train", "train", k * world + rank, self.batch_size, interval)

    def windows(
        self,
        part: str,
        use: str,
        number: int,
        count: int,
        snr: tuple[float, float],
        waveform_probability: float | None = None,
        coherent: bool = False,
    ) -> Windows:
        """`count` windows of a part; (seed, use, number) say which.

        Args:
            snr: interval of the optimal signal-to-noise ratio, distributed by the module's law.
            waveform_probability: share with a signal (default: the module's).
            coherent: neither mute nor swap, however the module is set.
        """
        share = self.waveform_probability if waveform_probability is None else waveform_probability
        recipe = Recipe(
            samples=self.samples,
            merger=(self.merger_range[0] * self.sample_rate, self.merger_range[1] * self.sample_rate),
            share=share,
            snr=snr,
            snr_law=self.snr_law,
            mute=0.0 if coherent else self.mute,
            swap=0.0 if coherent else self.swap,
            glitches=self.glitch_probability,
        )
        return draw_windows(self.banks(part), recipe, count, stream(self.run_seed, f"windows {use}", number))

    def test_windows(self, snr: float, n: int, part: str = "test") -> Windows:
        """n windows that all hold a signal of that signal-to-noise ratio, of masses that were not trained on."""
        return self.windows(part, f"{part} at {snr:g}", 0, n, (snr, snr), 1.0, coherent=True)

    def noise_windows(self, n: int, part: str = "test") -> Windows:
        """n windows of noise alone; no two of them share a sample."""
        per_row = int(SEGMENT * self.sample_rate) // self.samples
        seconds, seed, D = SEGMENT * -(-n * len(self.detectors) // per_row), self.run_seed, len(self.detectors)
        conditioned = self.noise == "conditioned"
        rows = make_noise_bank(seconds, seed, self.sample_rate, self.band, f"{part} alone", conditioned, self._curves())
        x = rows[:, : per_row * self.samples].reshape(-1, self.samples)[: n * D].reshape(n, D, self.samples)
        rest = (torch.zeros(n), torch.full((n, 2), torch.nan), torch.zeros(n), torch.full((n,), -1))
        return Windows(*(value.to(self.device) for value in (x, *rest)))

    def same_windows(self, part: str, k: int, count: int) -> Windows:
        """Batch k of validation or test."""
        return self.windows(part, part, k, count, self.snr_interval(1.0))

    def train_dataloader(self) -> NextBatches[Windows]:
        return NextBatches(self, self.batch)

    def val_dataloader(self) -> SameBatches[Windows]:
        return SameBatches(self, partial(self.same_windows, "validation"))

    def test_dataloader(self) -> SameBatches[Windows]:
        return SameBatches(self, partial(self.same_windows, "test"))

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def recipe(self) -> dict[str, Any]:
        """All that the windows depend on, but the length of the run."""
        curves = self._curves()
        return {
            "detectors": list(self.detectors), "sample_rate": self.sample_rate, "window": self.window,
            "band": list(self.band), "m_range": list(self.m_range), "q_max": self.q_max, "bank_size": self.bank_size,
            "noise_seconds": self.noise_seconds, "noise": self.noise, "batch_size": self.batch_size,
            "waveform_probability": self.waveform_probability, "snr_law": self.snr_law,
            "snr_start": list(self.snr_start), "snr_end": list(self.snr_end), "snr_slide": self.snr_slide,
            "first_phase": self.first_phase,
            "merger_range": list(self.merger_range), "glitch_probability": self.glitch_probability,
            "falling": self.falling,
            "mute": self.mute, "swap": self.swap,
            "curves": [[curve.name, float(curve.log10asd.sum())] for curve in curves],
        }  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the recipe."""
        return recipe_fingerprint("simulated_bbh", **self.recipe())

    @property
    def detail(self) -> str:
        """What the data are, in one line."""
        curves = f"{len(self._curves())} measured noise curves" if self._curves() else "perturbed design noise curves"
        where = "one detector" if len(self.detectors) == 1 else "+".join(self.detectors)
        masses = f"IMRPhenomD of {self.m_range[0]:g}-{self.m_range[1]:g} solar masses"
        return f"simulated: {masses} in {self.noise} noise, {where}, {self.sample_rate} Hz, {curves}"

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


SimulatedBBHDataModule = SimulatedBBH  # its name in section 3
