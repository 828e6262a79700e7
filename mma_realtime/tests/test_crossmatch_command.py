"""`python -m mma_realtime.crossmatch` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mma_realtime.alerts.made_up import CREATED, candidate
from mma_realtime.alerts.notice import notice_of
from mma_realtime.alerts.origin import Origin
from mma_realtime.alerts.outbox import relay
from mma_realtime.alerts.pipeline import tell
from mma_realtime.alerts.store import Store
from mma_realtime.alerts.superevent import Superevent
from mma_realtime.bus.base import EXTERNAL, NOTICES
from mma_realtime.bus.log import SqliteLog
from mma_realtime.crossmatch.__main__ import content_of, main
from mma_realtime.crossmatch.external import spot
from mma_realtime.crossmatch.joint import RATE_GRB
from mma_realtime.errors import CrossMatchError
from mma_realtime.sky.fits import write_fits
from mma_realtime.sky.skymap import SkyMap
from mma_realtime.times import utc_iso

EVENT = Superevent.opened(candidate(far=1e-6), 0)
BURST: dict[str, Any] = {
    "mission": "Fermi", "messenger": "EM", "alert_datetime": "2015-09-14T09:51:05Z", "alert_tense": "test",
    "trigger_time": utc_iso(EVENT.opened_at + 1.7), "id": ["GRB1"], "ra": 120.0, "dec": -66.0, "ra_dec_error": 12.0,
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with `gw.json`, `burst.json` and `map.fits`, and a terminal that is wide enough."""
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "gw.json").write_bytes(notice_of(EVENT, CREATED).to_json())
    (tmp_path / "burst.json").write_text(json.dumps(BURST))
    found = spot(116.25, -69.5, 5.0)
    write_fits(SkyMap(found.uniq, found.probdensity), tmp_path / "map.fits")
    return tmp_path


def pair(files: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main([*more, "--external", str(files / "burst.json")]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_notice_and_a_burst(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = pair(files, capsys, "--gw", str(files / "gw.json"))
    assert "S150914a and Fermi GRB1" in out
    assert "external minus candidate +1.700 s" in out
    assert f"by time {6 * RATE_GRB * 1e-6:.4g} Hz, {1 / (6 * RATE_GRB):.3g} times smaller" in out
    assert "with the places none" in out


@pytest.mark.parametrize("notice", [True, False])
def test_with_a_map_the_places_count(files: Path, capsys: pytest.CaptureFixture[str], notice: bool) -> None:
    which = ("--gw", str(files / "gw.json")) if notice else ("--gps", str(EVENT.opened_at), "--far", "1e-6")
    out = pair(files, capsys, *which, "--gw-map", str(files / "map.fits"))
    overlap = float(out.split("overlap of the places ")[1].split()[0])
    joint = float(out.split("with the places ")[1].split()[0])
    assert overlap > 10
    assert joint == pytest.approx(6 * RATE_GRB * 1e-6 / overlap, rel=1e-3)


def test_outside_the_window_it_says_so(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = pair(files, capsys, "--gps", str(EVENT.opened_at + 60), "--far", "1e-6")
    assert "joint false-alarm rate none: outside the window" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--external", "x"], "which candidate"),
        (["--gps", "1", "--external", "x"], "which candidate"),
        (["--gps", "1", "--far", "1"], "give --external"),
        (["--gps", "1", "--far", "1", "--external", "nowhere.json"], "cannot read nowhere.json"),
        (["--bus", "nowhere.db"], "both --bus and --store"),
        (["--bus", "nowhere.db", "--store", "nowhere.db"], "is not there"),
    ],
)
def test_what_is_missing_is_said(arguments: list[str], message: str) -> None:
    with pytest.raises(CrossMatchError, match=message):
        main(arguments)


def test_the_worker_tells_what_waits(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["--bus", str(files / "bus.db"), "--store", str(files / "store.db"), "--origin", "simulated", "--once"]
    with Store(files / "store.db") as store, SqliteLog(files / "bus.db") as bus:
        with store.transaction() as write:
            write.open(EVENT, 0)
            tell(write, EVENT, None, Origin.SIMULATED, CREATED)
        relay(store, bus)
        bus.append(EXTERNAL, "", json.dumps(BURST).encode())
        assert main(paths) == 0
        assert "2 records read, 1 notices told, 0 records lost" in capsys.readouterr().out
        assert relay(store, bus) == 3  # in three flavours
        notices = bus.fetch(NOTICES, "test")
        assert [json.loads(n.value)["external_coinc"] is None for n in notices] == [True, False]
        assert [n.headers["origin"] for n in notices] == ["simulated", "simulated"]
    assert main(paths) == 0
    assert "1 records read, 0 notices told" in capsys.readouterr().out


def test_a_file_that_is_no_notice_by_its_size_is_not_read(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (files / "large.json").open("wb") as file:
        file.truncate(2**30)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read"))
    with pytest.raises(CrossMatchError, match=r"large\.json: a notice of 1,073,741,824 bytes is refused"):
        content_of(files / "large.json")
