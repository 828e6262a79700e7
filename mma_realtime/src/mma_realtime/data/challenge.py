"""Sets like the first of the mock data challenge MLGWSC-1 (section 12): noise, with signals and without.

Gaussian noise coloured by a design curve; non-spinning binaries of black holes (IMRPhenomD from 20 Hz), isotropic in
sky and orientation, uniform in the volume of chirp distance D_c = D (M_c0 / M_c)^(5/6).

Nothing here is shared with the sets that networks are trained on but the waveform and the detectors: noise is coloured
over the whole stretch, signals arrive between samples in unwhitened strain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Complex128, Float64
from scipy.signal import oaconvolve
from torch import Tensor

from mma_realtime.data.mlgwsc import Injections, chirp_mass
from mma_realtime.data.strain import SAMPLE_RATE, Strain
from mma_realtime.errors import SearchError
from mma_realtime.gw.constants import F_REF, SCALE
from mma_realtime.gw.detectors import antenna_pattern, delay, detector
from mma_realtime.gw.psd import NoiseCurve, design_curve
from mma_realtime.gw.units import GPS, Hertz, Seconds
from mma_realtime.gw.waveforms import chirp_time, peak_time, phenomd, polarisations, to_time
from mma_realtime.times import gmst

DETECTORS = ("H1", "L1")
CURVE = "aLIGOZeroDetHighPower"
MASSES = (10.0, 50.0)  # solar masses
CHIRP_DISTANCES = (130.0, 350.0)  # Mpc
REFERENCE_CHIRP_MASS = 1.4 * 2**-0.2  # solar masses, M_c0: of two neutron stars
SPACING, JITTER, MARGIN = 24.0, 3.0, 30.0  # s: of mergers, about their places, before the first and after the last
KERNEL = 8.0  # s, of the filter that colours noise
FADE = (10.0, 14.0)  # Hz: noise begins here, the curves do
AFTER = 2.0  # s, of a signal's stretch after its merger
BATCH = 16  # signals at once


class Challenge(NamedTuple):
    """A set.

    Attributes:
        foreground: noise and signals.
        background: the same noise alone.
        injections: a column per quantity, in order of `tc`: the GPS time at which |h(t)| peaks at the Earth's centre.
    """

    foreground: Strain
    background: Strain
    injections: Injections


def generate(
    duration: int,
    seed: int,
    curve: str = CURVE,
    m_range: tuple[float, float] = MASSES,
    gps_start: int = 1_200_000_000,
    sample_rate: int = SAMPLE_RATE,
    progress: Callable[[int, int], None] | None = None,
) -> Challenge:
    """A set of its own for each seed.

    Args:
        duration: s.
        seed: of noise and injections.
        curve: of `gw.psd.DESIGN_CURVES`, for both detectors.
        m_range: of both masses, uniform (solar masses).
        gps_start: GPS s.
        sample_rate: Hz.
        progress: called with steps done and steps in all: one per detector's noise, one per injection.

    Raises:
        SearchError: too short for one injection, no such curve, masses that are none.
    """
    if not 0 < m_range[0] <= m_range[1]:
        raise SearchError(f"masses from {m_range[0]:g} to {m_range[1]:g}: give two positive masses, the lesser first")
    noise_curve = design_curve(curve)
    injections = draw_injections(duration, seed, m_range, gps_start)
    total = len(DETECTORS) + len(injections["tc"])
    background = np.empty((len(DETECTORS), duration * sample_rate))
    for row in range(len(DETECTORS)):
        background[row] = coloured_noise(noise_curve, duration, sample_rate, np.random.default_rng([seed, 1 + row]))
        if progress:
            progress(row + 1, total)
    foreground = background.copy()
    snr = np.empty((len(DETECTORS), len(injections["tc"])))
    for first in range(0, len(injections["tc"]), BATCH):
        part = {key: torch.from_numpy(column[first : first + BATCH]) for key, column in injections.items()}
        snr[:, first : first + BATCH] = inject(foreground, part, gps_start, sample_rate, noise_curve)
        if progress:
            progress(len(DETECTORS) + first + len(part["tc"]), total)
    for name, column in zip(DETECTORS, snr, strict=True):
        injections[f"optimal_snr_{name}"] = column
    valid = np.ones((len(DETECTORS), duration), dtype=bool)
    source = f"simulated, {curve}, seed {seed}"
    return Challenge(
        Strain(DETECTORS, float(gps_start), sample_rate, foreground, valid, f"{source}, with signals"),
        Strain(DETECTORS, float(gps_start), sample_rate, background, valid, source),
        injections,
    )


def draw_injections(duration: Seconds, seed: int, m_range: tuple[float, float], gps_start: GPS) -> Injections:
    """What is injected: one merger in 24 s +- 3 s, the challenge's columns.

    Raises:
        SearchError: too short for one injection.
    """
    places = np.arange(MARGIN + JITTER, duration - MARGIN - JITTER, SPACING)
    n = len(places)
    if not n:
        raise SearchError(f"{duration:g} s are too short for an injection: give more than {2 * (MARGIN + JITTER):g} s")
    rng = np.random.default_rng([seed, 0])
    masses = np.sort(rng.uniform(*m_range, size=(2, n)), axis=0)
    mchirp = chirp_mass(masses[1], masses[0])
    chirp_distance = np.cbrt(rng.uniform(CHIRP_DISTANCES[0] ** 3, CHIRP_DISTANCES[1] ** 3, n))
    return {
        "tc": gps_start + places + rng.uniform(-JITTER, JITTER, n),
        "mass1": masses[1],
        "mass2": masses[0],
        "mchirp": mchirp,
        "chirp_distance": chirp_distance,
        "distance": chirp_distance * (mchirp / REFERENCE_CHIRP_MASS) ** (5 / 6),
        "ra": rng.uniform(0, 2 * np.pi, n),
        "dec": np.arcsin(rng.uniform(-1, 1, n)),
        "polarization": rng.uniform(0, np.pi, n),
        "inclination": np.arccos(rng.uniform(-1, 1, n)),
        "coa_phase": rng.uniform(0, 2 * np.pi, n),
    }


def coloured_noise(
    curve: NoiseCurve, duration: int, sample_rate: int, rng: np.random.Generator
) -> Float64[np.ndarray, " time"]:
    """Gaussian noise (strain x 1e21): white noise through `noise_filter`.

    Args:
        curve: one-sided.
        duration: s.
        sample_rate: Hz.
        rng: of the white noise.
    """
    kernel = noise_filter(curve, sample_rate)
    return oaconvolve(rng.standard_normal(duration * sample_rate + len(kernel) - 1), kernel, mode="valid")


def noise_filter(curve: NoiseCurve, sample_rate: int) -> Float64[np.ndarray, " tap"]:
    """A zero-phase filter of 8 s with the curve's amplitude: white noise of unit variance becomes strain x 1e21."""
    taps = int(KERNEL * sample_rate)
    f = np.fft.rfftfreq(taps, 1 / sample_rate)
    known = (f >= FADE[0]) & (f <= float(curve.f[-1]))
    asd = np.zeros(len(f))
    asd[known] = curve.asd(torch.from_numpy(f[known])).numpy() * SCALE
    asd *= np.sin(np.pi / 2 * ((f - FADE[0]) / (FADE[1] - FADE[0])).clip(0, 1)) ** 2
    # White noise of unit variance has the one-sided density 2 / sample_rate.
    return np.fft.fftshift(np.fft.irfft(asd * np.sqrt(sample_rate / 2), taps)) * np.hanning(taps + 1)[:-1]


