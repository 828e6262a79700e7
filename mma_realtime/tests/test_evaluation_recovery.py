"""E10's mechanism, small: real processes, killed while they work."""

from __future__ import annotations

from pathlib import Path

import pytest
from mma_realtime.evaluation.recovery import measure_recovery


@pytest.mark.slow
def test_killed_replays_tell_what_an_undisturbed_one_tells(tmp_path: Path) -> None:
    found = measure_recovery(tmp_path, seed=3, duration=120, kills=3)
    assert found.kills >= 2  # the last may come when the strain is already through
    assert found.alerted >= 1
    assert found.alerted_once == found.alerted
    assert (found.missing, found.extra, found.same_order, found.contiguous) == (0, 0, True, True)
    assert found.notices >= found.alerted
    assert found.recovery_s > 0
