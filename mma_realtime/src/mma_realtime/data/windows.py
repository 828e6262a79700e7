"""Training windows, put together from banks of noise, signals and glitches in one pass (sections 3 and 11).

With several detectors a signal has the amplitudes, phases and arrival times of one direction. One that was muted in a
detector, or of which a detector shows another event, is there to be told from a coherent one: its label is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from mma_realtime.data.bank import SignalBank
from mma_realtime.data.draws import log_uniform, power_law, uniform, whole
from mma_realtime.data.glitches import GlitchBank
from mma_realtime.kernels import fused_inject

GLITCH_SNR_RANGE = (8.0, 200.0)
# Rows of the table of uniform draws; behind them noise row, start and polarity of each detector.
SIGNAL, MERGER, SNR, SIGN, MUTED, MUTED_WHERE, SWAPPED, OTHER = range(8)
GLITCHED, GLITCH, GLITCH_WHERE, GLITCH_TIME, GLITCH_SNR, GLITCH_SIGN = range(8, 14)
COMMON = 14


class Windows(NamedTuple):
    """A batch. Whitened, of unit variance in the band where there is noise alone.

    Attributes:
        x: [batch, detector, time].
        label: 1 where a signal is to be found.
        masses: m1 >= m2 (solar masses, detector frame), nan where there is none to be found.
        snr: optimal signal-to-noise ratio of the signal in all detectors together, 0 where there is none to be found.
        glitch: index into `GLITCHES`, `FALLING`, or -1 where there is none.
    """

    x: Float32[Tensor, "batch detector time"]
    label: Float32[Tensor, " batch"]
    masses: Float32[Tensor, "batch 2"]
    snr: Float32[Tensor, " batch"]
    glitch: Int64[Tensor, " batch"]


@dataclass(frozen=True)
class Banks:
    """What the windows of one part are put together from."""

    noise: Float32[Tensor, "row time"]
    signals: SignalBank
    glitches: GlitchBank | None

    def to(self, device: torch.device) -> Banks:
        glitches = None if self.glitches is None else self.glitches.to(device)
        return Banks(self.noise.to(device), self.signals.to(device), glitches)


class Recipe(NamedTuple):
    """How windows are put together.

    Attributes:
        samples: of a window.
        merger: interval of samples before the window's end.
        share: of the windows that are given a signal; exactly that.
        snr: interval of the optimal signal-to-noise ratio; snr_law: "curriculum" (uniform) or "power" (snr^-3).
        mute, swap: share of the signals taken from one detector, or that meet another event's part in one.
        glitches: share of the windows without a signal that are given a glitch, in one detector, of a signal-to-noise
            ratio whose logarithm is uniform in `GLITCH_SNR_RANGE`.
    """

    samples: int
    merger: tuple[float, float]
    share: float
    snr: tuple[float, float]
    snr_law: str
    mute: float
    swap: float
    glitches: float


def draw_windows(banks: Banks, recipe: Recipe, count: int, generator: torch.Generator) -> Windows:
    """`count` windows; all that is random comes from the generator (of the CPU), the windows lie where the banks do."""
    device, (n, D, _) = banks.noise.device, banks.signals.values.shape
    u = torch.rand(COMMON + 3 * D, count, generator=generator, dtype=torch.float64)
    common, own = u[:COMMON], u[COMMON:].view(3, D, count).transpose(1, 2)  # [14, B], [3, B, D]
    has_signal = torch.zeros(count, dtype=torch.bool)
    has_signal[torch.randperm(count, generator=generator)[: round(recipe.share * count)]] = True
    detector = torch.arange(D)

    def everywhere(x: Tensor) -> Tensor:
        return x[:, None].expand(count, D)

    noise_row = whole(own[0], len(banks.noise))
    start = whole(own[1], banks.noise.shape[1] - recipe.samples + 1)
    flip = torch.where(own[2] < 0.5, 1.0, -1.0)

    law = power_law if recipe.snr_law == "power" and recipe.snr[0] < recipe.snr[1] else uniform
    snr = law(common[SNR], *recipe.snr) * has_signal
    sign = torch.where(common[SIGN] < 0.5, 1.0, -1.0)
    merger = recipe.samples - uniform(common[MERGER], *recipe.merger).round().long()
    signal = whole(common[SIGNAL], n)
    muted, swapped = common[MUTED] < recipe.mute, common[SWAPPED] < recipe.swap
    heard = ~(muted[:, None] & (whole(common[MUTED_WHERE], D)[:, None] == detector))
    other = (signal + 1 + whole(common[OTHER], max(1, n - 1))) % n
    member = torch.where(swapped[:, None] & (detector == D - 1), other[:, None], signal[:, None])
    label = has_signal & ~muted & ~swapped

    places = [noise_row, start, member * D + detector, everywhere(banks.signals.merger - merger)]
    sizes = [flip, everywhere(snr * sign), heard]
    glitch = torch.full((count,), -1)
    if banks.glitches is not None and recipe.glitches:
        glitched = ~has_signal & (common[GLITCHED] < recipe.glitches)
        index = whole(common[GLITCH], len(banks.glitches.values))
        glitch = torch.where(glitched, banks.glitches.kind[index], -1)
        size = log_uniform(common[GLITCH_SNR], *GLITCH_SNR_RANGE) * torch.where(common[GLITCH_SIGN] < 0.5, 1.0, -1.0)
        here = glitched[:, None] & (whole(common[GLITCH_WHERE], D)[:, None] == detector)
        places += [everywhere(index), everywhere(banks.glitches.centre - whole(common[GLITCH_TIME], recipe.samples))]
        sizes += [size[:, None] * here]
    x = inject(banks, torch.stack(places).to(device), torch.stack(sizes).float().to(device), recipe.samples)

    masses = torch.stack([banks.signals.m1[signal], banks.signals.m2[signal]], 1).float()
    masses = torch.where(label[:, None], masses, torch.nan)
    rest = (label.float(), masses, (snr * label).float(), glitch)
    return Windows(x, *(value.to(device) for value in rest))


def inject(
    banks: Banks,
    places: Int64[Tensor, "what batch detector"],
    sizes: Float32[Tensor, "what batch detector"],
    samples: int,
) -> Float32[Tensor, "batch detector time"]:
    """The windows, on the banks' device: what is drawn has gone there in two pieces."""
    noise_row, start, signal, delay, *glitch_places = places
    flip, snr, heard, *glitch_sizes = sizes
    glitches = (
        [] if banks.glitches is None or not glitch_places else [banks.glitches.values, *glitch_places, *glitch_sizes]
    )
    signals = banks.signals.values.flatten(0, 1)
    return fused_inject(banks.noise, noise_row, start, flip, signals, signal, delay, snr, heard, samples, *glitches)
