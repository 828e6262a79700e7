"""E7: do sky maps hold what they promise, how large are they, and how long does one take?

Signals of one binary in three detectors, drawn from the localiser's own prior: isotropic, uniform in volume, any
orientation. Their SNR series are the template's response where each detector hears it, and noise with the covariance
that filtered noise has: stationary, with the spectrum |h|^2 / S. What is found is kept: a network SNR of 12 and more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex128, Float64

from mma_realtime.errors import SearchError
from mma_realtime.gw.constants import C_M_S
from mma_realtime.gw.detectors import DETECTORS, antenna_pattern, delay
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.units import GPS, Hertz, Megaparsec
from mma_realtime.gw.waveforms import phenomd
from mma_realtime.sky.localise import FARTHEST, localise
from mma_realtime.times import gmst

GPS_FROM, GPS_RANGE = 1_240_000_000.0, 86_400.0 * 365  # sidereal angles of a year
KEPT = 0.05  # s of series on either side of each peak
SPAN = 0.5  # s of noise that is made


CURVES = {
    "H1": "aLIGODesignSensitivityP1200087",
    "L1": "aLIGODesignSensitivityP1200087",
    "V1": "AdVDesignSensitivityP1200087",
}
MOST_DRAWS = 2000  # of signals per injection that is kept


@dataclass
class Settings:
    """Args:
    injections: that are localised.
    masses: of the binary (solar masses). curves: of the noise, by detector. band: Hz. sample_rate: of the series (Hz).
    network_snr: least sqrt(sum |z|^2) of what is kept; detector_snr: least |z| in each detector.
    """

    injections: int = 100
    masses: tuple[float, float] = (30.0, 25.0)
    curves: dict[str, str] = field(default_factory=lambda: dict(CURVES))
    band: tuple[float, float] = (20.0, 1000.0)
    sample_rate: float = 8192.0
    network_snr: float = 12.0
    detector_snr: float = 4.0


@dataclass(frozen=True, eq=False)
class Filter:
    """One detector's template as filtering sees it.

    Attributes:
        power: |h(f)|^2 / S(f) at the frequencies of an FFT of the series, over its sum.
        horizon: distance at which its SNR is 1, optimally oriented (Mpc).
    """

    power: Float64[np.ndarray, " sample"]
    horizon: Megaparsec


@dataclass(frozen=True, eq=False)
class Injection:
    """What a search would hand on of one signal, and where the signal was."""

    snr: dict[str, Complex128[np.ndarray, " sample"]]
    toa: dict[str, GPS]
    place: tuple[float, float]
    distance: Megaparsec
    network_snr: float


def filter_of(settings: Settings, curve: str) -> Filter:
    """The binary's template in the noise of a curve."""
    n = round(SPAN * settings.sample_rate)
    f = np.fft.fftfreq(n, 1 / settings.sample_rate)
    inside = (f >= settings.band[0]) & (f < settings.band[1])
    grid = torch.from_numpy(f[inside])
    m1, m2 = (torch.tensor([m], dtype=torch.float64) for m in settings.masses)
    h = phenomd(m1, m2, grid, 1.0, f_low=settings.band[0])[0].abs()
    power = np.zeros(n)
    power[inside] = (h / design_curve(curve).asd(grid)).square().numpy()
    sigma = math.sqrt(4 * power.sum() * settings.sample_rate / n)
    return Filter(power / power.sum(), sigma)


