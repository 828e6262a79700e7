"""One thread for every test, as in a run; golden vectors; small data sets in the original formats."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, torch.Tensor]]:
    """A golden file as float64 (and integer) tensors by key."""

    def load(name: str) -> dict[str, torch.Tensor]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
            values = {key: torch.from_numpy(np.array(file[key])) for key in file.files}
        return {key: v.double() if v.is_floating_point() else v for key, v in values.items()}

    return load


@pytest.fixture(scope="session")
def loaded() -> Callable[[dict[str, torch.Tensor], str, torch.nn.Module], torch.nn.Module]:
    """A network with the state that a golden file has under a prefix, in float64."""

    def load(values: dict[str, torch.Tensor], prefix: str, net: torch.nn.Module) -> torch.nn.Module:
        net.double().load_state_dict({k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)})
        return net.train()

    return load


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    magic = {3: 2051, 1: 2049}[array.ndim]
    path.write_bytes(struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST (IDX), CIFAR-10 and CIFAR-100 (binary) and class folders, with random pixels."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for part, n in (("train", 700), ("t10k", 150)):
        write_idx(root / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", draw.integers(0, 256, (n, 28, 28)))
        write_idx(root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", np.arange(n) % 10)
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = draw.integers(0, 256, (60, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(60) % 10
        (folder / f"{part}.bin").write_bytes(records.tobytes())
    folder = root / "cifar-100-binary"
    folder.mkdir()
    for part, n in (("train", 300), ("test", 100)):
        records = draw.integers(0, 256, (n, 3074), dtype=np.uint8)
        records[:, 0], records[:, 1] = np.arange(n) % 20, np.arange(n) % 100
        (folder / f"{part}.bin").write_bytes(records.tobytes())
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / "pets" / part / name).mkdir(parents=True)
            for i in range(5):
                pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "pets" / part / name / f"{name}{i}.png")
    return root
