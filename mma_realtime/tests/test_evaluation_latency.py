"""E9's measurement: every event's latency is strain and work, and its parts are those of the budget."""

from __future__ import annotations

import contextlib
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from mma_realtime.alerts.store import Store
from mma_realtime.bus.base import SURVEY
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.filter import MATCHES
from mma_realtime.data.strain import SAMPLE_RATE
from mma_realtime.errors import AlertError
from mma_realtime.evaluation import latency, survey
from mma_realtime.evaluation.latency import (
    BUS,
    EVENT,
    Latency,
    measure_alone,
    measure_latency,
    resident,
    survey_night,
)
from mma_realtime.evaluation.survey import filter_rate
from mma_realtime.live.feed import GPS_START
from mma_realtime.live.timed import COINCIDENCE, FAR, INFERENCE, NOTICE, WHITENING


def test_a_short_stretch_is_measured_step_by_step(tmp_path: Path) -> None:
    found = measure_latency(tmp_path, seed=0, duration=140, survey=0)
    metrics = found.as_dict()
    assert set(found.steps) == {WHITENING, INFERENCE, COINCIDENCE, FAR, NOTICE, EVENT, BUS}
    assert len(found.steps[INFERENCE]) == 140
    assert metrics["events"] == len(found.steps[EVENT]) >= 1
    for total, waited in zip(sorted(found.total), sorted(found.steps[EVENT]), strict=True):
        assert waited < total
    # A plateau of loud windows, the filter's edge, the cluster's gap and the hop: less is impossible.
    assert min(found.steps[EVENT]) > 0.5 + 0.35
    assert metrics["latency_p50"] <= metrics["latency_p99"]
    assert metrics["real_time_factor"] > 1


def test_growth_is_a_slope_of_the_second_half() -> None:
    level = [(60.0 * k, 100_000_000 + (50_000_000 if k > 20 else 2_000_000 * k)) for k in range(61)]
    assert Latency(memory=level, strain=3600.0).growth == pytest.approx(0.0, abs=1e-6)
    leak = [(60.0 * k, 100_000_000 + 1_000_000 * k) for k in range(61)]
    assert Latency(memory=leak, strain=3600.0).growth == pytest.approx(60.0)
    assert resident() > 1e7


def becomes(true: Callable[[], object], longest: float = 120.0) -> bool:
    until = time.monotonic() + longest
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(true())


def test_a_measuring_process_that_is_killed_fails_the_measurement(tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    with ThreadPoolExecutor(1) as threads:
        measured = threads.submit(measure_alone, tmp_path, 0, duration=3600, survey=0.0)
        assert becomes(lambda: (tmp_path / "store.sqlite").exists() or measured.done())
        (child,) = set(multiprocessing.active_children()) - before
        child.kill()
        with pytest.raises(AlertError, match="the process that measures latency was killed"):
            measured.result()


def test_a_measurement_whose_starter_is_killed_ends(tmp_path: Path) -> None:
    said = (
        "import sys; from pathlib import Path; from mma_realtime.evaluation.latency import measure_alone; "
        "measure_alone(Path(sys.argv[1]), 0, duration=3600, survey=0.0)"
    )
    starter = subprocess.Popen([sys.executable, "-c", said, str(tmp_path)])
    try:
        assert becomes(lambda: (tmp_path / "store.sqlite").exists() or starter.poll() is not None)
        assert len(measuring(tmp_path)) == 1
    finally:
        starter.kill()
        starter.wait()
    assert becomes(lambda: not measuring(tmp_path), 20.0)


def measuring(folder: Path) -> list[str]:
    """Processes that have a file of the folder open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if any(folder in each.readlink().parents for each in (process / "fd").iterdir()):
                found.append(process.name)
    return found


def test_a_survey_night_is_filtered_as_it_comes(tmp_path: Path) -> None:
    stop, count = threading.Event(), SimpleNamespace(value=0)
    night = threading.Thread(target=survey_night, args=(tmp_path / "bus", 500.0, GPS_START, stop, count))
    night.start()
    becomes(lambda: count.value)
    stop.set()
    night.join()
    with SqliteLog(tmp_path / "bus") as bus:
        assert 0 < count.value <= bus.end(SURVEY)
        assert bus.committed("survey-filter", SURVEY) == count.value
        assert bus.end(MATCHES) > 0
        assert f"{SURVEY}.dead" not in bus.topics()


def test_a_survey_that_is_no_load_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "packets", lambda *args: [(b"torn", {})])
    stop, count = threading.Event(), SimpleNamespace(value=0)
    with pytest.raises(AlertError, match="this is no load"):
        survey_night(tmp_path / "bus", 500.0, GPS_START, stop, count)


def test_a_survey_that_dies_fails_the_measurement(tmp_path: Path) -> None:
    with (
        pytest.raises(AlertError, match="ended with status 1"),
        latency._surveyed(tmp_path / "no" / "bus", 5.0, Latency()),
    ):
        pass


def test_the_filter_drains_every_packet_again_and_again_while_strain_is_searched(tmp_path: Path) -> None:
    found = filter_rate(tmp_path, 700, passes=3)
    assert found["survey/packets"] == 2100
    assert found["survey/matched"] > 0
    assert found["survey/matched"] % 3 == 0
    assert found["survey/packet_bytes"] > 60_000
    assert found["survey/alerts_per_core_second"] * 1.1 > found["alerts_per_second"] > 0
    with SqliteLog(tmp_path / "bus.sqlite") as bus, Store(tmp_path / "store.sqlite") as store:
        assert bus.end(SURVEY) == 700
        assert store.state("beside")[0] >= survey.LEAD * SAMPLE_RATE  # samples that the search has consumed


def test_the_search_beside_the_filter_goes_as_strain_comes(tmp_path: Path) -> None:
    with survey._searched(tmp_path, 1) as searched:
        first, begin = searched.value, time.monotonic()
        assert first >= survey.LEAD
        becomes(lambda: searched.value >= first + 3)
        assert time.monotonic() - begin > 1.5  # not as fast as it goes, a hundred times real time


def test_a_search_that_dies_is_no_measurement(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").mkdir()
    with pytest.raises(AlertError, match="the search beside the filter ended with status 1"):
        filter_rate(tmp_path, 10)