def series(
    one: Filter, amplitude: complex, late: float, rate: Hertz, rng: np.random.Generator
) -> Complex128[np.ndarray, " sample"]:
    """SNR series of a signal `late` s after the middle of the span, in noise of its own: |z|^2 of noise has mean 2."""
    n = len(one.power)
    f = np.fft.fftfreq(n, 1 / rate)
    noise = rng.standard_normal((2, n)).T @ np.array([1, 1j]) * np.sqrt(one.power)
    signal = amplitude * one.power * np.exp(-2j * np.pi * f * (n // 2 / rate + late))
    return np.fft.ifft(signal + noise, norm="forward")


def draw(settings: Settings, filters: dict[str, Filter], rng: np.random.Generator) -> Injection | None:
    """A signal of the prior; None where it is not found."""
    rate = settings.sample_rate
    gps = GPS_FROM + rng.uniform(0, GPS_RANGE)
    ra, dec = rng.uniform(0, 2 * math.pi), math.asin(rng.uniform(-1, 1))
    u, psi, phi = rng.uniform(-1, 1), rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
    farthest = FARTHEST * max(one.horizon for one in filters.values())
    distance = farthest * rng.uniform() ** (1 / 3)
    angle = float(gmst(gps))
    found: dict[str, tuple[complex, float]] = {}
    for name, one in filters.items():
        plus, cross = (float(x) for x in antenna_pattern(DETECTORS[name], ra, dec, psi, angle))
        amplitude = one.horizon / distance * complex((1 + u**2) / 2 * plus, u * cross) * np.exp(1j * phi)
        found[name] = amplitude, float(delay(DETECTORS[name], ra, dec, angle))
    if sum(abs(a) ** 2 for a, _ in found.values()) < (settings.network_snr - 5) ** 2:
        return None  # noise does not lift it so far
    z = {name: series(filters[name], *found[name], rate, rng) for name in filters}
    peaks = peaks_of(z, rate)
    middle, kept = len(next(iter(z.values()))) // 2, round(KEPT * rate)
    size = np.array([abs(z[name][peaks[name]]) for name in z])
    network = float(np.sqrt((size**2).sum()))
    if network < settings.network_snr or size.min() < settings.detector_snr:
        return None
    return Injection(
        {name: z[name][peaks[name] - kept : peaks[name] + kept + 1] for name in z},
        {name: gps + (peaks[name] - middle) / rate for name in z},
        (ra, dec), distance, network,
    )  # fmt: skip


def peaks_of(z: dict[str, Complex128[np.ndarray, " sample"]], rate: Hertz) -> dict[str, int]:
    """Sample of each detector's peak: the loudest of all, and the others' within the light's way of it.

    Args:
        z: series of one span. rate: Hz.
    """
    best = max(z, key=lambda name: np.abs(z[name]).max())
    first = int(np.abs(z[best]).argmax())
    peaks = {}
    for name in z:
        way = (DETECTORS[best].location_m - DETECTORS[name].location_m).norm() / C_M_S
        reach = math.ceil((float(way) + 1e-3) * rate)
        peaks[name] = first - reach + int(np.abs(z[name][first - reach : first + reach + 1]).argmax())
    return peaks


def measure(
    settings: Settings, seed: int = 0, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Localise injections.

    Returns:
        `skymaps/contained50`, `/contained90`: share of the injections in these regions; `/ks`: largest distance of the
        levels' distribution from uniform; `/area50`, `/area90`, `/searched_area` (deg^2) and `/network_snr`: medians;
        `/distance_pull_rms`: of (distance - mean) / std; `/seconds`, `/seconds_max`: a map, by the clock;
        `/cpu_seconds`, `/cpu_seconds_max`: by this process's own CPU time, as the clock is also of what runs beside it;
        curves `skymaps/levels` and `skymaps/areas90`.

    Raises:
        SearchError: the settings find nothing.
    """
    rng = np.random.default_rng(seed)
    filters = {name: filter_of(settings, curve) for name, curve in settings.curves.items()}
    levels: list[float] = []
    areas: list[tuple[float, float]] = []
    searched, snrs, pulls, seconds, cpu = (list[float]() for _ in range(5))
    for _ in range(MOST_DRAWS * settings.injections):
        if len(levels) == settings.injections:
            break
        one = draw(settings, filters, rng)
        if one is None:
            continue
        begin, cpu_begin = time.perf_counter(), time.process_time()
        horizons = {name: f.horizon for name, f in filters.items()}
        skymap = localise(one.snr, settings.sample_rate, one.toa, horizons)
        seconds.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - cpu_begin)
        levels.append(float(skymap.credible_level(*one.place)))
        areas.append((skymap.area(0.5), skymap.area(0.9)))
        searched.append(float(skymap.searched_area(*one.place)))
        snrs.append(one.network_snr)
        mean, std = skymap.distance_mean_std
        pulls.append((one.distance - mean) / std)
        progress(len(levels), settings.injections)
    if len(levels) < settings.injections:
        raise SearchError(
            f"{len(levels)} of {settings.injections} injections found: lower the least signal-to-noise ratio"
        )
    p = np.sort(levels)
    steps = np.arange(len(p) + 1) / len(p)
    area50, area90 = np.median(areas, axis=0)
    return {
        "skymaps/contained50": float((p <= 0.5).mean()),
        "skymaps/contained90": float((p <= 0.9).mean()),
        "skymaps/ks": float(max((steps[1:] - p).max(), (p - steps[:-1]).max())),
        "skymaps/area50": float(area50),
        "skymaps/area90": float(area90),
        "skymaps/searched_area": float(np.median(searched)),
        "skymaps/network_snr": float(np.median(snrs)),
        "skymaps/distance_pull_rms": float(np.sqrt(np.mean(np.square(pulls)))),
        "skymaps/seconds": float(np.median(seconds)),
        "skymaps/seconds_max": float(max(seconds)),
        "skymaps/cpu_seconds": float(np.median(cpu)),
        "skymaps/cpu_seconds_max": float(max(cpu)),
        "curve/skymaps/levels": p.tolist(),
        "curve/skymaps/areas90": [float(a) for _, a in areas],
    }
