"""Starting jobs: in processes of this machine, or on a SLURM cluster through submitit.

Jobs are independent and their state is in their folders, so either launcher may be killed at any moment and started
again. A job whose process died is tried once more; one that fails does not stop the others.
"""

from __future__ import annotations

import gc
import getpass
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Literal

from shared.errors import UserError
from shared.runs.job import Job, Outcome, execute, metrics_of
from shared.runs.store import RunDir

Launcher = Literal["local", "slurm"]
Progress = Callable[[Job, Outcome], None]
# What a worker starts with. glibc gives large freed blocks back to the system, which then has to clear them again for
# the next step: kept, small networks on a CPU train about a twentieth faster, with the same bits.
WORKER_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    **dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(10**9)),
}
TRIES = 2  # a job whose process died is started once more
POLL_SECONDS = 2.0  # between two looks at a cluster's queue
ABSENT_POLLS = 3  # a task is lost when so many looks in a row do not find it


@dataclass
class _Ledger:
    """What is to do and how it ended; a disk without space ends everything."""

    waiting: deque[tuple[Job, bool]]
    progress: Progress
    outcomes: dict[Path, Outcome] = field(default_factory=dict)
    deaths: dict[Path, int] = field(default_factory=dict)

    def ended(self, job: Job, outcome: Outcome) -> None:
        if outcome.state == "full":
            raise UserError(outcome.message)
        if outcome.state == "busy":
            self.waiting.append((job, True))  # last, and then wait for whoever has it
            return
        self.outcomes[job.run_dir] = outcome
        self.progress(job, outcome)

    def died(self, job: Job, how: str) -> None:
        self.deaths[job.run_dir] = self.deaths.get(job.run_dir, 0) + 1
        if self.deaths[job.run_dir] < TRIES:
            self.waiting.append((job, True))
        else:
            self.ended(job, Outcome("failed", f"its process died {TRIES} times ({how})"))


def run_jobs(
    jobs: Sequence[Job],
    launcher: Launcher,
    workers: int,
    progress: Progress = lambda job, outcome: None,
    slurm: dict[str, Any] | None = None,
    gpus: Sequence[str] = (),
) -> dict[Path, Outcome]:
    """Bring every job to its end; `progress` is called as each ends. Returns outcomes by run folder.

    Local workers are dealt the `gpus` in turn, and each sees only its own; without any it sees what this process does.

    Raises:
        UserError: no space left on the disk; the launcher cannot start.
    """
    if workers < 1:
        raise UserError(f"--jobs is {workers}: it has to be at least 1")
    ledger = _Ledger(deque((job, False) for job in jobs), progress)
    if launcher == "slurm":
        _run_slurm(ledger, workers, slurm or {})
    else:
        _run_local(ledger, min(workers, len(jobs)), gpus)
    return ledger.outcomes


# Local processes ------------------------------------------------------------------------------------------------


