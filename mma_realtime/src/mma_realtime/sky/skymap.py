"""A multi-order sky map: where on the sky a source is, as a density, and how far away (section 8).

Densities are per steradian, never per pixel (trap 13): sum of PROBDENSITY * 4 pi / (12 * 4^level) is 1. Distances per
pixel follow the field's ansatz p(r) = DISTNORM r^2 exp(-(r - DISTMU)^2 / (2 DISTSIGMA^2)) / (sqrt(2 pi) DISTSIGMA).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mma_realtime.errors import SkyMapError
from mma_realtime.sky import healpix, moc
from mma_realtime.sky.distance import moments
from mma_realtime.sky.healpix import Angle

SQUARE_DEGREE = math.radians(1) ** 2  # sr
TOLERANCE = 1e-3  # of the whole probability: maps in single precision are off by less
DISTANCES = ("distmu", "distsigma", "distnorm")


@dataclass(frozen=True, eq=False)
class SkyMap:
    """A partition of the sphere into pixels of any size, kept in nested order whatever the order they are given in.

    Attributes:
        uniq: the pixels.
        probdensity: sr^-1.
        distmu, distsigma: of the distance's ansatz (Mpc); infinite DISTMU where a pixel says nothing of the distance.
        distnorm: its norm (Mpc^-2).
        meta: `gps` (s), `instruments` (list), `object`, `creator`, `origin` where they are known.

    Raises:
        SkyMapError: pixels that overlap or leave gaps, densities that are no numbers or do not add up to 1, or columns
            of different lengths.
    """

    uniq: Int64[np.ndarray, " n"]
    probdensity: Float64[np.ndarray, " n"]
    distmu: Float64[np.ndarray, " n"] | None = None
    distsigma: Float64[np.ndarray, " n"] | None = None
    distnorm: Float64[np.ndarray, " n"] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first, end = moc.ranges(self.uniq)
        order = np.argsort(first)
        first, end = first[order], end[order]
        if len(first) == 0 or first[0] != 0 or end[-1] != moc.N_DEEPEST or (first[1:] != end[:-1]).any():
            raise SkyMapError(
                "the map's pixels overlap or do not cover the sphere: its UNIQ column is wrong or cut off"
            )
        given = [getattr(self, name) is not None for name in DISTANCES]
        if any(given) and not all(given):
            raise SkyMapError("a map has DISTMU, DISTSIGMA and DISTNORM, or none of them")
        for name in ("probdensity", *(DISTANCES if all(given) else ())):
            column = np.asarray(getattr(self, name), dtype=np.float64)
            if column.shape != self.uniq.shape:
                raise SkyMapError(f"{len(self.uniq)} pixels, but {name.upper()} has shape {column.shape}")
            object.__setattr__(self, name, column[order])
        object.__setattr__(self, "uniq", np.asarray(self.uniq, dtype=np.int64)[order])
        if not (np.isfinite(self.probdensity).all() and (self.probdensity >= 0).all()):
            raise SkyMapError("the map has densities that are no numbers or below zero")
        total = float(self.prob.sum())
        if abs(total - 1) > TOLERANCE:
            raise SkyMapError(
                f"the map adds up to {total:.6g}, not to 1: are its values probabilities instead of densities per "
                "steradian?"
            )

    @classmethod
    def isotropic(cls, meta: dict[str, Any] | None = None) -> SkyMap:
        """The map that says nothing: 1/(4 pi) everywhere."""
        return cls(moc.whole_sphere(0), np.full(12, 1 / (4 * math.pi)), meta=meta or {})

    @classmethod
    def from_flat(
        cls, values: Float64[np.ndarray, " n"], order: str = "nested", meta: dict[str, Any] | None = None
    ) -> SkyMap:
        """A map of equal pixels, from probabilities or densities: scaled to add up to 1.

        Args:
            values: one per pixel, 12 * 4^level of them.
            order: `nested` or `ring`.

        Raises:
            SkyMapError: another number of pixels, an unknown order, or values that add up to nothing.
        """
        level = level_of(len(values))
        if order not in healpix.ORDERS:
            raise SkyMapError(f"pixels are in {' or '.join(healpix.ORDERS)} order, not {order!r}")
        values = np.asarray(values, dtype=np.float64)
        if order == "ring":
            values = values[healpix.ring_of(2**level, np.arange(len(values)))]
        total = values.sum()
        if not (math.isfinite(total) and total > 0):
            raise SkyMapError(f"the map's values add up to {total}: they are no probabilities")
        return cls(moc.whole_sphere(level), values / total * len(values) / (4 * math.pi), meta=meta or {})

    @cached_property
    def prob(self) -> Float64[np.ndarray, " n"]:
        """Probability of each pixel."""
        return self.probdensity * self.pixel_area

    @cached_property
    def pixel_area(self) -> Float64[np.ndarray, " n"]:
        """Of each pixel (sr)."""
        return moc.pixel_area(self.uniq)

    @cached_property
    def _first(self) -> Int64[np.ndarray, " n"]:
        return moc.ranges(self.uniq)[0]

    @cached_property
    def _descending(self) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
        """The densities that occur, the lowest first, with the probability and the area of all that is denser."""
        density, group = np.unique(self.probdensity, return_inverse=True)
        prob, area = (np.bincount(group, weights) for weights in (self.prob, self.pixel_area))
        above_prob, above_area = (np.append(np.cumsum(x[::-1])[::-1], 0.0) for x in (prob, area))
        return density, above_prob, above_area

    def row_at(self, ra: Angle, dec: Angle) -> Int64[np.ndarray, "*batch"]:
        """Row of the pixel that holds a direction.

        Args:
            ra, dec: rad.
        """
        return np.asarray(np.searchsorted(self._first, healpix.deepest_at(ra, dec), side="right") - 1)

    def density_at(self, ra: Angle, dec: Angle) -> Float64[np.ndarray, "*batch"]:
        """Density (sr^-1) at directions (rad)."""
        return self.probdensity[self.row_at(ra, dec)]

    def area(self, level: float) -> float:
        """Area of the smallest region that holds the source with probability `level` (deg^2)."""
        if not 0 < level <= 1:
            raise SkyMapError(f"a credible level lies above 0 and up to 1, not at {level}: 0.9 is 90 %")
        _, prob, area = self._descending
        return float(np.interp(level * prob[0], prob[::-1], area[::-1])) / SQUARE_DEGREE

    def _mid(self, above: Float64[np.ndarray, " m"], ra: Angle, dec: Angle) -> Float64[np.ndarray, "*batch"]:
        group = np.searchsorted(self._descending[0], self.density_at(ra, dec))
        return (above[group] + above[group + 1]) / 2

    def credible_level(self, ra: Angle, dec: Angle) -> Float64[np.ndarray, "*batch"]:
        """Probability of the smallest region that reaches a direction (rad).

        That is what is denser, and half of what is equally dense: within its pixel nothing says where the source lies.
        """
        return self._mid(self._descending[1], ra, dec)

    def searched_area(self, ra: Angle, dec: Angle) -> Float64[np.ndarray, "*batch"]:
        """Area (deg^2) that is searched from the densest pixel down before a direction (rad) is reached."""
        return self._mid(self._descending[2], ra, dec) / SQUARE_DEGREE

    def pixel_levels(self) -> Float64[np.ndarray, " n"]:
        """Credible level of each pixel, as `credible_level` of its centre: pixels up to 0.9 are the 90 % region."""
        density, prob, _ = self._descending
        group = np.searchsorted(density, self.probdensity)
        return (prob[group] + prob[group + 1]) / 2

    @cached_property
    def peak(self) -> tuple[float, float]:
        """Right ascension and declination (rad) of the densest pixel's centre."""
        ra, dec = healpix.centre_of_uniq(self.uniq[[int(self.probdensity.argmax())]])
        return float(ra[0]), float(dec[0])

    @cached_property
    def distance_mean_std(self) -> tuple[float, float]:
        """Of the distance over the whole sky (Mpc).

        Raises:
            SkyMapError: the map has no distances.
        """
        if self.distmu is None or self.distsigma is None:
            raise SkyMapError("the map has no distances (DISTMU, DISTSIGMA, DISTNORM)")
        known = np.isfinite(self.distmu) & (self.prob > 0)
        if not known.any():
            raise SkyMapError("the map says nothing of the distance in any pixel")
        weight = self.prob[known] / self.prob[known].sum()
        mean, std = moments(self.distmu[known], self.distsigma[known])
        overall = float(weight @ mean)
        return overall, math.sqrt(float(weight @ (std**2 + (mean - overall) ** 2)))

    def rasterise(self, nside: int, order: str = "nested") -> Float64[np.ndarray, " n"]:
        """Probability of each pixel of one size; they add up to 1.

        Args:
            nside: a power of 2.
            order: `nested` or `ring`.
        """
        level = level_of(12 * nside**2)
        if order not in healpix.ORDERS:
            raise SkyMapError(f"pixels are in {' or '.join(healpix.ORDERS)} order, not {order!r}")
        fine = self.refined(moc.whole_sphere(level))
        fine_level, ipix = moc.level_ipix(fine.uniq)
        flat = np.bincount(ipix >> (2 * (fine_level - level)), fine.prob, 12 * nside**2)
        return flat if order == "nested" else flat[healpix.nested_of(nside, np.arange(len(flat)))]

    def refined(self, uniq: Int64[np.ndarray, " m"]) -> SkyMap:
        """The same map in pixels nowhere larger than those of another partition of the sphere, nor than its own."""
        other = np.sort(moc.ranges(uniq)[0])
        first = np.union1d(self._first, other)
        end = np.append(first[1:], moc.N_DEEPEST)
        row = np.searchsorted(self._first, first, side="right") - 1
        level = moc.DEEPEST - np.searchsorted(4 ** np.arange(moc.DEEPEST + 1), end - first)
        finer = moc.uniq_of(level, first >> (2 * (moc.DEEPEST - level)))
        mu, sigma, norm = (
            None if column is None else column[row] for column in (self.distmu, self.distsigma, self.distnorm)
        )
        return SkyMap(finer, self.probdensity[row], mu, sigma, norm, self.meta)


def level_of(pixels: int) -> int:
    """Level of a map of so many equal pixels.

    Raises:
        SkyMapError: it is no 12 * 4^level.
    """
    level = (max(pixels // 12, 1).bit_length() - 1) // 2
    if pixels != 12 * 4**level:
        raise SkyMapError(f"{pixels} pixels: a HEALPix map has 12 * 4^level, nside a power of 2")
    return level
