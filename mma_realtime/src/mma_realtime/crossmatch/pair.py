"""A candidate beside one external event: do time and place fit, and how often would chance do as well?"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mma_realtime.crossmatch.external import ExternalEvent, spot
from mma_realtime.crossmatch.joint import (
    GRB,
    NEUTRINO,
    OPTICAL,
    RATE_GRB,
    RATE_SUBTHRESHOLD_GRB,
    SUBTHRESHOLD_GRB,
    TARGETED,
    Window,
    overlap,
    point_overlap,
    spatial_far,
    targeted_far,
    temporal_far,
)
from mma_realtime.errors import CrossMatchError, SkyMapError
from mma_realtime.gw.units import GPS, Hertz, Seconds
from mma_realtime.sky.skymap import SkyMap

Method = Literal["rate", "targeted", "position"]
POINT = 0.01  # deg: an error smaller than this is that of a point
VAGUE = 60.0  # deg: an error larger than this says nothing of the place
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """Args:
    id: of the superevent. gps: of the event (GPS s). far: Hz, an upper bound is one too. sky_map: None: not yet there.
    """

    id: str
    gps: GPS
    far: Hertz
    sky_map: SkyMap | None = None


@dataclass(frozen=True)
class Joint:
    """Joint false-alarm rates (Hz) of a pair.

    Args:
        time_difference: s, gravitational wave minus external event.
        method: `rate`: of external events of a known rate; `targeted`: of two searches below threshold; `position`:
            by place alone, without a rate.
        temporal: by time alone; None: the external event has no rate.
        spatiotemporal: with the places; None: one has no place, or there is no rate.
        overlap: I of section 10; above 1 the places speak for a common source. None: one has no place.
    """

    time_difference: Seconds
    method: Method
    temporal: Hertz | None
    spatiotemporal: Hertz | None
    overlap: float | None

    @property
    def best(self) -> Hertz | None:
        """The rate that says most."""
        return self.temporal if self.spatiotemporal is None else self.spatiotemporal

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def window_of(event: ExternalEvent) -> Window:
    """Where in time an external event belongs to a gravitational wave."""
    if event.kind == "GRB":
        return SUBTHRESHOLD_GRB if event.subthreshold else GRB
    return NEUTRINO if event.kind == "neutrino" else OPTICAL


def compare(candidate: Candidate, event: ExternalEvent) -> Joint | None:
    """What the two have in common; None: outside the window, above a threshold of a targeted search, or a retraction.

    A place that cannot be used is none, and is logged: the times are compared all the same.

    Raises:
        CrossMatchError: a rate that is none.
    """
    window = window_of(event)
    if event.alert_type == "retraction" or not window.holds(candidate.gps, event.gps):
        return None
    method, temporal = _temporal(candidate, event, window)
    if method == "targeted" and temporal is None:
        return None
    try:
        places = _overlap(candidate.sky_map, event)
    except (CrossMatchError, SkyMapError) as error:
        log.warning("%s and %s are compared by time alone: %s", candidate.id, event.id, error)
        places = None
    joint = None if temporal is None or places is None else spatial_far(temporal, places)
    return Joint(candidate.gps - event.gps, method, temporal, joint, places)


def _temporal(candidate: Candidate, event: ExternalEvent, window: Window) -> tuple[Method, Hertz | None]:
    if event.kind == "GRB":
        if event.subthreshold and event.far is not None and event.mission in TARGETED:
            return "targeted", targeted_far(window, event.far, candidate.far, TARGETED[event.mission])
        return "rate", temporal_far(window, RATE_SUBTHRESHOLD_GRB if event.subthreshold else RATE_GRB, candidate.far)
    if event.kind == "neutrino" and event.far is not None:
        return "rate", temporal_far(window, event.far, candidate.far)
    return "position", None


def _overlap(sky_map: SkyMap | None, event: ExternalEvent) -> float | None:
    if sky_map is None:
        return None
    if event.sky_map is not None:
        from mma_realtime.sky.fits import read_fits

        return overlap(sky_map, read_fits(event.sky_map))
    if event.ra is None or event.dec is None or event.sigma is None:
        return None
    if event.sigma < POINT:
        return point_overlap(float(sky_map.density_at(math.radians(event.ra), math.radians(event.dec))))
    if event.sigma > VAGUE:
        raise CrossMatchError(f"{event.id}: an error of {event.sigma:.3g} deg says nothing of the place")
    return overlap(sky_map, spot(event.ra, event.dec, event.sigma))
