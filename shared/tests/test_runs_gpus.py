"""How many runs share the GPUs of a machine; the GPUs are made up, the processes are real."""

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shared.runs import gpus
from shared.runs.job import Job, cores
from shared.runs.launch import run_jobs

TOY = Path(__file__).parent / "toy"


@pytest.mark.parametrize(
    ("config", "takes"),
    [
        ({"trainer": {"accelerator": "cpu"}, "data": {"device": "cpu"}}, False),
        ({"trainer": {"max_epochs": 3}}, True),  # Lightning takes a GPU where there is one
        ({"trainer": {"accelerator": "gpu"}}, True),
        ({"trainer": {}}, True),
        ({"model": {"width": 3}}, False),  # an enumeration, which trains nothing
        ({"trainer": None}, False),
        ({"prior": {"net": {"device": "cuda"}}}, True),
        ({"prior": {"device": "cuda:1"}, "trainer": {"accelerator": "cpu"}}, True),
        ({"prior": {"note": "cuda"}}, False),
    ],
)
def test_which_configurations_take_a_gpu(config: dict[str, Any], takes: bool) -> None:
    assert gpus.takes_gpu(config) is takes


GPU, CPU = {"trainer": {"max_epochs": 3}}, {"trainer": {"accelerator": "cpu"}}
ONE, TWO, ALL = ({"trainer": {"devices": devices}} for devices in (1, 2, "auto"))


@pytest.mark.parametrize(
    ("configs", "asked", "launcher", "runs", "names"),
    [
        ([GPU, GPU, CPU], None, "local", 3, ["0", "1", "5"]),
        ([ONE], None, "local", 3, ["0", "1", "5"]),
        ([GPU], 7, "local", 7, ["0", "1", "5"]),
        ([GPU], 0, "local", 0, ["0", "1", "5"]),  # refused by the launcher
        ([CPU], None, "local", cores(), []),
        ([CPU], 5, "local", 5, []),
        ([], None, "local", cores(), []),
        ([GPU], None, "slurm", cores(), []),  # the cluster deals out its own
        ([GPU, TWO], None, "local", 1, []),  # a run on several GPUs has all of them, so one at a time
        ([ALL], None, "local", 1, []),
        ([TWO], 2, "local", 2, []),
    ],
)
def test_runs_at_a_time_and_their_gpus(
    monkeypatch: pytest.MonkeyPatch, configs: list, asked: int | None, launcher: Any, runs: int, names: list[str]
) -> None:
    monkeypatch.setattr(gpus, "visible", lambda: ["0", "1", "5"])
    assert gpus.share(configs, asked, launcher) == (runs, names)


def test_without_a_gpu_there_is_a_run_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "visible", list)
    assert gpus.share([GPU, TWO], None, "local") == (cores(), [])


@pytest.mark.parametrize(
    ("setting", "count", "names"),
    [(None, 2, ["0", "1"]), ("3, GPU-8a,9", 2, ["3", "GPU-8a"]), ("", 0, []), (None, 0, [])],
)
def test_visible_gpus(monkeypatch: pytest.MonkeyPatch, setting: str | None, count: int, names: list[str]) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert gpus.visible() == names


def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert gpus.visible() == []


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Runs toy jobs of these behaviours; what the processes of each found in CUDA_VISIBLE_DEVICES."""
    shutil.copytree(TOY, tmp_path / "toy")
    source = str(tmp_path / "toy" / "src")
    monkeypatch.syspath_prepend(source)  # spawned workers take over sys.path
    monkeypatch.setenv("PYTHONPATH", source)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "8,9")

    def run(behaviours: list[str], workers: int, names: list[str]) -> list[list[str]]:
        jobs = []
        for number, behaviour in enumerate(behaviours):
            config = {"model": {"gain": 0.2, "work": 1, "behaviour": behaviour}, "trainer": {"max_epochs": 1}}
            jobs.append(Job("toy", "one", number, config, tmp_path / "runs" / str(number)))
        run_jobs(jobs, "local", workers, gpus=names)
        logs = [(job.run_dir / "log.txt").read_text().splitlines() for job in jobs]
        return [[line.removeprefix("GPUs: ") for line in log if line.startswith("GPUs: ")] for log in logs]

    return run


def test_workers_are_dealt_one_gpu_each(seen: Callable[..., list[list[str]]]) -> None:
    assert seen(["well"] * 3, 3, ["8", "GPU-9f"]) == [["8"], ["GPU-9f"], ["8"]]


def test_a_worker_in_place_of_a_dead_one_has_its_gpu(seen: Callable[..., list[list[str]]]) -> None:
    assert seen(["die once"], 1, ["8", "9"]) == [["8", "8"]]


def test_workers_that_are_dealt_none_see_what_the_command_sees(seen: Callable[..., list[list[str]]]) -> None:
    assert seen(["well"], 1, []) == [["8,9"]]
