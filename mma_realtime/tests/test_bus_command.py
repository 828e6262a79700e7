"""`python -m mma_realtime.bus` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mma_realtime.bus.__main__ import main
from mma_realtime.bus.log import SqliteLog
from mma_realtime.errors import BusError


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A log of five records, one a minute from 2026-01-31T12:00:00 UTC."""
    with SqliteLog(tmp_path / "bus.db") as log, monkeypatch.context() as patch:
        for n, value in enumerate([b'{"n": 0}', b"one", b"two", b"\xff\x00", b"four"]):
            patch.setattr(time, "time", lambda n=n: 1769860800.0 + 60 * n)
            log.append("gw.notices", f"S{n}", value, {"n": str(n)})
        log.commit("relay", "gw.notices", 4)
    return str(tmp_path / "bus.db")


@pytest.mark.parametrize("start", ["3", "2026-01-31T12:02:30", "2026-01-31T12:03:00+00:00", "2026-01-31T13:03+01:00"])
def test_replay_prints_from_an_offset_or_a_time(db: str, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "gw.notices", "--db", db, "--from", start]) == 0
    third, fourth = map(json.loads, capsys.readouterr().out.splitlines())
    assert third == {
        "topic": "gw.notices", "offset": 3, "time": 1769860980.0, "key": "S3", "headers": {"n": "3"},
        "value_hex": "ff00",
    }  # fmt: skip
    assert (fourth["offset"], fourth["value"]) == (4, "four")


@pytest.mark.parametrize("start", ["1", "2026-01-31T12:01:00"])
def test_replay_of_a_group_has_it_read_again(db: str, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "gw.notices", "--db", db, "--from", start, "--group", "relay"]) == 0
    assert capsys.readouterr().out == "relay reads gw.notices from 1 on\n"
    with SqliteLog(db) as log:
        assert [record.offset for record in log.fetch("gw.notices", "relay")] == [1, 2, 3, 4]


def test_tail_and_stats(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["tail", "gw.notices", "--db", db, "-n", "2"])
    assert capsys.readouterr().out.splitlines() == [
        "       3 2026-01-31T12:03:00.000000Z S3 2 bytes: (binary)",
        "       4 2026-01-31T12:04:00.000000Z S4 4 bytes: four",
    ]
    main(["stats", "--db", db])
    out = capsys.readouterr().out
    assert "gw.notices" in out
    assert "relay 1" in out


def test_mistakes_are_one_line(db: str, tmp_path: Path) -> None:
    with pytest.raises(BusError, match=r"--group rely: no such group has read gw\.notices: those that have are relay"):
        main(["replay", "gw.notices", "--db", db, "--from", "1", "--group", "rely"])
    with pytest.raises(BusError, match=r"--group relay: no such group has read other\.topic: none has"):
        main(["replay", "other.topic", "--db", db, "--from", "1", "--group", "relay"])
    with pytest.raises(BusError, match="an offset, or UTC as"):
        main(["replay", "gw.notices", "--db", db, "--from", "yesterday"])
    with pytest.raises(BusError, match="has no offset 9: it ends at 5"):
        main(["replay", "gw.notices", "--db", db, "--from", "9"])
    missing = str(tmp_path / "missing.db")
    done = subprocess.run(
        [sys.executable, "-m", "mma_realtime.bus", "stats", "--db", missing],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, f"error: {missing} is not there: --db wants the file of a log\n")
    assert not Path(missing).exists()