def inject(
    strain: Float64[np.ndarray, "detector time"],
    part: dict[str, Float64[Tensor, " n"]],
    gps_start: GPS,
    sample_rate: int,
    curve: NoiseCurve,
) -> Float64[np.ndarray, "detector n"]:
    """Add signals to strain x 1e21, in place; their optimal signal-to-noise ratios from 20 Hz."""
    m1, m2 = part["mass1"], part["mass2"]
    longest = 1.2 * float(chirp_time(m1, m2, F_REF).max()) + 2 * AFTER
    samples = 2 ** int(np.ceil(np.log2(longest * sample_rate)))
    f = torch.arange(samples // 2 + 1, dtype=torch.float64) * sample_rate / samples
    h = phenomd(m1, m2, f, part["distance"]) * SCALE
    plus, cross = polarisations(h, part["inclination"], part["coa_phase"])
    theta, since = gmst(part["tc"].numpy()), part["tc"] - gps_start
    first = torch.round((since + AFTER) * sample_rate).long() - samples
    out = np.empty((len(strain), len(m1)))
    for row, name in enumerate(DETECTORS):
        place = detector(name)
        f_plus, f_cross = antenna_pattern(place, part["ra"], part["dec"], part["polarization"], theta)
        at = f_plus[:, None] * plus + f_cross[:, None] * cross
        out[row] = _optimal_snr(at, f, curve)
        arrival = since + delay(place, part["ra"], part["dec"], theta) - peak_time(m1, m2)
        waves = to_time(at, sample_rate, arrival - first / sample_rate).numpy()
        for wave, begin in zip(waves, first.tolist(), strict=True):
            a, b = max(begin, 0), min(begin + samples, strain.shape[1])
            strain[row, a:b] += wave[a - begin : b - begin]
    return out


def _optimal_snr(
    h: Complex128[Tensor, "n freq"], f: Float64[Tensor, " freq"], curve: NoiseCurve, f_low: Hertz = F_REF
) -> Float64[np.ndarray, " n"]:
    """sqrt(<h|h>) (section 2) of strain x 1e21 per Hz."""
    known = (f >= f_low) & (f <= float(curve.f[-1]))
    density = (h[:, known].abs() / (SCALE * curve.asd(f[known]))).square()
    return (4 * float(f[1]) * density.sum(1)).sqrt().numpy()
