"""Glitches: short transients of one detector's making, as they look after whitening (section 3).

Their shapes are drawn in the whitened domain, kept within the band and scaled to unit optimal signal-to-noise ratio
(B sum(x^2) = 1), so that a glitch times s is as loud as a signal of that ratio. Each has its middle in the middle of
its row. `u` is a table of uniform numbers, one row for each glitch.

blip            a bump as wide as half a cycle of 100-500 Hz
whistle         a tone that falls to its lowest frequency and rises again, U-shaped in the time-frequency plane
scattered_light arches: phase f_max T sin(2 pi t / T), the fringes of a mirror that swings with period T
koi_fish        a loud, broad head of many frequencies at once with a low tail that rings on
sine_gaussian   a tone under a Gaussian, quality 3-30
chirp           not a glitch: the sixth class of the classifier, given as whitened signals
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from mma_realtime.data.draws import log_uniform, stream, uniform, unit_snr
from mma_realtime.errors import SearchError

GLITCHES = ("blip", "whistle", "scattered_light", "koi_fish", "sine_gaussian", "chirp")
NEGATIVES = GLITCHES[:-1]
FALLING = len(GLITCHES)  # kind of a signal run backwards, which is none of the classes
COLUMNS = 5  # uniform numbers that a shape needs, at most
CHUNK = 256


@dataclass(frozen=True)
class GlitchBank:
    """Whitened glitches of unit signal-to-noise ratio [n, time], the class of each (index into `GLITCHES`)."""

    values: Float32[Tensor, "n time"]
    kind: Int64[Tensor, " n"]

    @property
    def centre(self) -> int:
        """The sample in which every glitch has its middle."""
        return self.values.shape[1] // 2

    def to(self, device: torch.device) -> GlitchBank:
        """With the glitches on the device; their kinds stay."""
        return GlitchBank(self.values.to(device), self.kind)


def blip(t: Tensor, u: Tensor, band: tuple[float, float]) -> Tensor:
    """A Gaussian of the height and width of half a cycle of a cosine: a half-cycle itself is a sample or two wide."""
    f = log_uniform(u[:, :1], min(100.0, band[1] / 2), min(500.0, band[1]))
    return torch.exp(-0.5 * (t * f / 0.1416) ** 2)  # half as high at |t| = 1 / (6 f), as the cosine is


def whistle(t: Tensor, u: Tensor, band: tuple[float, float]) -> Tensor:
    """Frequency f0 + (f1 - f0) (t / L)^2 for |t| < L, faded in and out."""
    f0 = log_uniform(u[:, :1], max(60.0, band[0]), band[1] / 2)
    f1 = uniform(u[:, 1:2], f0 + 0.2 * (band[1] - f0), band[1])
    length = log_uniform(u[:, 2:3], 0.05, 0.4)
    phase = 2 * math.pi * (u[:, 3:4] + f0 * t + (f1 - f0) * t**3 / (3 * length**2))
    return torch.sin(phase) * hann(t / length)


def scattered_light(t: Tensor, u: Tensor, band: tuple[float, float]) -> Tensor:
    """Arches of height f_max, each half a swing long, with a weaker second harmonic."""
    f_max = uniform(u[:, :1], 1.3 * band[0], min(90.0, band[1]))
    period = log_uniform(u[:, 1:2], 0.5, 4.0)
    extent = uniform(u[:, 2:3], 0.3, 1.0)
    arch = f_max * period * torch.sin(2 * math.pi * t / period) + 2 * math.pi * u[:, 3:4]
    return (torch.sin(arch) + 0.5 * u[:, 4:5] * torch.sin(2 * arch)) * hann(t / extent)


def koi_fish(t: Tensor, u: Tensor, band: tuple[float, float]) -> Tensor:
    """Tones from the band's foot to its top that meet at t = 0; each lasts a few cycles, the lower ones ring on."""
    quality = log_uniform(u[:, :1], 1.0, 4.0)
    tilt, ringing = uniform(u[:, 1:2], 0.0, 0.6), uniform(u[:, 2:3], 1.5, 4.0)
    out = torch.zeros(len(u), t.shape[-1], dtype=u.dtype)
    foot = 1.5 * band[0]
    for step in range(6):
        f = foot * (0.8 * band[1] / foot) ** (step / 5)
        tau = quality / (2 * math.pi * f)
        tau = torch.where(t > 0, ringing * tau, tau)
        out += (foot / f) ** tilt * torch.exp(-0.5 * (t / tau) ** 2) * torch.cos(2 * math.pi * (f * t + u[:, 3:4]))
    return out


