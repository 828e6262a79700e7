"""Signals in the detectors: antenna pattern, delay, and their addition to strain (section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Complex128, Float64
from torch import Tensor

from mma_realtime.gw import waveforms
from mma_realtime.gw.constants import F_REF, SCALE
from mma_realtime.gw.detectors import antenna_pattern, delay, detector, gmst
from mma_realtime.gw.units import GPS, Hertz, Megaparsec, Radian, Seconds, SolarMass
from mma_realtime.kernels.waveform import layout, waveform_fd

AFTER: Seconds = 0.5  # kept behind the merger: ring-down and delays
EARLIER = 0.8  # times f_low: where a signal is faded in from, so that it is whole at f_low


def project(
    hplus: Complex128[Tensor, "batch freq"],
    hcross: Complex128[Tensor, "batch freq"],
    f: Float64[Tensor, " freq"],
    detectors: Sequence[str],
    ra: float | Float64[Tensor, " batch"],
    dec: float | Float64[Tensor, " batch"],
    psi: float | Float64[Tensor, " batch"],
    gps: float | Float64[Tensor, " batch"],
) -> Complex128[Tensor, "batch detector freq"]:
    """h(f) in each detector: (F+ h+ + Fx hx) e^(-2 pi i f dt), dt the arrival after that at the Earth's centre.

    Args:
        hplus, hcross: any unit of strain.
        f: frequencies (Hz).
        detectors: their names.
        ra, dec, psi: right ascension, declination, polarisation angle (rad).
        gps: time of arrival at the Earth's centre (GPS s), for the Earth's rotation.

    Raises:
        SearchError: an unknown detector.
    """
    angle = gmst(torch.as_tensor(gps, dtype=torch.float64))
    out = []
    for det in map(detector, detectors):
        plus, cross = antenna_pattern(det, ra, dec, psi, angle)
        late = delay(det, ra, dec, angle)
        turn = torch.exp(-2j * torch.pi * f * late[..., None])
        out.append((plus[..., None] * hplus + cross[..., None] * hcross) * turn)
    return torch.stack(out, 1)


def signal(
    sample_rate: int,
    detectors: Sequence[str],
    gps_start: GPS,
    *,
    m1: SolarMass,
    m2: SolarMass,
    distance: Megaparsec,
    tc: GPS,
    inclination: Radian = 0.0,
    phase: Radian = 0.0,
    ra: Radian = 0.0,
    dec: Radian = 0.0,
    psi: Radian = 0.0,
    f_low: Hertz = F_REF,
) -> tuple[Float64[Tensor, "detector time"], int]:
    """A PhenomD signal in each detector (strain x 1e21), and the index of its first sample counted from `gps_start`.

    Arguments as for `add_signal`.
    """
    one, two = (torch.tensor([m], dtype=torch.float64) for m in (m1, m2))
    f_start = EARLIER * f_low
    before, whole = (float(waveforms.chirp_time(one, two, f)) + AFTER for f in (f_start, f_low))
    first = round((tc - before - gps_start) * sample_rate)
    kept = round((before + AFTER) * sample_rate)
    n = 1 << (kept + sample_rate - 1).bit_length()  # room for what rings around the end of the transform
    f = torch.arange(n // 2 + 1, dtype=torch.float64) * sample_rate / n

    table = waveforms.phenomd_coefficients(one, two, distance=distance, f_low=f_start)
    table[:, layout.TIME] = (tc - gps_start) - first / sample_rate - waveforms.peak_time(one, two)
    table[:, layout.AMPLITUDE] *= SCALE
    plus, cross = waveforms.polarisations(waveform_fd(table, f, dtype=torch.complex128), inclination, phase)
    h = project(plus, cross, f, detectors, ra, dec, psi, tc)[0]
    series = torch.fft.irfft(h, n)[:, :kept] * sample_rate

    t = torch.arange(kept, dtype=torch.float64) / sample_rate
    fade = (t / (before - whole)).clamp(0, 1) * ((before + AFTER - t) / (AFTER / 2)).clamp(0, 1)
    return series * (0.5 - 0.5 * (torch.pi * fade).cos()), first


def add_signal(
    values: npt.NDArray[np.float64],
    gps_start: GPS,
    sample_rate: int,
    detectors: Sequence[str],
    *,
    m1: SolarMass,
    m2: SolarMass,
    distance: Megaparsec,
    tc: GPS,
    inclination: Radian = 0.0,
    phase: Radian = 0.0,
    ra: Radian = 0.0,
    dec: Radian = 0.0,
    psi: Radian = 0.0,
    f_low: Hertz = F_REF,
) -> npt.NDArray[np.float64]:
    """Strain with a PhenomD signal added; a copy.

    Args:
        values: `[detector, time]`, strain x 1e21.
        gps_start: of the first sample.
        sample_rate: Hz.
        detectors: names of the rows.
        m1, m2: in the detectors' frame.
        tc: when the amplitude peaks at the Earth's centre. What lies outside of `values` is left out.
        f_low: the signal is whole from here on (Hz), and faded in from 0.8 times that.

    Raises:
        SearchError: an unknown detector, impossible masses.
    """
    series, first = signal(
        sample_rate,
        detectors,
        gps_start,
        m1=m1,
        m2=m2,
        distance=distance,
        tc=tc,
        inclination=inclination,
        phase=phase,
        ra=ra,
        dec=dec,
        psi=psi,
        f_low=f_low,
    )
    out = np.array(values, dtype=np.float64)
    start, stop = max(0, first), min(out.shape[1], first + series.shape[1])
    if start < stop:
        out[:, start:stop] += series[:, start - first : stop - first].numpy()
    return out
