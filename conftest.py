"""What every project's tests need before they start."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Imported before its tests: the projects' folders bear the same names and would shadow them as namespaces.
for source in sorted(Path(__file__).parent.glob("*/src/*/__init__.py")):
    importlib.import_module(source.parent.name)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Restores the environment and the number of threads, which Lightning's process launchers set for good.

    With `LOCAL_RANK` left behind, a later test's command of two processes takes itself for one that was launched, and
    waits for the other. Where W&B's own process listens is never put back: a fixture of many tests may have started it,
    and the test may have ended it.
    """
    environment, threads = os.environ.copy(), torch.get_num_threads()
    environment.pop("WANDB_SERVICE", None)
    yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():  # metrics would gather from a group
        torch.distributed.destroy_process_group()
    torch.set_num_threads(threads)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