def sine_gaussian(t: Tensor, u: Tensor, band: tuple[float, float]) -> Tensor:
    """sin(2 pi f t + phase) exp(-t^2 / 2 tau^2), tau = Q / (sqrt(2) pi f)."""
    f = log_uniform(u[:, :1], 1.5 * band[0], 0.8 * band[1])
    tau = log_uniform(u[:, 1:2], 3.0, 30.0) / (math.sqrt(2) * math.pi * f)
    return torch.sin(2 * math.pi * (f * t + u[:, 2:3])) * torch.exp(-0.5 * (t / tau) ** 2)


def hann(x: Tensor) -> Tensor:
    """cos^2 from 1 at x = 0 to 0 at |x| = 1, and 0 beyond."""
    return torch.where(x.abs() < 1, torch.cos(0.5 * math.pi * x) ** 2, 0.0)


def falling_chirps(
    signals: Float32[Tensor, "signals time"], merger: int, sample_rate: int, band: tuple[float, float], duration: float
) -> GlitchBank:
    """Whitened signals run backwards: of a signal's length and frequencies, but no signal.

    A network that was never shown one takes it for the signal that it mirrors. Their kind is `FALLING`.

    Args:
        signals: with their mergers at sample `merger`, which comes to stand in the middle of the rows.
        duration: s of the rows.
    """
    samples = round(duration * sample_rate)
    values = torch.zeros(len(signals), samples)
    backwards, peak = signals.flip(-1), signals.shape[-1] - 1 - merger
    first = samples // 2 - peak  # of the reversed signal's samples in the row
    begin, end = max(0, first), min(samples, first + signals.shape[-1])
    values[:, begin:end] = backwards[:, begin - first : end - first]
    return GlitchBank(unit_snr(values, sample_rate, band), torch.full((len(signals),), FALLING))


SHAPES = dict(zip(NEGATIVES, (blip, whistle, scattered_light, koi_fish, sine_gaussian)))


def make_glitch_bank(
    n: int,
    seed: int,
    sample_rate: int = 1024,
    band: tuple[float, float] = (20.0, 400.0),
    duration: float = 2.0,
    kinds: tuple[str, ...] = NEGATIVES,
    use: str = "train",
    chirps: Float32[Tensor, "signals time"] | None = None,
) -> GlitchBank:
    """n glitches, the kinds in turn.

    Args:
        n: glitches.
        seed, use: the same pair gives the same bank; another `use` (train, validation, test) another one.
        sample_rate: Hz.
        band: f_low, f_high in Hz, f_low <= f < f_high.
        duration: s of each row; longer than a window, so that a glitch may stand anywhere in it.
        kinds: of `GLITCHES`.
        chirps: whitened signals as long as the rows, taken in turn; needed for the kind `chirp`.

    Raises:
        SearchError: an unknown kind, `chirp` without signals of this length, a band beyond Nyquist.
    """
    samples = round(duration * sample_rate)
    unknown = [kind for kind in kinds if kind not in GLITCHES]
    if unknown or not kinds:
        raise SearchError(
            f"unknown kind of glitch {', '.join(unknown) or '(none given)'}: there are {', '.join(GLITCHES)}"
        )
    if "chirp" in kinds and (chirps is None or chirps.shape[-1] != samples or not len(chirps)):
        raise SearchError(f"the kind chirp needs whitened signals of {samples} samples: pass `chirps`")
    generator = stream(seed, f"glitches {use}")
    u = torch.rand(n, COLUMNS, generator=generator, dtype=torch.float64).float()
    t = (torch.arange(samples) - samples // 2) / sample_rate
    values = torch.empty(n, samples)
    for place, kind in enumerate(kinds):
        rows = torch.arange(n)[place :: len(kinds)]
        if kind == "chirp":
            assert chirps is not None
            values[rows] = unit_snr(chirps[torch.arange(len(rows)) % len(chirps)], sample_rate, band)
            continue
        for part in rows.split(CHUNK) if len(rows) else ():  # of fewer glitches than kinds, some have none
            values[part] = unit_snr(SHAPES[kind](t, u[part], band), sample_rate, band)
    kind_index = torch.tensor([GLITCHES.index(kind) for kind in kinds])
    return GlitchBank(values, kind_index[torch.arange(n) % len(kinds)])
