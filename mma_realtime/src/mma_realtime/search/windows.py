"""Windows of real strain, and of the challenge's, for Lightning (section 3): what a search scores, in batches.

    trainer.predict(detector, StrainFileDataModule(["event_GW150914.npz"]))       # the statistic of every window
    trainer.test(detector, MLGWSCDataModule(["foreground.hdf"], "injections.hdf"))

A window that touches a gap, an edge or the start of the PSD is not handed out. A whole file is held whitened: 8 kB a
second of two detectors at 1024 Hz.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pytorch_lightning as L
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mma_realtime.data.mlgwsc import Injections, read_injections
from mma_realtime.data.strain import Strain, read_strain
from mma_realtime.data.strain_files import SAMPLE_RATE
from mma_realtime.data.strain_parts import listed, preferred, spans
from mma_realtime.data.windows import Windows
from mma_realtime.errors import SearchError
from mma_realtime.gw.constants import F_REF
from mma_realtime.gw.units import Hertz, Seconds
from mma_realtime.gw.waveforms import chirp_time
from mma_realtime.search.conditioning import Conditioner
from mma_realtime.search.scores import HOP, Noise, Windowed, informed, windows_of
from mma_realtime.search.series import Scores

RING_DOWN: Seconds = 0.1  # s, of a signal after its merger and the way from the Earth's centre to a detector


class StrainWindows(NamedTuple):
    """A batch of windows of strain.

    Attributes:
        x: whitened, of unit variance in noise.
        detector: index into the stretch's detectors; 0 where a window holds all of them.
        stretch: index into `StrainFileDataModule.stretches`.
        gps: GPS s at which each window ends.
    """

    x: Float32[Tensor, "batch channel time"]
    detector: Int64[Tensor, " batch"]
    stretch: Int64[Tensor, " batch"]
    gps: Float64[Tensor, " batch"]


class StretchOfWindows(NamedTuple):
    """A stretch of strain, and the windows of it.

    Attributes:
        detectors: their names.
        windowed: whitened strain, and where its windows are.
        rows, windows: of each window that is handed out: the detector's row, and which window it is.
    """

    detectors: tuple[str, ...]
    windowed: Windowed
    rows: Int64[np.ndarray, " n"]
    windows: Int64[np.ndarray, " n"]


class _Batches(Dataset[StrainWindows]):
    """Item k is batch k, cut from the whitened strain when it is asked for."""

    def __init__(self, data: StrainFileDataModule, chosen: Sequence[Int64[np.ndarray, " n"]]) -> None:
        self.data = data
        self.parts = [
            (number, part)
            for number, those in enumerate(chosen)
            for part in np.split(those, range(data.batch_size, len(those), data.batch_size))
            if len(part)
        ]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> StrainWindows:
        number, chosen = self.parts[index]
        return self.data.cut(number, chosen)


class _Labelled(_Batches):
    """The same windows with what is injected in them."""

    def __getitem__(self, index: int) -> Windows:  # type: ignore[override]
        assert isinstance(self.data, MLGWSCDataModule)
        batch = super().__getitem__(index)
        return self.data.labelled(batch, self.parts[index][0])


class StrainFileDataModule(L.LightningDataModule):
    """Windows of strain files, conditioned as a search does it; `predict_dataloader` gives `StrainWindows`.

    Args:
        paths: .npz or HDF5 files (see `strain_files`), or folders of them.
        sample_rate: Hz, of the network.
        band: Hz, that is kept.
        window: s.
        hop: s between windows; 1/16 is 16 Hz.
        noise: the PSD is of the seconds before (`trailing`), of the whole stretch (`file`), or by its length (`auto`).
        detectors: `each`: a window is of one detector; else of these together, in this order.
        batch_size: windows at once.

    Raises:
        SearchError: a window, a hop or a batch that cannot be.
        StrainError: at `setup`: strain that cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        sample_rate: int = 1024,
        band: tuple[Hertz, Hertz] = (20.0, 400.0),
        window: Seconds = 1.0,
        hop: Seconds = HOP,
        noise: Noise = "auto",
        detectors: Literal["each"] | Sequence[str] = "each",
        batch_size: int = 128,
    ) -> None:
        super().__init__()
        for name, seconds in (("window", window), ("hop", hop)):
            samples = seconds * sample_rate
            if not (samples >= 1 and samples == round(samples)):
                raise SearchError(
                    f"{name} is {seconds:g} s: it has to be a whole number of samples at {sample_rate} Hz"
                )
        if batch_size < 1:
            raise SearchError(f"batch_size is {batch_size}: it has to be at least 1")
        if noise not in ("auto", "trailing", "file"):
            raise SearchError(f"noise is {noise!r}: use auto, trailing or file")
        self.paths = [Path(path) for path in paths]
        self.detectors: Literal["each"] | tuple[str, ...] = "each" if detectors == "each" else tuple(detectors)
        self.hop, self.window, self.noise, self.batch_size = hop, window, noise, batch_size
        self.conditioner = Conditioner(SAMPLE_RATE, sample_rate, (band[0], band[1]))
        self.stretches: list[StretchOfWindows] = []

    def setup(self, stage: str | None = None) -> None:
        """Read and whiten the files; called by Lightning."""
        if self.stretches:
            return
        for gps in spans(preferred(listed(self.paths), SAMPLE_RATE)):
            self.stretches.append(self._windows(read_strain(*self.paths, gps=gps, partial=True)))

    def _windows(self, strain: Strain) -> StretchOfWindows:
        if self.detectors != "each":
            strain = strain.select(*self.detectors)
        rate = self.conditioner.sample_rate
        found = windows_of(
            strain, informed(self.conditioner, strain, self.noise), round(self.window * rate), round(self.hop * rate)
        )
        if self.detectors != "each":
            found = found._replace(whole=np.logical_and.reduce(found.whole, axis=0, keepdims=True))
        rows, windows = np.nonzero(found.whole)
        return StretchOfWindows(strain.detectors, found, rows, windows)

    def cut(self, stretch: int, chosen: Int64[np.ndarray, " batch"]) -> StrainWindows:
        """These of the windows of a stretch, by their place in `rows` and `windows`."""
        of = self.stretches[stretch]
        rows, windows = of.rows[chosen], of.windows[chosen]
        length = round(self.window * self.conditioner.sample_rate)
        at = of.windowed.starts[windows][:, None] + np.arange(length)
        if self.detectors == "each":
            x = of.windowed.values[rows[:, None], at][:, None]
        else:
            x = of.windowed.values[:, at].swapaxes(0, 1)
        return StrainWindows(
            torch.from_numpy(np.ascontiguousarray(x)),
            torch.from_numpy(rows),
            torch.full((len(chosen),), stretch),
            torch.from_numpy(of.windowed.ends[windows]),
        )

    def predict_dataloader(self) -> DataLoader[StrainWindows]:
        """Every window that can be scored: stretch by stretch, detector by detector, in order of time."""
        return DataLoader(_Batches(self, [np.arange(len(each.rows)) for each in self.stretches]), batch_size=None)

    def scores(self, statistic: Float32[Tensor, " window"]) -> list[Scores]:
        """What `score_strain` gives of each stretch, of the statistics of all windows in the loader's order.

        Args:
            statistic: `torch.cat(trainer.predict(detector, data))`.

        Raises:
            SearchError: not as many as there are windows.
        """
        counts = [len(each.rows) for each in self.stretches]
        if len(statistic) != sum(counts):
            raise SearchError(f"{len(statistic)} statistics for {sum(counts)} windows: give those of the whole loader")
        out = []
        for of, part in zip(self.stretches, statistic.split(counts), strict=True):
            values = np.zeros(of.windowed.whole.shape, np.float32)
            values[of.rows, of.windows] = part.numpy()
            start = float(of.windowed.ends[0]) if len(of.windowed.ends) else 0.0
            out.append(Scores(of.detectors, start, self.hop, values, of.windowed.whole, self.window))
        return out


