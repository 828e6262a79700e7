"""One thread for every test, as in a run; small data sets in the original formats."""

from __future__ import annotations

import struct
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


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST (IDX), CIFAR-10 and STL-10 (binary) and a folder of images, with random pixels."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for part, n in (("train", 1200), ("t10k", 100)):
        write_idx(root / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", draw.integers(0, 256, (n, 28, 28)))
        write_idx(root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", np.arange(n) % 10)
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = draw.integers(0, 256, (60, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(60) % 10
        (folder / f"{part}.bin").write_bytes(records.tobytes())
    (root / "stl10_binary").mkdir()
    for part, n in (("unlabeled", 70), ("test", 40)):
        (root / "stl10_binary" / f"{part}_X.bin").write_bytes(
            draw.integers(0, 256, (n, 3, 96, 96), dtype=np.uint8).tobytes()
        )
    (root / "tower").mkdir()
    for i in range(66):
        Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(root / "tower" / f"{i}.png")
    return root
