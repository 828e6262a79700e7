"""Scores as numbers: the statistic of every window of a stretch, per detector, at the inference rate (section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Float64

from mma_realtime.errors import SearchError
from mma_realtime.gw.units import GPS, Seconds


@dataclass(frozen=True)
class Scores:
    """Args:
    detectors: whose strain was searched. A coherent network has one row for all of them.
    gps_start: GPS s at which the window of score 0 ENDS; score k is of the window ending at gps_start + k hop.
    hop: s between windows.
    values: logit differences; 0 where not valid.
    valid: False where the window touches a gap, an edge or the start of the PSD.
    window: s, length of a window.
    """

    detectors: tuple[str, ...]
    gps_start: GPS
    hop: Seconds
    values: Float32[np.ndarray, "row time"]
    valid: Bool[np.ndarray, "row time"]
    window: Seconds = 1.0

    @property
    def times(self) -> Float64[np.ndarray, " time"]:
        """GPS s at which each window ends."""
        return self.gps_start + self.hop * np.arange(self.values.shape[1])

    @property
    def livetime(self) -> Seconds:
        """s in which every detector has a score."""
        return float(self.valid.all(axis=0).sum()) * self.hop

    @property
    def gps_end(self) -> GPS:
        """Where the window after the last would end."""
        return self.gps_start + self.values.shape[1] * self.hop


def joined(parts: Sequence[Scores]) -> Scores:
    """One series of parts that follow each other.

    Raises:
        SearchError: there is none, or one does not begin where the one before it ends.
    """
    parts = [part for part in parts if part.values.shape[1]] or list(parts[:1])
    if not parts:
        raise SearchError("there are no scores to join")
    for before, after in pairwise(parts):
        if abs(before.gps_end - after.gps_start) > 1e-6 or before.detectors != after.detectors:
            raise SearchError(f"scores end at GPS {before.gps_end:.4f} and go on at {after.gps_start:.4f}")
    first = parts[0]
    return Scores(
        first.detectors,
        first.gps_start,
        first.hop,
        np.concatenate([part.values for part in parts], axis=1),
        np.concatenate([part.valid for part in parts], axis=1),
        first.window,
    )
