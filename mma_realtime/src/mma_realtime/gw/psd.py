"""Noise curves (section 2.2): six design curves, measured ones where the data are, and what training draws.

Densities here are one-sided and of unscaled strain: amplitude in Hz^-1/2, power in Hz^-1.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mma_realtime.errors import SearchError
from mma_realtime.gw.units import Hertz

DESIGN_CURVES: tuple[str, ...] = (
    "aLIGODesignSensitivityP1200087",
    "AdVDesignSensitivityP1200087",
    "aLIGOLateLowSensitivityP1200087",
    "aLIGOZeroDetHighPower",
    "AdvVirgo",
    "KAGRA",
)
MEASURED = Path("gwosc") / "psds_o3a.npz"  # under the data root: 20 curves of H1, then 20 of L1
LARGEST_FACTOR = 2.0  # by which a perturbed curve's amplitude differs at most


@dataclass(frozen=True, eq=False)
class NoiseCurve:
    """A one-sided amplitude spectral density, interpolated on logarithms of both.

    Attributes:
        name: of the curve.
        f: frequencies (Hz), increasing.
        log10asd: log10 of the amplitude spectral density (strain Hz^-1/2).
        measured: on a real detector; measured curves are drawn as they are, others perturbed.
    """

    name: str
    f: Float64[Tensor, " n"]
    log10asd: Float64[Tensor, " n"]
    measured: bool = False

    def asd(self, f: float | Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        """Amplitude spectral density (strain Hz^-1/2) at frequencies `f` (Hz).

        Raises:
            SearchError: a frequency lies outside the table.
        """
        f = torch.as_tensor(f, dtype=torch.float64)
        if f.numel() == 0:
            return torch.empty_like(f)
        low, high = float(f.min()), float(f.max())
        if not (low >= float(self.f[0]) and high <= float(self.f[-1])):
            raise SearchError(
                f"noise curve {self.name} covers {float(self.f[0]):g} to {float(self.f[-1]):g} Hz, "
                f"asked for {low:g} to {high:g} Hz: choose a band inside the curve"
            )
        values = np.interp(np.log(f.numpy()), np.log(self.f.numpy()), self.log10asd.numpy())
        return torch.as_tensor(10.0**values)

    def psd(self, f: float | Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
        """Power spectral density (Hz^-1) at frequencies `f` (Hz); `SearchError` outside the table."""
        return self.asd(f).square()

    def asd_in_band(self, f: Float64[Tensor, " n"], f_low: Hertz, f_high: Hertz) -> Float64[Tensor, " n"]:
        """As `asd` where f_low <= f < f_high, infinite elsewhere: what is divided by it vanishes outside the band.

        Args:
            f: frequencies (Hz), such as those of an FFT from 0 on.
        """
        f = torch.as_tensor(f, dtype=torch.float64)
        inside = (f >= f_low) & (f < f_high)
        out = torch.full_like(f, torch.inf)
        out[inside] = self.asd(f[inside])
        return out


def design_curve(name: str) -> NoiseCurve:
    """A design curve of `DESIGN_CURVES`, 10 to 2048 Hz.

    Raises:
        SearchError: there is none of that name.
    """
    if name not in DESIGN_CURVES:
        raise SearchError(f"unknown noise curve {name!r}: known are {', '.join(DESIGN_CURVES)}")
    with files(__package__).joinpath("psds.npz").open("rb") as file, np.load(file) as table:
        f, log10asd = table["f"], table[f"log10asd_{name}"]
    return NoiseCurve(name, torch.as_tensor(f).double(), torch.as_tensor(log10asd).double())


def measured_curves(root: Path | None) -> list[NoiseCurve]:
    """The 40 curves measured in the run O3a (20 of H1, then 20 of L1; 10 to 1024 Hz), or none where there is no file.

    Args:
        root: the data root; None has none.

    Raises:
        SearchError: the file is there and cannot be read.
    """
    path = root / MEASURED if root else None
    if path is None or not path.exists():
        return []
    try:
        with np.load(path, allow_pickle=False) as table:
            f, log10asd = torch.as_tensor(table["f"]).double(), torch.as_tensor(table["log10asd"]).double()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SearchError(f"cannot read the noise curves of {path} ({error}): fetch the file again") from None
    half = len(log10asd) // 2
    return [
        NoiseCurve(f"{'H1' if i < half else 'L1'} O3a {i % half}", f, values, measured=True)
        for i, values in enumerate(log10asd)
    ]


def perturbed(curve: NoiseCurve, generator: torch.Generator) -> NoiseCurve:
    """The curve with a random tilt and four smooth bumps, up to a factor of 2 in amplitude (section 2.2)."""
    octaves = (curve.f / curve.f[0]).log2()
    draw = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    tilt, largest = (torch.rand(2, generator=generator, dtype=torch.float64) * 2 - 1).tolist()
    centre, width, height = draw[:, :1] * octaves[-1], 0.3 + 0.7 * draw[:, 1:2], 2 * draw[:, 2:] - 1
    bumps = (height * (-0.5 * ((octaves - centre) / width).square()).exp()).sum(0)
    shape = bumps + tilt * (octaves / octaves[-1] - 0.5)
    change = shape / shape.abs().max() * largest * math.log10(LARGEST_FACTOR)
    return NoiseCurve(f"{curve.name}, perturbed", curve.f, curve.log10asd + change)


def draw_curve(curves: Sequence[NoiseCurve], generator: torch.Generator) -> NoiseCurve:
    """One of `curves`: a measured one as it is, another one perturbed."""
    curve = curves[int(torch.randint(len(curves), (1,), generator=generator))]
    return curve if curve.measured else perturbed(curve, generator)
