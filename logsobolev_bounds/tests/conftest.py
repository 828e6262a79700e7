"""One thread for every test, as in a run; golden vectors by name; small data sets in their original formats."""

from __future__ import annotations

import json
import struct
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


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    magic = {3: 2051, 1: 2049}[array.ndim]
    path.write_bytes(struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for folder in ("MNIST", "FashionMNIST"):
        for part, n in (("train", 300), ("t10k", 100)):
            write_idx(root / folder / "raw" / f"{part}-images-idx3-ubyte", draw.integers(0, 256, (n, 28, 28)))
            write_idx(root / folder / "raw" / f"{part}-labels-idx1-ubyte", np.arange(n) % 10)
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = draw.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(20) % 10
        (folder / f"{part}.bin").write_bytes(records.tobytes())
    return root
