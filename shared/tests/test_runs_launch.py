"""Local workers: the same numbers for any number of them, and no death of a process that hangs or loses anything."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shared.errors import UserError
from shared.runs.job import Job, Outcome
from shared.runs.launch import run_jobs
from shared.runs.store import RunDir

TOY = Path(__file__).parent / "toy"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """Makes jobs of the toy paper; each has its folder under `tmp_path/runs`."""
    shutil.copytree(TOY, tmp_path / "toy")
    source = str(tmp_path / "toy" / "src")
    monkeypatch.syspath_prepend(source)  # spawned workers take over sys.path
    monkeypatch.setenv("PYTHONPATH", source)

    def make(name: str, seed: int = 0, **model: Any) -> Job:
        config = {"model": {"gain": 0.2, "work": 1, **model}, "data": {"dataset": "noise"}}
        config["trainer"] = {"max_epochs": 3}
        return Job("toy", name, seed, config, tmp_path / "runs" / f"{name}{seed}", tier="quick")

    return make


def test_jobs_end_alike_for_any_number_of_workers(job: Callable[..., Job]) -> None:
    jobs = [job("one", seed) for seed in range(3)]
    seen: list[str] = []
    alone = run_jobs(jobs, "local", 1, lambda j, outcome: seen.append(f"{j.label}: {outcome.state}"))
    assert seen == ["one, seed 0: done", "one, seed 1: done", "one, seed 2: done"]
    for each in jobs:
        shutil.rmtree(each.run_dir)
    together = run_jobs(jobs, "local", 2)
    assert together == alone
    assert len({outcome.metrics["test/sum"] for outcome in alone.values() if outcome.metrics}) == 3
    stored = RunDir(jobs[0].run_dir).result()
    assert stored is not None
    (own,) = stored["seeds"]
    assert (own["seed"], own["metrics"]) == (0, alone[jobs[0].run_dir].metrics)
    assert len(own["curves"]["curve/sum"]) == 3
    assert stored["wall_seconds"] > 0


def test_failures_and_deaths_stop_no_other_job(job: Callable[..., Job], tmp_path: Path) -> None:
    bad, dead, weak, well = (
        job("bad", behaviour="raise"), job("dead", behaviour="die"), job("weak", behaviour="die once"), job("well"),
    )  # fmt: skip
    outcomes = run_jobs([bad, dead, weak, well], "local", 2)
    assert outcomes[well.run_dir].state == "done"
    assert outcomes[weak.run_dir] == Outcome("done", metrics=outcomes[well.run_dir].metrics)
    log = bad.run_dir / "log.txt"
    assert outcomes[bad.run_dir] == Outcome("failed", f"ValueError: the toy is broken (see {log})")
    assert outcomes[dead.run_dir] == Outcome("failed", "its process died 2 times (SIGKILL: out of memory?)")
    text = log.read_text()
    assert "bad (quick)\nbehaviour: raise\n" in text
    assert "Traceback" in text
    assert RunDir(bad.run_dir).result() is None


def test_a_finished_run_is_not_made_again(job: Callable[..., Job]) -> None:
    done = job("done", behaviour="raise")
    run = RunDir(done.run_dir)
    run.finish({"seeds": [{"seed": 0, "metrics": {"test/sum": 1.0}}]})
    assert run_jobs([done], "local", 1)[done.run_dir] == Outcome("done", metrics={"test/sum": 1.0})


def test_a_full_disk_ends_everything_with_one_message(job: Callable[..., Job], tmp_path: Path) -> None:
    before = RunDir(tmp_path / "runs" / "before")
    before.finish({"metrics": {"test/sum": 1.0}})
    jobs = [job("one", seed) for seed in range(3)]
    (tmp_path / "jobs.json").write_text(json.dumps([[j.seed, j.config, str(j.run_dir)] for j in jobs]))
    code = (
        "import json, resource, sys; from pathlib import Path\n"
        "from shared.errors import one_line_errors; from shared.runs.job import Job\n"
        "from shared.runs.launch import run_jobs\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"  # a checkpoint of the toy has 18 kB
        "jobs = [Job('toy', 'one', s, c, Path(d)) for s, c, d in json.load(open(sys.argv[1]))]\n"
        "with one_line_errors(): run_jobs(jobs, 'local', 2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "jobs.json")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no space left to write ")
    assert len(done.stderr.splitlines()) == 1
    assert before.result() == {"metrics": {"test/sum": 1.0}, "key": "before"}
    assert all(RunDir(j.run_dir).result() is None for j in jobs)
    # The job that met the full disk leaves nothing half-written. Its sister is killed, wherever it then is.
    (folder,) = {j.run_dir for j in jobs if str(j.run_dir) in done.stderr}
    assert not list(folder.glob(".*.tmp"))


def test_workers_end_when_their_parent_is_killed(job: Callable[..., Job], tmp_path: Path) -> None:
    held = job("held", behaviour="hold")
    code = (
        "import json, sys; from pathlib import Path; from shared.runs.job import Job\n"
        "from shared.runs.launch import run_jobs\n"
        "config, folder = json.loads(sys.argv[1]); run_jobs([Job('toy', 'held', 0, config, Path(folder))], 'local', 1)"
    )
    command = [sys.executable, "-c", code, json.dumps([held.config, str(held.run_dir)])]
    with subprocess.Popen(command) as parent:
        wait_for(held.run_dir / "died", parent)
        with RunDir(held.run_dir).lock(timeout=0) as free:
            assert not free
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        with RunDir(held.run_dir).lock(timeout=20) as free:  # the worker held it: only its end frees it
            assert free


def wait_for(file: Path, process: subprocess.Popen) -> None:
    while not file.exists():
        assert process.poll() is None, "the parent ended by itself"


def test_a_run_that_another_process_works_on_is_waited_for_and_reused(job: Callable[..., Job], tmp_path: Path) -> None:
    shared_run, own = job("shared"), job("own")
    held = RunDir(shared_run.run_dir)
    order: list[str] = []

    def progress(ended: Job, outcome: Outcome) -> None:
        order.append(ended.experiment)
        if ended.experiment == "own":  # the other process finishes only after our own job is through
            held.finish({"seeds": [{"seed": 0, "metrics": {"test/sum": 42.0}}]})
            lock.__exit__(None, None, None)

    lock = held.lock()
    assert lock.__enter__()
    outcomes = run_jobs([shared_run, own], "local", 1, progress)
    assert order == ["own", "shared"]
    assert outcomes[shared_run.run_dir].metrics == {"test/sum": 42.0}


def test_no_worker_at_all(job: Callable[..., Job]) -> None:
    with pytest.raises(UserError, match="--jobs is 0: it has to be at least 1"):
        run_jobs([job("one")], "local", 0)
    assert run_jobs([], "local", 2) == {}


def test_a_worker_starts_with_its_own_environment_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and memory kept between steps; the parent's settings are as before."""
    from shared.runs.launch import WORKER_ENVIRONMENT, _Worker

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    worker = _Worker()
    try:
        # what the process was started with, not what it set itself; between fork and exec it is still the parent
        while b"spawn_main" not in Path(f"/proc/{worker.process.pid}/cmdline").read_bytes():
            assert worker.process.is_alive()
        raw = Path(f"/proc/{worker.process.pid}/environ").read_bytes().split(b"\0")
        found = dict(entry.decode().split("=", 1) for entry in raw if b"=" in entry)
        assert {name: found[name] for name in WORKER_ENVIRONMENT} == WORKER_ENVIRONMENT
        assert os.environ["OMP_NUM_THREADS"] == "7"
        assert "MALLOC_TRIM_THRESHOLD_" not in os.environ
    finally:
        worker.stop()
