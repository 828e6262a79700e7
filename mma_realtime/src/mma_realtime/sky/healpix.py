"""HEALPix by astropy-healpix: directions in radians, pixels as 64-bit integers, nested unless it says ring."""

from __future__ import annotations

import astropy_healpix.core as core
import numpy as np
import numpy.typing as npt
from astropy import units
from jaxtyping import Float64, Int64

from mma_realtime.sky.moc import DEEPEST, Integers, level_ipix

Angle = float | npt.NDArray[np.float64]
ORDERS = ("nested", "ring")


def pixel_at(nside: int, lon: Angle, lat: Angle, order: str = "nested") -> Int64[np.ndarray, "*batch"]:
    """The pixel that holds a direction.

    Args:
        lon, lat: right ascension and declination (rad).
        order: `nested` or `ring`.
    """
    found = core.lonlat_to_healpix(np.asarray(lon) * units.rad, np.asarray(lat) * units.rad, nside, order=order)
    return np.asarray(found, dtype=np.int64)


def deepest_at(lon: Angle, lat: Angle) -> Int64[np.ndarray, "*batch"]:
    """The pixel of the deepest level that holds a direction: what `moc.ranges` are compared with."""
    return pixel_at(2**DEEPEST, lon, lat)


def centre(
    nside: Integers, ipix: Integers, order: str = "nested"
) -> tuple[Float64[np.ndarray, "*batch"], Float64[np.ndarray, "*batch"]]:
    """Longitude in [0, 2 pi) and latitude of pixels' centres (rad)."""
    lon, lat = core.healpix_to_lonlat(ipix, nside, order=order)
    return np.asarray(lon.to_value(units.rad)), np.asarray(lat.to_value(units.rad))


def centre_of_uniq(uniq: Int64[np.ndarray, " n"]) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Longitude and latitude of the centres of pixels of any level (rad)."""
    level, ipix = level_ipix(uniq)
    return centre(np.int64(1) << level, ipix)


def neighbours(nside: int, ipix: Integers) -> Int64[np.ndarray, 8 * batch]:
    """The eight pixels around each nested pixel: SW, W, NW, N, NE, E, SE, S; -1 where there is none."""
    with np.errstate(invalid="ignore"):  # raised where there is no neighbour
        return np.asarray(core.neighbours(ipix, nside, order="nested"), dtype=np.int64)


def ring_of(nside: int, nested: Integers) -> Int64[np.ndarray, "*batch"]:
    """Ring index of nested pixels."""
    return np.asarray(core.nested_to_ring(nested, nside), dtype=np.int64)


def nested_of(nside: int, ring: Integers) -> Int64[np.ndarray, "*batch"]:
    """Nested index of ring pixels."""
    return np.asarray(core.ring_to_nested(ring, nside), dtype=np.int64)
