"""An event for a bare checkout: simulated noise with a signal like GW150914 in it. It stands in for nothing real."""

from __future__ import annotations

import numpy as np

from mma_realtime.data.challenge import coloured_noise
from mma_realtime.data.strain import SAMPLE_RATE, Strain
from mma_realtime.gw.inject import add_signal
from mma_realtime.gw.psd import design_curve
from mma_realtime.gw.units import GPS

DETECTORS = ("H1", "L1")
CURVE = "aLIGOLateLowSensitivityP1200087"
START, DURATION, SEED = 1_126_259_446, 32, 150_914
# Solar masses in the detectors' frame (36 and 29 at their source), Mpc: in this quieter noise as loud as GW150914 was,
# a network signal-to-noise ratio of 24, at twice its distance.
MASSES, DISTANCE = (38.9, 31.6), 880.0


def stand_in() -> tuple[Strain, GPS]:
    """32 s of H1 and L1 with one injection, and its time."""
    tc = START + 16.4
    curve = design_curve(CURVE)
    noise = np.stack(
        [coloured_noise(curve, DURATION, SAMPLE_RATE, np.random.default_rng([SEED, row])) for row in range(2)]
    )
    values = add_signal(
        noise, START, SAMPLE_RATE, DETECTORS, m1=MASSES[0], m2=MASSES[1], distance=DISTANCE, tc=tc, inclination=2.8,
        phase=0.3, ra=1.95, dec=-1.27, psi=0.8,
    )  # fmt: skip
    valid = np.ones((2, DURATION), dtype=bool)
    return Strain(DETECTORS, float(START), SAMPLE_RATE, values, valid, "simulated noise with one injection"), tc
