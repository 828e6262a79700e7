"""One thread for every test, as in a run; golden vectors by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """A golden file: what is in a .json, or the tensors of a .npz by key."""

    def load(name: str) -> Any:
        path = GOLDEN / name
        if path.suffix == ".json":
            return json.loads(path.read_text())
        with np.load(path, allow_pickle=False) as file:
            return {key: torch.from_numpy(np.array(file[key])) for key in file.files}

    return load
