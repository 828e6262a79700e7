"""Run folders: whole files or none, one process at a time, and a disk that is full."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from shared.errors import UserError
from shared.runs.store import RunDir, RunStore, write_atomic


def python(code: str, *arguments: object, **keywords: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **keywords)  # type: ignore[call-overload]


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "deep" / "file", "old")
    write_atomic(tmp_path / "deep" / "file", b"new")
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file"]


def test_a_reader_meets_the_old_file_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(tmp_path / "file", "old")
    seen = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        sync(descriptor)
        seen.append((tmp_path / "file").read_text())

    monkeypatch.setattr(os, "fsync", look)
    write_atomic(tmp_path / "file", "new")
    assert seen == ["old"]
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_a_full_disk_is_one_clear_error_and_keeps_what_was_there(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", "old")
    code = (
        "import sys; from shared.errors import one_line_errors; from shared.runs.store import write_atomic\n"
        "with one_line_errors(): write_atomic(sys.argv[1], b'x' * 10000)"
    )

    def little_space() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    done = python(code, tmp_path / "file", preexec_fn=little_space)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no space left to write {tmp_path / 'file'}")
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_other_disk_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder cannot be written \(.*\): name another place"):
        write_atomic(tmp_path / "folder", "text")
    with pytest.raises(UserError, match=r"\. is a folder: name a file in it"):
        write_atomic(".", "text")
    with pytest.raises(UserError, match=r"/proc/x cannot be written \(.*\): name another place"):
        write_atomic("/proc/x", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_result_is_there_only_when_whole(tmp_path: Path) -> None:
    run = RunStore(tmp_path).run("abc")
    assert run.result() is None
    with run.lock():
        run.checkpoint.write_text("half way")
        run.finish({"metrics": {"test/error": 1.5}})
    assert run.result() == {"metrics": {"test/error": 1.5}, "key": "abc"}
    assert not run.checkpoint.exists()
    content = run.result_file.read_text()
    for damaged in (content[: len(content) // 2], "[]", json.dumps({"key": "another"}), "\udcff"):
        run.result_file.write_text(damaged, errors="surrogateescape")
        assert run.result() is None


def test_a_result_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "abc")
    with pytest.raises(UserError, match="run abc: a result is NaN or infinite; the run diverged"):
        run.finish({"metrics": {"loss": float("nan")}})
    assert run.result() is None


def test_the_lock_shuts_out_another_process_and_dies_with_its_holder(tmp_path: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; from shared.runs.store import RunDir\n"
        "with RunDir(Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
    )
    run = RunDir(tmp_path / "abc")
    command = [sys.executable, "-c", hold, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with run.lock(timeout=0) as held:
            assert not held
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with run.lock(timeout=0) as held:
            assert held


def test_the_holder_of_the_lock_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "abc")
    run.path.mkdir()
    (run.path / ".result.json.123.456.tmp").write_text("half a resu")
    with run.lock():
        assert [p.name for p in run.path.iterdir()] == ["run.lock"]
