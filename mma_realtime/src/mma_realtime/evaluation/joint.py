"""E8: how much a gamma-ray burst says of a candidate like GW170817, by time alone and with the places.

A binary neutron star at GW170817's time and host in three detectors, and the burst as it was reported 1.7 s later. The
map is the localiser's, of simulated SNR series; orientation and noise are drawn.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mma_realtime.crossmatch.external import ExternalEvent
from mma_realtime.crossmatch.matcher import combined_map
from mma_realtime.crossmatch.pair import Candidate, compare
from mma_realtime.evaluation.skymaps import KEPT, Settings, filter_of, peaks_of, series
from mma_realtime.gw.detectors import DETECTORS, antenna_pattern, delay
from mma_realtime.gw.units import GPS
from mma_realtime.sky.localise import localise
from mma_realtime.sky.skymap import SkyMap
from mma_realtime.times import gmst

MERGER: GPS = 1187008882.43
HOST = (197.45, -23.38)  # deg
AFTER, STATISTICAL, SYSTEMATIC = 1.7, 11.6, 3.7  # s; deg, one sigma
BURST = ExternalEvent(
    "Fermi 170817", "Fermi", "GBM", "GRB", MERGER + AFTER, MERGER + 30, "initial", "test", None, 176.8, -39.8,
    math.hypot(STATISTICAL, SYSTEMATIC),
)  # fmt: skip
FARS = {"day": 1 / 86400, "month": 1 / (30 * 86400), "year": 1 / (365 * 86400), "millennium": 1e-3 / (365 * 86400)}
SYSTEM = Settings(masses=(1.4, 1.4))


def skymap_of(seed: int, network_snr: float) -> SkyMap:
    """The three-detector map of a binary neutron star in the host.

    Args:
        network_snr: sqrt(sum |z|^2) that the signal has on average; the distance is set to it.
    """
    rng = np.random.default_rng(seed)
    rate, angle = SYSTEM.sample_rate, float(gmst(MERGER))
    ra, dec = map(math.radians, HOST)
    u, psi, phi = rng.uniform(-1, 1), rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
    filters = {name: filter_of(SYSTEM, curve) for name, curve in SYSTEM.curves.items()}
    amplitude = {}
    for name, one in filters.items():
        plus, cross = (float(x) for x in antenna_pattern(DETECTORS[name], ra, dec, psi, angle))
        amplitude[name] = one.horizon * complex((1 + u**2) / 2 * plus, u * cross) * np.exp(1j * phi)
    distance = math.sqrt(sum(abs(a) ** 2 for a in amplitude.values())) / network_snr
    z = {
        name: series(one, amplitude[name] / distance, float(delay(DETECTORS[name], ra, dec, angle)), rate, rng)
        for name, one in filters.items()
    }
    peaks, kept = peaks_of(z, rate), round(KEPT * rate)
    middle = len(next(iter(z.values()))) // 2
    return localise(
        {name: z[name][at - kept : at + kept + 1] for name, at in peaks.items()}, rate,
        {name: MERGER + (at - middle) / rate for name, at in peaks.items()},
        {name: one.horizon for name, one in filters.items()}, gps=MERGER,
    )  # fmt: skip


def gw170817_like(seed: int = 0, network_snr: float = 12.0) -> dict[str, Any]:
    """The pair's joint false-alarm rates.

    Args:
        network_snr: of the signal; see `skymap_of`.

    Returns:
        `joint/overlap`: I of section 10; `joint/host_level`: credible level of the host in the map; `joint/area90`,
        `joint/combined_area90` (deg^2); for a candidate of one false alarm a day, month, year and millennium
        `joint/temporal_far/<name>` and `joint/spatiotemporal_far/<name>` (Hz); how many times smaller a rate becomes:
        `joint/gain` by the places, `joint/time_gain` by the time, `joint/whole_gain` by both.
    """
    skymap = skymap_of(seed, network_snr)
    combined = combined_map(skymap, BURST)
    assert combined is not None
    out = {
        "joint/host_level": float(skymap.credible_level(*map(math.radians, HOST))),
        "joint/area90": skymap.area(0.9),
        "joint/combined_area90": combined.area(0.9),
    }
    for name, far in FARS.items():
        found = compare(Candidate("S170817a", MERGER, far, skymap), BURST)
        assert found is not None
        assert found.temporal is not None
        assert found.spatiotemporal is not None
        assert found.overlap is not None
        out |= {
            f"joint/temporal_far/{name}": found.temporal,
            f"joint/spatiotemporal_far/{name}": found.spatiotemporal,
            "joint/overlap": found.overlap,
            "joint/gain": found.temporal / found.spatiotemporal,
            "joint/time_gain": far / found.temporal,
            "joint/whole_gain": far / found.spatiotemporal,
        }
    return out
