"""The whole system: its folder, its clock, its supervisor, and the command as a user types it."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mma_realtime.alerts.notice import Notice
from mma_realtime.alerts.store import Store
from mma_realtime.bus.base import DEAD, EXTERNAL, NOTICES, SURVEY
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.filter import GROUP as FILTER
from mma_realtime.crossmatch.made_up import LSST, packets
from mma_realtime.crossmatch.matcher import GROUP
from mma_realtime.data.strain import write_npz
from mma_realtime.errors import StatusError
from mma_realtime.live import supervise
from mma_realtime.live.__main__ import main
from mma_realtime.live.feed import GPS_START
from mma_realtime.live.stages import run
from mma_realtime.live.system import Clock, Settings, System, alone, prepare
from mma_realtime.status.beats import STAGES, Beat
from mma_realtime.times import utc_iso
from shared.errors import UserError

spec = importlib.util.spec_from_file_location("search_inputs", Path(__file__).with_name("search_inputs.py"))
assert spec is not None
assert spec.loader is not None
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command takes Ctrl-C for itself: given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def strain(tmp_path: Path) -> Path:
    """Forty seconds with a signal in them."""
    made = inputs.strain_with(25.6, amplitude=14.0)
    write_npz(made, tmp_path / "strain.npz")
    return tmp_path / "strain.npz"


def beats(folder: Path) -> list[Beat]:
    with SqliteLog(folder / "bus.sqlite") as bus:
        return [Beat.from_bytes(record.value) for record in bus.fetch(STAGES, "test", 10_000)]


def test_when_strain_is_due() -> None:
    clock = Clock(1000.0, 50.0, 4.0)
    assert clock.due(50.0) == 1000.0
    assert clock.due(90.0) == 1010.0
    assert Clock(1000.0, 0.0, math.inf).due(1e6) == 1000.0


def test_a_folder_is_of_one_system(tmp_path: Path) -> None:
    state = tmp_path / "state"
    system = prepare(state, Settings(seed=3, speed=2.0))
    assert System.load(state) == system
    assert prepare(state, Settings(seed=3, speed=0.0)).clock.speed == math.inf
    with pytest.raises(StatusError, match=r"is the state of another system: other seed \(3 then, 4 now\)"):
        prepare(state, Settings(seed=4))
    with alone(state), pytest.raises(StatusError, match="another system runs in"), alone(state):
        pass
    with pytest.raises(StatusError, match="holds no live system"):
        System.load(tmp_path / "none")
    for content in ("{", "{}", "[]", '{"settings": {"replay": []}, "clock": 3}'):
        (state / "live.json").write_text(content)
        with pytest.raises(StatusError, match=r"live\.json holds no live system .*give another --state"):
            prepare(state, Settings(seed=3))
        assert (state / "live.json").read_text() == content


@pytest.mark.parametrize("given", [True, False])
def test_lsst_s_packets_are_read_by_the_schemas_that_were_given(tmp_path: Path, given: bool) -> None:
    schemas = tmp_path / "schemas"
    schemas.mkdir()
    (schemas / "1.avsc").write_text(json.dumps(LSST))
    system = prepare(tmp_path / "state", Settings(survey_schemas=str(schemas) if given else ""))
    system = System.load(system.folder)  # as a stage in a process of its own finds it
    stop, rows = threading.Event(), [("lsst", content, {}) for content, _ in packets(5, 3, 1187008882.43, 3000, "LSST")]
    with system.bus() as bus:
        bus.append_many(SURVEY, rows)
        stage = threading.Thread(target=run, args=("cross-match", system, stop))
        stage.start()
        until = time.monotonic() + 60
        while bus.behind(SURVEY, FILTER) and time.monotonic() < until:
            time.sleep(0.05)
        stop.set()
        stage.join()
        assert (bus.behind(SURVEY, FILTER), bus.end(SURVEY + DEAD)) == (0, 0 if given else 5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--survey_schemas", "nowhere"],
            "nowhere: No such file or directory: give the folder of the survey's schemas",
        ),
        (["--hop", "0.3"], "--hop 0.3: use 1, 0.5 or 0.25"),
        (["--speed", "-1"], "--speed -1: give how many times real time"),
        (["--for", "0"], "--for 0: give how many seconds above 0"),
        (["--seed", "-2"], "--seed -2: give a whole number"),
        (["--host", "0.0.0.0"], "can be reached from other machines"),
        (["--port", "99999"], "--port 99999"),
    ],
)
def test_bad_input_is_one_message(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(["--state", str(tmp_path / "state"), "--port", "0", *words])


def test_a_port_in_use_and_a_file_for_a_folder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="is in use"):
        main(["--state", str(tmp_path / "state"), "--port", str(taken.getsockname()[1])])
    (tmp_path / "file").touch()
    with pytest.raises(StatusError, match="cannot be written"):
        main(["--state", str(tmp_path / "file"), "--port", "0"])


def test_a_replay_ends_with_its_strain_and_goes_on_where_it_was(
    tmp_path: Path, strain: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = inputs.template_model(threshold=2.0, time_offset=0.0)
    monkeypatch.setattr("mma_realtime.live.system.report.load_model", lambda path: model)
    words = ["--replay", str(strain), "--speed", "0", "--port", "0", "--state", str(tmp_path / "state")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "replayed strain; everything is a test" in told
    assert "40 s searched, 1 superevents in" in told
    with Store(tmp_path / "state" / "store.sqlite") as store:
        (id,) = store.superevents()
        versions = store.versions(id)
        assert abs(versions[0].preferred.gps - (inputs.START + 25.6)) < 0.3
        assert store.waiting() == []
    with SqliteLog(tmp_path / "state" / "bus.sqlite") as bus:
        records = bus.fetch(NOTICES, "test")
    assert {record.headers["role"] for record in records} == {"test"}
    assert {record.headers["origin"] for record in records} == {"replayed"}
    heard = beats(tmp_path / "state")
    assert {beat.stage for beat in heard} == {"stream", "relay", "localiser", "cross-match", "status"}
    assert {beat.stage: beat.state for beat in heard} == dict.fromkeys(
        ("stream", "relay", "localiser", "cross-match", "status"), "ended"
    )
    steps = {step for beat in heard for step in beat.latency}
    assert {"whitening", "inference", "coincidence", "false-alarm rate", "notice, written"} <= steps
    assert {beat.numbers["gaps"] for beat in heard if "gaps" in beat.numbers} == {0.0}  # no second of it is missing
    assert main(words) == 0
    assert "40 s searched, 1 superevents in" in capsys.readouterr().out


@pytest.mark.parametrize("hop", ["1", "0.5"])
def test_seconds_that_are_missing_are_counted_and_no_others(
    tmp_path: Path, hop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mma_realtime.live.system.report.load_model", lambda path: inputs.template_model(threshold=9.0))
    made = inputs.strain_with(seconds=40)
    valid = made.valid.copy()
    valid[0, 20] = valid[1, 20] = valid[1, 30] = False
    write_npz(replace(made, values=np.where(np.repeat(valid, made.sample_rate, 1), made.values, np.nan), valid=valid),
              tmp_path / "strain.npz")  # fmt: skip
    words = ["--replay", str(tmp_path / "strain.npz"), "--speed", "0", "--port", "0", "--hop", hop]
    assert main([*words, "--state", str(tmp_path / "state")]) == 0
    assert max(beat.numbers["gaps"] for beat in beats(tmp_path / "state") if "gaps" in beat.numbers) == 2.0


def test_a_burst_on_the_bus_is_told_in_a_further_version_of_what_it_fits(
    tmp_path: Path, strain: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = inputs.template_model(threshold=2.0, time_offset=0.0)
    monkeypatch.setattr("mma_realtime.live.system.report.load_model", lambda path: model)
    monkeypatch.setattr("mma_realtime.live.inline.LAST", 300.0)  # a map on a machine that does much else
    state = tmp_path / "state"
    burst = {
        "mission": "Fermi", "messenger": "EM", "alert_tense": "test", "alert_type": "initial", "id": ["GRB1"],
        "instrument": "GBM", "trigger_time": utc_iso(inputs.START + 25.6 + 1.7),
        "alert_datetime": utc_iso(inputs.START + 60.0), "ra": 120.0, "dec": -66.0, "ra_dec_error": 12.0,
    }  # fmt: skip
    state.mkdir()
    with SqliteLog(state / "bus.sqlite") as bus:
        bus.append(EXTERNAL, "GRB1", json.dumps(burst).encode())
    words = ["--replay", str(strain), "--speed", "0", "--port", "0", "--state", str(state)]
    for _ in range(2):  # the second time there is nothing left to tell
        assert main(words) == 0
        with SqliteLog(state / "bus.sqlite") as bus:
            notices = [Notice.from_json(record.value) for record in bus.fetch(NOTICES, "test", 1000)]
            assert bus.committed(GROUP, NOTICES) == bus.end(NOTICES)
            assert [r.headers["version"] for r in bus.fetch(NOTICES, "again")] == [
                str(n) for n in range(1, len(notices) + 1)
            ]
        first, *_, last = notices
        assert (first.external_coinc, first.superevent_id) == (None, last.superevent_id)
        assert last.external_coinc is not None
        assert (last.external_coinc.ivorn, last.external_coinc.search) == ("Fermi GRB1", "GRB")
        assert last.external_coinc.time_difference == pytest.approx(-1.7, abs=0.3)
        assert sum(notice.external_coinc is not None for notice in notices) <= 2  # by time, and with the map


def child(tmp_path: Path, code: str) -> supervise.Child:
    return supervise.Child("relay", [sys.executable, "-c", code], tmp_path / "relay.log", ())


def test_a_stage_that_dies_is_started_again_later_and_later(tmp_path: Path) -> None:
    stage = child(tmp_path, "raise SystemExit(3)")
    with SqliteLog(tmp_path / "bus.sqlite") as bus:
        pauses = []
        for _ in range(supervise.MOST):
            stage.due = 0.0
            supervise._tend(stage, bus)
            assert stage.process is not None
            stage.process.wait()
            pauses.append(stage.pause)
            if len(pauses) < supervise.MOST:
                supervise._tend(stage, bus)
        with pytest.raises(StatusError, match="relay died 5 times at once; the last it said: it said nothing"):
            supervise._tend(stage, bus)
    assert pauses == [0.5, 0.5, 1.0, 2.0, 4.0]
    died = [beat for beat in beats(tmp_path) if beat.state == "died"]
    assert [beat.restarts for beat in died] == [0, 1, 2, 3, 4]
    assert died[0].note == "ended with status 3; starts again in 0.5 s"


def test_a_stage_that_is_killed_is_said_so_and_one_that_ends_is_left(tmp_path: Path) -> None:
    stage = child(tmp_path, "import os; os.kill(os.getpid(), 9)")
    stage.start()
    assert stage.process is not None
    stage.process.wait()
    with SqliteLog(tmp_path / "bus.sqlite") as bus:
        supervise._tend(stage, bus)
        assert beats(tmp_path)[-1].note.startswith("ended by SIGKILL")
        done = child(tmp_path, "")
        supervise._tend(done, bus)
        assert done.process is not None
        done.process.wait()
        supervise._tend(done, bus)
        supervise._tend(done, bus)
        assert done.ended
        assert done.process is None


def test_stages_end_when_told_and_when_their_supervisor_is_gone(tmp_path: Path) -> None:
    stubborn = child(tmp_path, "import signal, sys; signal.signal(15, signal.SIG_IGN); sys.stdin.read()")
    stubborn.start()
    assert stubborn.process is not None
    assert stubborn.process.stdin is not None
    stubborn.process.stdin.close()
    assert stubborn.process.wait(10) == 0
    read, write = os.pipe()
    stop = threading.Event()
    before = os.dup(0)
    os.dup2(read, 0)
    try:
        waiting = threading.Thread(target=supervise._until_input_ends, args=(stop,))
        waiting.start()
        assert not stop.is_set()
        os.close(write)
        waiting.join(10)
        assert stop.is_set()
    finally:
        os.dup2(before, 0)
        for handle in (before, read):
            os.close(handle)


@pytest.mark.slow
def test_processes_survive_kills_and_end_when_told(tmp_path: Path) -> None:
    """As a user types it: a stage is killed with SIGKILL, comes back, and the search goes on without a gap."""
    state = tmp_path / "state"
    command = [
        sys.executable,
        "-m",
        "mma_realtime.live",
        "--processes",
        "--speed",
        "20",
        "--seed",
        "47",  # its first signal is heard after 35 s of strain
        "--port",
        "0",
        "--state",
        str(state),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            first = _pid_of(state, "stream", 0, running)
            os.kill(first, signal.SIGKILL)
            assert _pid_of(state, "stream", 1, running) != first
            _until(lambda: _notices(state) > 0, running)
        finally:
            running.send_signal(signal.SIGTERM)
        told, _ = running.communicate(timeout=60)
    assert running.returncode == 0, told
    assert "superevents in" in told
    heard = beats(state)
    assert any(beat.stage == "stream" and beat.state == "died" and "SIGKILL" in beat.note for beat in heard)
    with Store(state / "store.sqlite") as store:
        row = store.state("simulated")
        (found,) = [store.superevent(id) for id in store.superevents()]
    assert row is not None
    assert row[0] >= 35 * 2048
    assert found.preferred.gps == pytest.approx(GPS_START + 34.5, abs=0.3)


def _notices(state: Path) -> int:
    with SqliteLog(state / "bus.sqlite") as bus:
        return bus.end(NOTICES)


def _pid_of(state: Path, stage: str, restarts: int, running: subprocess.Popen[str]) -> int:
    """Of a stage that runs after so many restarts."""
    found: list[int] = []

    def look() -> bool:
        if not (state / "live.json").exists():
            return False
        found[:] = [
            beat.pid for beat in beats(state)
            if (beat.stage, beat.state, beat.restarts) == (stage, "running", restarts)
        ]  # fmt: skip
        return bool(found)

    _until(look, running)
    return found[-1]


def _until(condition, running: subprocess.Popen[str], seconds: float = 90.0) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.1)
