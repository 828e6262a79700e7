"""A pytest plugin for files that test Triton kernels in Triton's interpreter, on the CPU; and what starts them.

The interpreter has to be chosen before triton is imported, so such a file runs in a process of its own, which
`assert_passes` starts from an ordinary test. By hand:

    KERNEL_BACKEND=interpret pytest -p shared.kernels.interpreted FILE
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from shared.kernels import backend


def run_python(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, with one thread and the backend that `env` says, whatever is set here."""
    clean = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "KERNEL_BACKEND")}
    options = {**clean, "OMP_NUM_THREADS": "1", **env}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=options, check=False)


def assert_passes(tests: Path) -> None:
    """The file's tests pass in the interpreter, each of them: there are some, and none is skipped."""
    options = ("-p", "no:randomly", "-p", "no:xdist", "-p", "shared.kernels.interpreted")
    done = run_python("-m", "pytest", *options, str(tests), KERNEL_BACKEND="interpret")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.fixture(scope="session", autouse=True)
def interpreted() -> None:
    """Kernels run in the interpreter, on one thread."""
    assert backend.BACKEND == "interpret", "start these tests with KERNEL_BACKEND=interpret"
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a result that a kernel did not write, or a sum that starts from it, shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]  # set at run time
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that are launched, in order."""
    from triton.runtime import interpreter

    names = list[str]()
    launch = interpreter.GridExecutor.__call__

    def counted(self: interpreter.GridExecutor, *args: object, **kwargs: object) -> None:
        names.append(self.fn.__name__)
        launch(self, *args, **kwargs)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", counted)
    return names
