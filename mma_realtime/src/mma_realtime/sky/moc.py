"""Pixels of any size under one number: UNIQ = 4 * 4^level + nested index (section 8).

A pixel's children are 4 UNIQ to 4 UNIQ + 3, its parent is UNIQ >> 2, and its descendants at the deepest level are
one run of nested indices: all of it is bit shifts of 64-bit integers.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64

from mma_realtime.errors import SkyMapError

DEEPEST = 29  # the finest level whose nested indices fit 64 bits
N_DEEPEST = 12 * 4**DEEPEST  # pixels of that level
FIRST_UNIQ = np.int64(4) << (2 * np.arange(DEEPEST + 1, dtype=np.int64))  # of each level
Integers = int | npt.NDArray[np.int64]


def uniq_of(level: Integers, ipix: Integers) -> Int64[np.ndarray, "*batch"]:
    """UNIQ of the nested pixels `ipix` of levels `level` (nside 2^level); the two broadcast.

    Raises:
        SkyMapError: no such level, or no such pixel in it.
    """
    level, ipix = np.asarray(level, dtype=np.int64), np.asarray(ipix, dtype=np.int64)
    if not ((level >= 0) & (level <= DEEPEST)).all():
        raise SkyMapError(f"HEALPix levels are 0 to {DEEPEST}, found {level.min()} to {level.max()}")
    if not ((ipix >= 0) & (ipix < np.int64(12) << (2 * level))).all():
        raise SkyMapError(f"pixel indices {ipix.min()} to {ipix.max()} do not fit their level (12 * 4^level pixels)")
    return (np.int64(4) << (2 * level)) + ipix


def level_ipix(uniq: Integers) -> tuple[Int64[np.ndarray, "*batch"], Int64[np.ndarray, "*batch"]]:
    """Level and nested index of each UNIQ.

    Raises:
        SkyMapError: a number that is no UNIQ.
    """
    uniq = np.asarray(uniq, dtype=np.int64)
    # By comparison: as floating-point numbers the deepest UNIQs round up to the next level.
    level = np.searchsorted(FIRST_UNIQ, uniq, side="right") - 1
    if not ((uniq >= 4) & (uniq < 4 * FIRST_UNIQ[level])).all():
        raise SkyMapError(f"{uniq.min()} to {uniq.max()} are no UNIQ numbers: these are 4 * 4^level + nested index")
    return level, uniq - FIRST_UNIQ[level]


def parents(uniq: Integers) -> Int64[np.ndarray, "*batch"]:
    """The pixels one level up that hold these."""
    return np.asarray(uniq, dtype=np.int64) >> 2


def children(uniq: Integers) -> Int64[np.ndarray, "*batch 4"]:
    """The four pixels of the next level in each of these, in nested order."""
    return (np.asarray(uniq, dtype=np.int64)[..., None] << 2) + np.arange(4)


def pixel_area(uniq: Integers) -> Float64[np.ndarray, "*batch"]:
    """Solid angles (sr)."""
    level, _ = level_ipix(uniq)
    return math.pi / 3 * 0.25**level


def ranges(uniq: Integers) -> tuple[Int64[np.ndarray, "*batch"], Int64[np.ndarray, "*batch"]]:
    """First nested index at the deepest level of each pixel, and the one after its last."""
    level, ipix = level_ipix(uniq)
    shift = 2 * (DEEPEST - level)
    return ipix << shift, (ipix + 1) << shift


def whole_sphere(level: int) -> Int64[np.ndarray, " n"]:
    """All pixels of one level, in nested order."""
    return uniq_of(level, np.arange(12 * 4**level))
