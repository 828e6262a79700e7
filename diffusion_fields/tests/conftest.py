"""One thread for every test, as in a run; small data sets in the original formats."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    magic = {3: 2051, 1: 2049}[array.ndim]
    path.write_bytes(struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.astype(np.uint8).tobytes())


def topography(path: Path, degree: int) -> np.ndarray:
    """Columns l m C S as in the real file, C with a monopole; returns [l, m, (C, S)]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).normal(size=(degree + 1, degree + 1, 2)) * 300
    values[:, 0, 1] = 0
    values[0, 0, 0] = -2382.75
    lines = [
        f"{l:4d}{m:3d} {values[l, m, 0]:.15g} {values[l, m, 1]:.15E}" for l in range(degree + 1) for m in range(l + 1)
    ]
    path.write_text("\n".join(lines) + "\n")
    return values


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST and Fashion-MNIST (IDX), CIFAR-10 (binary), a folder of images and a planet, with random numbers."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for folder in ("MNIST", "FashionMNIST"):
        for part, n in (("train", 70), ("t10k", 30)):
            write_idx(root / folder / "raw" / f"{part}-images-idx3-ubyte", draw.integers(0, 256, (n, 28, 28)))
            write_idx(root / folder / "raw" / f"{part}-labels-idx1-ubyte", np.arange(n) % 10)
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = draw.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(20) % 10
        (folder / f"{part}.bin").write_bytes(records.tobytes())
    (root / "faces").mkdir()
    for i in range(20):
        Image.fromarray(draw.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(root / "faces" / f"{i}.png")
    topography(root / "topography" / "srtmp300.msl", 12)
    return root


@pytest.fixture
def write_topography() -> Callable[[Path, int], np.ndarray]:
    return topography
