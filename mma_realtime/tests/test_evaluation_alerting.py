"""E7 and E10 as experiments: settings are checked, and what was lost is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mma_realtime.evaluation import alerting, latency, recovery, survey
from mma_realtime.evaluation.latency import Latency
from mma_realtime.evaluation.recovery import Recovery
from shared.errors import UserError

GOOD = Recovery(20, 23, 13, 13, 17, 0, 0, True, 0, True, 3.0, killed_s=(30.0, 90.0))


@pytest.mark.parametrize(
    ("section", "known"), [("skymaps", "injections"), ("latency", "survey"), ("recovery", "kills")]
)
def test_a_key_that_does_not_exist_is_named(section: str, known: str) -> None:
    with pytest.raises(UserError, match=rf"unknown key '{section}\.injection'; it has: .*{known}"):
        alerting.measured(section, {"injection": 3}, 0, False)


@pytest.mark.parametrize(
    ("changes", "lost"),
    [({}, 0), ({"missing": 2}, 2), ({"extra": 1}, 1), ({"alerted_once": 11}, 2), ({"same_order": False}, 1),
     ({"contiguous": False}, 1)],
)  # fmt: skip
def test_whatever_is_lost_doubled_or_out_of_order_counts(
    changes: dict[str, Any], lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(recovery, "measure_recovery", lambda folder, seed, **given: replace(GOOD, **changes))
    found = alerting.measured("recovery", {"duration": 600, "kills": 20}, 1, False)
    assert found["recovery/lost_or_doubled"] == lost
    assert found["recovery/kills"] == 20
    assert found["curve/recovery/killed_s"] == [30.0, 90.0]
    assert "recovery/killed_s" not in found


def test_a_dry_run_is_the_least_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr(recovery, "measure_recovery", lambda folder, seed, **settings: asked.update(settings) or GOOD)
    alerting.measured("recovery", {"duration": 600, "kills": 20}, 1, True)
    assert asked == {"duration": 70, "kills": 1, "checkpoint": None}


def test_a_latency_that_was_not_measured_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(survey, "filter_rate", lambda folder, count: counted.append(count) or {"alerts_per_second": 1})
    level = Latency(total=[], memory=[(10.0 * k, 10**8) for k in range(20)], strain=200.0, wall=10.0)
    monkeypatch.setattr(latency, "measure_alone", lambda folder, seed, **settings: level)
    found = alerting.measured("latency", {"duration": 200, "packets": 7}, 1, False)
    assert counted == [7]
    assert "latency_p99" not in found  # there was no event
    assert (found["events"], found["real_time_factor"]) == (0, 20)
    assert found["memory_mb_per_hour"] == pytest.approx(0, abs=1e-6)
    assert found["curve/latency/memory_mb"][3] == found["memory_mb_most"] == 100


def test_memory_is_the_searchs_and_not_of_what_ran_before_it() -> None:
    settings = {"duration": 60, "survey": 0.0, "packets": 50}
    alone = alerting.measured("latency", settings, 1, False)["memory_mb_most"]
    held = np.ones(300 * 2**20, np.uint8)  # as a worker that ran other experiments
    before = latency.resident() / 1e6
    beside = alerting.measured("latency", settings, 1, False)["memory_mb_most"]
    assert held.sum() == held.nbytes
    assert before > 400
    assert beside == pytest.approx(alone, abs=30)


def test_maps_of_one_injection_are_measured() -> None:
    found = alerting.measured("skymaps", {"injections": 100}, 3, True)
    assert len(found["curve/skymaps/levels"]) == 1
    assert 0 < found["skymaps/seconds"] < 60


def test_a_recovery_is_of_the_search_that_it_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mma_realtime.search import model_file

    before = alerting.fingerprint("recovery", {"kills": 20})
    assert before != alerting.fingerprint("recovery", {"kills": 1})
    other = tmp_path / "model.pt"
    other.write_bytes(b"another")
    monkeypatch.setattr(model_file, "DEFAULT", other)
    assert alerting.fingerprint("recovery", {"kills": 20}) != before
    assert alerting.fingerprint("skymaps", {})[1] == "recipe"
