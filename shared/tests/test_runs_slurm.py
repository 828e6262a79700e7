"""`--launcher slurm` against a real cluster: munge, slurmctld and slurmd on the loopback interface."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from shared.claims.results import load_results

HERE = Path(__file__).parent


def beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    helper = beside("loopback_slurm")
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:
        running = helper.loopback_slurm(Path(folder))
        try:
            configuration = running.__enter__()
        except helper.NoCluster as why:
            pytest.skip(f"no SLURM cluster here: {why}")
        try:
            yield configuration
        finally:
            running.__exit__(None, None, None)


def reproduce(toy: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(toy / "src"), "COLUMNS": "120", **environment}
    command = [sys.executable, str(toy / "reproduce.py"), *arguments]
    return subprocess.run(command, cwd=toy.parent, env=variables, capture_output=True, text=True, timeout=120)


def numbers(toy: Path) -> dict:
    experiments = load_results(toy / "results" / "quick" / "results.json").experiments
    return {name: [(run.seed, run.metrics, run.curves) for run in e.runs] for name, e in experiments.items()}


@pytest.mark.slow
def test_a_cluster_gives_the_numbers_of_local_processes(cluster: Path, tmp_path: Path) -> None:
    local, remote = (Path(shutil.copytree(HERE / "toy", tmp_path / name / "toy")) for name in ("local", "remote"))
    done = reproduce(remote, "--launcher", "slurm", "--jobs", "2", "--slurm", "partition=all", SLURM_CONF=str(cluster))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6/6" in done.stdout
    assert done.stderr == ""
    submitted = next(remote.glob("runs/slurm/*_submission.sh")).read_text()
    assert "#SBATCH --partition=all" in submitted
    assert "#SBATCH --array=0-1" in submitted
    assert reproduce(local).returncode == 0
    assert numbers(remote) == numbers(local)


@pytest.mark.slow
def test_dead_and_failed_runs_on_a_cluster(cluster: Path, tmp_path: Path) -> None:
    toy = Path(shutil.copytree(HERE / "toy", tmp_path / "toy"))
    tier = toy / "configs" / "tiers" / "quick.yaml"
    grid = "low: {model.behaviour: die once}, high: {model.behaviour: raise}"
    text = tier.read_text().replace("low: {model.gain: 0.1}, high: {model.gain: 3e-1}", grid)
    tier.write_text(text.replace("seeds: [0, 1, 2]", "seeds: [0]"))
    assert grid in tier.read_text()
    done = reproduce(toy, "--launcher", "slurm", "--jobs", "2", SLURM_CONF=str(cluster))
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.startswith("failed: gain_high, seed 0: ValueError: the toy is broken (see ")
    assert len(done.stderr.splitlines()) == 1
    assert len(numbers(toy)["gain_low"]) == 1  # killed in its first task, sent again


def test_refused_jobs(cluster: Path, tmp_path: Path) -> None:
    toy = Path(shutil.copytree(HERE / "toy", tmp_path / "toy"))
    done = reproduce(toy, "--launcher", "slurm", "--slurm", "partition=none", SLURM_CONF=str(cluster))
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]  # before it, submitit repeats sbatch's own words
    assert last.startswith("error: --launcher slurm: sbatch refused the jobs (")
    assert "invalid partition" in last


def test_no_cluster_is_one_clear_error(tmp_path: Path) -> None:
    toy = Path(shutil.copytree(HERE / "toy", tmp_path / "toy"))
    done = reproduce(toy, "--launcher", "slurm", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: --launcher slurm: Could not detect")
    done = reproduce(toy, "--launcher", "slurm", "--slurm", "partition", PATH=str(tmp_path))
    assert done.stderr == "error: --slurm: `partition` is not name=value\n"