class MLGWSCDataModule(StrainFileDataModule):
    """Windows of a set like the mock data challenge's; with its injections `test_dataloader` gives labelled `Windows`.

    A window is a signal's (label 1) where a merger lies in it as in training, and noise (label 0) where no injection
    reaches into it, from 20 Hz to its ring-down. Windows that see a part of a signal only are left out of the test.

    Args:
        paths: the challenge's strain.
        injections: its file of injections.
        merger: s before the end of a window, between which a merger has to lie; at the Earth's centre.
        settings: of `StrainFileDataModule`.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        injections: str | Path | None = None,
        merger: tuple[Seconds, Seconds] = (0.05, 0.25),
        sample_rate: int = 1024,
        band: tuple[Hertz, Hertz] = (20.0, 400.0),
        window: Seconds = 1.0,
        hop: Seconds = HOP,
        noise: Noise = "auto",
        detectors: Literal["each"] | Sequence[str] = "each",
        batch_size: int = 128,
    ) -> None:
        super().__init__(paths, sample_rate, band, window, hop, noise, detectors, batch_size)
        if not 0 <= merger[0] < merger[1] <= window:
            raise SearchError(
                f"merger is {merger[0]:g} to {merger[1]:g} s before the end: give two times in the window"
            )
        self.injections: Injections | None = None if injections is None else read_injections(Path(injections))
        self.merger = merger

    def told(self, gps: Float64[np.ndarray, " window"]) -> Int64[np.ndarray, " window"]:
        """Of windows that end then: the injection whose merger they hold, -1: none reaches into them, -2: a part."""
        assert self.injections is not None
        tc, m1, m2 = (self.injections[key] for key in ("tc", "mass1", "mass2"))
        first = tc - chirp_time(torch.from_numpy(m1), torch.from_numpy(m2), F_REF).numpy()
        out = np.full(len(gps), -1)
        for k in range(len(tc)):
            out[(gps > first[k]) & (gps - self.window < tc[k] + RING_DOWN)] = -2
        for k in range(len(tc)):
            out[(gps - tc[k] >= self.merger[0]) & (gps - tc[k] <= self.merger[1])] = k
        return out

    def test_dataloader(self) -> DataLoader[StrainWindows]:
        """Raises:
        SearchError: no file of injections was given.
        """
        if self.injections is None:
            raise SearchError("windows of this set have no labels: give injections, the set's file of them")
        chosen = [np.flatnonzero(self.told(each.windowed.ends[each.windows]) > -2) for each in self.stretches]
        return DataLoader(_Labelled(self, chosen), batch_size=None)

    def labelled(self, batch: StrainWindows, stretch: int) -> Windows:
        """The windows with label, masses (nan in noise) and optimal SNR (0 in noise; nan where the set tells none)."""
        assert self.injections is not None
        which = self.told(batch.gps.numpy())
        signal = which >= 0
        masses = np.full((len(which), 2), np.nan, np.float32)
        both = np.sort(np.stack([self.injections["mass1"], self.injections["mass2"]], axis=1))[:, ::-1]
        masses[signal] = both[which[signal]]
        names = self.stretches[stretch].detectors
        unknown = np.full(len(both), np.nan)
        of = np.stack([self.injections.get(f"optimal_snr_{name}", unknown) for name in names])
        snr = np.zeros(len(which), np.float32)
        if self.detectors == "each":
            snr[signal] = of[batch.detector.numpy()[signal], which[signal]]
        else:
            snr[signal] = np.sqrt((of[:, which[signal]] ** 2).sum(axis=0))
        return Windows(
            batch.x, torch.from_numpy(signal).float(), torch.from_numpy(masses), torch.from_numpy(snr),
            torch.full((len(which),), -1),
        )  # fmt: skip
