"""A search and its relay on a real disk that runs full: nothing lost, nothing twice, and on when there is room."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mma_realtime.bus.base import NOTICES
from mma_realtime.bus.log import SqliteLog
from mma_realtime.data.strain import write_npz

SCRIPT = Path(__file__).with_name("full_disk.py")
MOUNT = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", 'mount -t tmpfs -o size=12m tmpfs "$0"; "$@"']


def imported(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reliability = imported("test_live_reliability")
model = reliability.model  # a fixture


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    """What begins a command that finds twelve megabytes of disk at `tmp_path / "disk"`; they are gone when it ends."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare (util-linux), which mounts a small file system for one command")
    command = [*MOUNT, str(disk)]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no small file system can be mounted here: {tried.stderr.strip().splitlines()[-1:]}")
    return command


def test_a_disk_that_runs_full_loses_nothing_and_tells_nothing_twice(tmp_path: Path, small_disk: list[str]) -> None:
    strain = tmp_path / "strain.npz"
    write_npz(reliability.inputs.strain_with(12.0, 25.6, 35.2, amplitude=12.0), strain)
    undisturbed = reliability.system_of(tmp_path / "undisturbed", strain)
    reliability.streamed(undisturbed)
    command = [*small_disk, sys.executable, str(SCRIPT), str(tmp_path / "disk"), str(strain), str(tmp_path / "left")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["failed"], told["alive"]) == ([], [])
    assert (told["free"], told["sent"]) == (0, 1)
    assert 12 * 2048 < told["searched"] < 40 * 2048  # the disk was full in the midst of it
    for file in ("store.sqlite", "bus.sqlite"):
        path = tmp_path / "disk" / "state" / file
        lines = [line for line in told["said"] if f"no space left to write {path}" in line]
        assert lines
        assert all("nothing was written, free some space and try again" in line for line in lines)
        assert not any("\n" in line for line in lines)
    with undisturbed.store() as store:
        rows = [(row.topic, row.key, row.headers) for row in store.waiting(1000)]
    left = reliability.system_of(tmp_path / "left", strain)
    assert reliability.found(left) == reliability.found(undisturbed)
    with left.store() as store, SqliteLog(tmp_path / "left" / "bus.sqlite") as bus:
        assert store.waiting(1) == []
        heard = {topic: bus.fetch(topic, "test", 1000) for topic in {topic for topic, _, _ in rows}}
        for topic, records in heard.items():
            assert [(topic, record.key, dict(record.headers)) for record in records] == [
                row for row in rows if row[0] == topic
            ]
        assert len(heard[NOTICES]) == 3
