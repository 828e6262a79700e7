"""What an alert says of a sky map: its file, its densest place, and a circle of the same area."""

from __future__ import annotations

import math

from mma_realtime.alerts.notice import CONTAINMENT
from mma_realtime.alerts.superevent import Localisation
from mma_realtime.sky.fits import to_bytes
from mma_realtime.sky.skymap import SQUARE_DEGREE, SkyMap


def localisation_of(skymap: SkyMap) -> Localisation:
    """The map as a multi-order file; ra, dec of its densest pixel; the radius of a cap as large as its 90 % region; the
    masses of its template, where it names them.
    """
    ra, dec = skymap.peak
    share = skymap.area(CONTAINMENT) * SQUARE_DEGREE / (4 * math.pi)  # of the sphere; a cap has (1 - cos r) / 2
    radius = math.acos(max(-1.0, 1 - 2 * share))
    masses = skymap.meta.get("masses")
    return Localisation(
        to_bytes(skymap), math.degrees(ra) % 360, math.degrees(dec), math.degrees(radius), masses and tuple(masses)
    )
