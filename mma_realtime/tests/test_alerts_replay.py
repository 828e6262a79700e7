"""The command as a user types it: strain into alerts, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mma_realtime.alerts.replay import main
from mma_realtime.alerts.store import Store
from mma_realtime.bus.base import NOTICES
from mma_realtime.bus.log import SqliteLog
from mma_realtime.data.strain import write_npz
from mma_realtime.errors import AlertError, SearchError
from mma_realtime.evaluation.stand_in import stand_in


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    strain, tc = stand_in()
    path = tmp_path_factory.mktemp("strain") / "strain.npz"
    write_npz(strain, path)
    return path, tc


def test_strain_becomes_alerts_once(
    files: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, tc = files
    command = [str(path), "--store", str(tmp_path / "alerts.db"), "--bus", str(tmp_path / "bus.db")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "S150914a version 1 PRELIMINARY: 2015-09-14T09:50:4" in said
    with Store(tmp_path / "alerts.db") as store, SqliteLog(tmp_path / "bus.db") as bus:
        times = [store.superevent(name).preferred.gps for name in store.superevents()]
        assert sum(abs(time - tc) < 0.5 for time in times) == 1
        assert store.waiting() == []
        records = bus.fetch(NOTICES, "reader", 1000)
        assert len(records) == sum(len(store.versions(name)) for name in store.superevents())
        assert {record.headers["origin"] for record in records} == {"replayed"}
        assert main(command) == 0
        assert capsys.readouterr().out == ""
        assert bus.end(NOTICES) == len(records)


def test_a_store_of_other_strain_is_not_gone_on_with(files: tuple[Path, float], tmp_path: Path) -> None:
    strain, _ = stand_in()
    write_npz(
        replace(strain, gps_start=strain.gps_start + 100, values=strain.values[:, ::-1].copy()), tmp_path / "b.npz"
    )
    more = ["--store", str(tmp_path / "alerts.db"), "--bus", str(tmp_path / "bus.db")]
    assert main([str(files[0]), *more]) == 0
    with pytest.raises(AlertError, match=r"alerts\.db goes on with strain of H1 and L1 from GPS .* another store"):
        main([str(tmp_path / "b.npz"), *more])


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (["--hop", "0.3"], AlertError, r"a hop of 0\.3 s: use 1, 0\.5 or 0\.25"),
        (["--checkpoint", "none.pt"], SearchError, r"no search model at none\.pt"),
    ],
)
def test_what_cannot_be_is_said(
    files: tuple[Path, float], tmp_path: Path, more: list[str], error: type[Exception], message: str
) -> None:
    command = [str(files[0]), "--store", str(tmp_path / "alerts.db"), "--bus", str(tmp_path / "bus.db"), *more]
    with pytest.raises(error, match=message):
        main(command)
