"""One job: one seed of an experiment, or all of them together, in whichever process or node the launcher chose."""

from __future__ import annotations

import errno
import importlib
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from shared.errors import UserError, disk_error
from shared.runs.key import installed
from shared.runs.store import RunDir, write_atomic


@dataclass(frozen=True)
class Job:
    """What `<paper>.experiment.run(config, seed, run_dir, experiment, tier)` is called with; `dry`: nothing is kept.

    Seeds that train as one program are one job: then it is `run_together(config, seeds, run_dir, experiment, tier)`,
    which returns the metrics of each seed.
    """

    paper: str
    experiment: str
    seed: int | tuple[int, ...]
    config: dict[str, Any]
    run_dir: Path
    dry: bool = False
    tier: str = "fit"

    @property
    def label(self) -> str:
        if isinstance(self.seed, int):
            return f"{self.experiment}, seed {self.seed}"
        return f"{self.experiment}, {len(self.seed)} seeds"


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `busy`: another process holds its run; `full`: no space left, so no other job can end well."""

    state: Literal["done", "failed", "full", "busy"]
    message: str = ""
    metrics: dict[str, float] | None = None


def no_space(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error; torch's own file writer says so only in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if isinstance(error, RuntimeError) and "failed writing file" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@cache
def commit() -> str:
    """The commit of the code that runs, `+` behind it where the working tree differs from it."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        # What a command writes itself (results, tables) does not make the code another one.
        changed = git("status", "--porcelain", "--", ":/", ":(exclude,top)*/results/*", ":(exclude,top)*.md")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def machine() -> str:
    """Processor and number of cores, as the report states them."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {cores()} cores"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    names = ("torch", "numpy", "pytorch-lightning", "triton")
    return {"python": platform.python_version(), **{name: installed(name) for name in names}}


def device(config: dict[str, Any]) -> str:
    import torch

    trainer = config.get("trainer") or {}
    if torch.cuda.is_available() and trainer.get("accelerator", "auto") != "cpu":
        return torch.cuda.get_device_name()
    return "cpu"


def split(values: dict[str, Any], key: str) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Numbers and curves of what an experiment returned."""
    metrics: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    for name, value in values.items():
        if isinstance(value, list | tuple):
            curves[name] = [float(v) for v in value]
        else:
            metrics[name] = float(value)
    if not metrics:
        raise UserError(f"run {key}: the experiment returned no metric")
    return metrics, curves


def average(runs: Iterable[tuple[dict[str, float], Any]]) -> dict[str, float]:
    """Mean over seeds of each metric that all of them have: what the progress line shows."""
    metrics = [metrics for metrics, _ in runs]
    return {name: fmean(m[name] for m in metrics) for name in metrics[0] if all(name in m for m in metrics)}


def metrics_of(result: dict[str, Any]) -> dict[str, float]:
    """Of a stored result, over its seeds."""
    return average((each["metrics"], None) for each in result["seeds"])


class _Clock:
    """Seconds of work over all legs of a run: a leg that was killed counts up to its last checkpoint."""

    def __init__(self, run: RunDir) -> None:
        self.file = run.path / "clock.json"
        self.before = 0.0
        try:
            last = json.loads(self.file.read_bytes())
            self.before = last["before"] + max(0.0, run.checkpoint.stat().st_mtime - last["started"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self.started = time.time()
        write_atomic(self.file, json.dumps({"before": self.before, "started": self.started}))

    def seconds(self) -> float:
        return self.before + time.time() - self.started


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send what this process and the libraries below it print to `path`."""
    kept = os.dup(1), os.dup(2)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        for number, old in zip((1, 2), kept):
            os.dup2(old, number)
            os.close(old)


def _run(job: Job, run: RunDir) -> dict[str, float]:
    experiment = importlib.import_module(f"{job.paper}.experiment")
    clock = _Clock(run)
    about = (job.run_dir, job.experiment, job.tier)
    if isinstance(job.seed, int):
        by_seed = {job.seed: split(experiment.run(job.config, job.seed, *about), run.key)}
    else:
        found = experiment.run_together(job.config, list(job.seed), *about)
        by_seed = {seed: split(found[seed], run.key) for seed in job.seed}
    if not job.dry:
        run.finish(
            {
                "experiment": job.experiment,
                "seeds": [
                    {"seed": seed, "metrics": metrics, "curves": curves} for seed, (metrics, curves) in by_seed.items()
                ],
                "wall_seconds": round(clock.seconds(), 3),
                "device": device(job.config),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "commit": commit(),
                "versions": versions(),
            }
        )
    return average(by_seed.values())


def execute(job: Job, wait: bool) -> Outcome:
    """Run a job under its lock, unless its result is there; with `wait`, wait for a process that works on it."""
    run = RunDir(job.run_dir)
    try:
        with run.lock(-1 if wait else 0) as held:
            if not held:
                return Outcome("busy")
            found = run.result()
            if found is not None:
                return Outcome("done", metrics=metrics_of(found))
            log = job.run_dir / "log.txt"
            with output_to(log):
                try:
                    return Outcome("done", metrics=_run(job, run))
                except BaseException:
                    traceback.print_exc()
                    raise
    except Exception as error:
        if no_space(error):
            full = disk_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), job.run_dir)
            return Outcome("full", str(full))
        if isinstance(error, UserError):
            return Outcome("failed", str(error))
        return Outcome("failed", f"{type(error).__name__}: {error} (see {job.run_dir / 'log.txt'})")
