"""Candidates, a place and superevents, made up: for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mma_realtime.alerts.superevent import Candidate, Localisation, Superevent

MODEL = "ab" * 32
CREATED = "2015-09-14T09:51:00.000Z"
GPS = 1126259462.4
FIRST = Candidate(GPS, "2015-09-14T09:50:45.400Z", 12.0, 1e-4, False, ("H1", "L1"), 0.5, MODEL)
LOUDER = replace(FIRST, statistic=20.0, far=1e-5, gps=GPS + 0.3, utc="2015-09-14T09:50:45.700Z")
PLACE = Localisation(b"SIMPLE  =", 116.25, -69.5, 7.5)


def candidate(**changes: Any) -> Candidate:
    return replace(FIRST, **changes)


def superevent(number: int = 0, **changes: Any) -> Superevent:
    return Superevent.opened(candidate(**changes), number)