def _die_with_parent() -> None:
    """End this process when its parent is gone, even by SIGKILL: the pipe that the parent held open closes then."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(pipe: Connection) -> None:
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it ends its workers
    import torch

    torch.set_num_threads(1)  # as many threads for any --jobs: sums are added in one order
    while True:
        try:
            job, patient = pipe.recv()
        except EOFError:
            return
        pipe.send(execute(job, patient))
        gc.collect()  # a trainer and its module refer to each other: freed only by a collection, before the next run


class _Worker:
    """A process that does one job after another. It sees this `gpu` only; for None, all that this process sees."""

    def __init__(self, gpu: str | None = None) -> None:
        self.gpu = gpu
        environment = WORKER_ENVIRONMENT if gpu is None else {**WORKER_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": gpu}
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(other,), daemon=False)
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)  # read when the process starts and torch is loaded
        try:
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        other.close()
        self.job: Job | None = None

    def give(self, job: Job, patient: bool) -> None:
        self.job = job
        with suppress(OSError):  # it died: reading from the closed pipe says so
            self.pipe.send((job, patient))

    def stop(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _run_local(ledger: _Ledger, workers: int, gpus: Sequence[str]) -> None:
    crew: list[_Worker] = []
    seats = [gpus[seat % len(gpus)] if gpus else None for seat in range(workers)]  # the free ones, by their GPU
    try:
        while ledger.waiting or any(worker.job for worker in crew):
            for worker in crew:
                if worker.job is None and ledger.waiting:
                    worker.give(*ledger.waiting.popleft())
            while ledger.waiting and seats:
                crew.append(_Worker(seats.pop(0)))
                crew[-1].give(*ledger.waiting.popleft())
            busy = {worker.pipe: worker for worker in crew if worker.job}
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                job, worker.job = worker.job, None
                assert job is not None
                try:
                    outcome = worker.pipe.recv()
                except (EOFError, OSError):
                    crew.remove(worker)
                    seats.append(worker.gpu)
                    worker.process.join()
                    worker.pipe.close()
                    ledger.died(job, _how(worker.process.exitcode))
                else:
                    ledger.ended(job, outcome)
    finally:
        for worker in crew:
            worker.stop()


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"{name}: out of memory?" if name == "SIGKILL" else name
    return f"exit status {exitcode}"


# SLURM ----------------------------------------------------------------------------------------------------------


class _Chunk:
    """The jobs of one task of the array. Preempted or out of time, it is queued again and goes on from checkpoints."""

    def __call__(self, jobs: list[Job]) -> dict[Path, Outcome]:
        import torch

        torch.set_num_threads(1)
        return {job.run_dir: execute(job, wait=True) for job in jobs}

    def checkpoint(self, jobs: list[Job]) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, jobs)


class _Task:
    """A task of the array, the jobs in it that have not ended, and for how long the queue has not known it."""

    def __init__(self, task: Any, jobs: list[Job]) -> None:
        self.task, self.chunk = task, jobs
        self.absent = 0

    def poll(self, ledger: _Ledger, queue: set[str] | None) -> bool:
        """Report the jobs that have ended, failed or lost their process; whether the task is over.

        What the runs' folders and the task's own result say counts; the queue is asked only whether there is still
        hope (accounting, on which submitit relies to see a dead task, is not on every cluster).
        """
        unfinished = []
        over = Path(self.task.paths.result_pickle).exists()
        self.absent = 0 if queue is None or self.task.job_id in queue else self.absent + 1
        for job in self.chunk:
            found = RunDir(job.run_dir).result()
            if found is None:
                unfinished.append(job)
            else:
                ledger.ended(job, Outcome("done", metrics=metrics_of(found)))
        self.chunk = unfinished
        if over:
            try:
                outcomes: dict[Path, Outcome] = self.task.result()
            except Exception as error:
                why = f"SLURM task {self.task.job_id}: {[*str(error).strip().splitlines(), type(error).__name__][-1]}"
                for job in self.chunk:
                    ledger.died(job, why)
            else:
                for job in self.chunk:
                    ledger.ended(job, outcomes[job.run_dir])
        elif self.absent >= ABSENT_POLLS:
            for job in self.chunk:
                ledger.died(job, f"SLURM task {self.task.job_id} left the queue without a result")
        return over or self.absent >= ABSENT_POLLS or not self.chunk


def _queue() -> set[str] | None:
    """Ids of this user's jobs that wait or run; None while the controller does not answer."""
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%F_%K"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return {line.strip().removesuffix("_N/A") for line in answer.splitlines()}


def _run_slurm(ledger: _Ledger, workers: int, settings: dict[str, Any]) -> None:
    if not ledger.waiting:
        return
    import submitit

    first = ledger.waiting[0][0]
    try:
        executor = submitit.AutoExecutor(folder=first.run_dir.parent / "slurm", cluster="slurm")
        executor.update_parameters(**{"name": first.paper, "cpus_per_task": 1, "timeout_min": 60, **settings})
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise UserError(f"--launcher slurm: {' '.join(str(error).split())}") from None
    while ledger.waiting:
        jobs = [job for job, _ in ledger.waiting]
        ledger.waiting.clear()
        chunks = [jobs[start::workers] for start in range(min(workers, len(jobs)))]
        try:
            tasks = [_Task(*pair) for pair in zip(executor.map_array(_Chunk(), chunks), chunks)]
        except submitit.core.utils.FailedJobError as error:
            raise UserError(f"--launcher slurm: sbatch refused the jobs ({' '.join(str(error).split())})") from None
        while tasks:
            time.sleep(POLL_SECONDS)
            queue = _queue()
            tasks = [task for task in tasks if not task.poll(ledger, queue)]
