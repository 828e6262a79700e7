"""Time scales: GPS seconds, UTC and Greenwich sidereal time (section 2.1), by astropy and without the network.

Every import of astropy's times goes through here: the Earth-rotation tables that astropy would fetch are switched off.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from astropy.time import Time
from astropy.utils import iers
from jaxtyping import Float64
from torch import Tensor

iers.conf.auto_download = False
iers.conf.auto_max_age = None  # leap seconds are announced half a year ahead: an old list is no reason to warn


def utc_iso(gps: float) -> str:
    """ISO 8601 in UTC with milliseconds, `2015-09-14T09:50:45.400Z`.

    Args:
        gps: GPS seconds.
    """
    return f"{Time(gps, format='gps').utc.isot}Z"


def gps_from_utc(iso: str) -> float:
    """GPS seconds of an ISO 8601 time in UTC, with or without the `Z`."""
    return float(Time(iso.removesuffix("Z"), format="isot", scale="utc").gps)


def gmst(gps: float | npt.NDArray[np.float64] | Float64[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
    """Greenwich mean sidereal angle (rad, in [0, 2 pi)), IAU 1982, with UT1 taken equal to UTC (section 2.1).

    Args:
        gps: GPS seconds, any shape.
    """
    time = Time(np.asarray(gps, dtype=np.float64), format="gps").utc
    time.delta_ut1_utc = 0.0
    angle = time.sidereal_time("mean", "greenwich", model="IAU1982").rad
    return torch.as_tensor(np.asarray(angle, dtype=np.float64) % (2 * np.pi))
