"""E10's mechanism, small: real processes, killed while they work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mma_realtime.evaluation.recovery import measure_recovery, superevents_near
from mma_realtime.times import gps_from_utc


def test_superevents_of_an_injection_are_counted_as_a_subscriber_heard_them() -> None:
    """Several versions are one superevent; two superevents are two, also where a retraction has no event."""
    tc = gps_from_utc("2015-09-14T09:50:45.400Z")
    event, late = {"time": "2015-09-14T09:50:45.400Z"}, {"time": "2015-09-14T09:50:46.400Z"}
    told: list[Any] = [("Sa", 1, "PRELIMINARY", event), ("Sa", 2, "INITIAL", event), ("Sb", 1, "PRELIMINARY", late)]
    assert superevents_near(told, tc) == {"Sa"}
    told += [("Sc", 1, "PRELIMINARY", event), ("Sc", 2, "RETRACTION", None)]
    assert superevents_near(told, tc) == {"Sa", "Sc"}


@pytest.mark.slow
def test_killed_replays_tell_what_an_undisturbed_one_tells(tmp_path: Path) -> None:
    found = measure_recovery(tmp_path, seed=3, duration=120, kills=3)
    assert found.kills >= 2  # the last may come when the strain is already through
    assert found.alerted >= 1
    assert found.alerted_once == found.alerted
    assert (found.missing, found.extra, found.same_order, found.contiguous) == (0, 0, True, True)
    assert found.notices >= found.alerted
    assert found.recovery_s > 0
