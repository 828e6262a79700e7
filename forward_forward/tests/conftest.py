"""Small data sets in the original formats, for tests that need no real data."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    magic = {3: 2051, 1: 2049}[array.ndim]
    path.write_bytes(struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST and Fashion-MNIST (IDX) and CIFAR-10 (binary) with random pixels and just more images than are held out."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for name in ("MNIST", "FashionMNIST"):
        for part, n in (("train", 10_400), ("t10k", 50)):
            write_idx(root / name / "raw" / f"{part}-images-idx3-ubyte", draw.integers(0, 256, (n, 28, 28)))
            write_idx(root / name / "raw" / f"{part}-labels-idx1-ubyte", draw.integers(0, 10, n))
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for part, n in [*((f"data_batch_{i}", 1100) for i in range(1, 6)), ("test_batch", 50)]:
        records = draw.integers(0, 256, (n, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / f"{part}.bin").write_bytes(records.tobytes())
    return root
