"""Train from the command line: `python train.py fit --config configs/mnist_small.yaml`; any setting can be added."""

from __future__ import annotations

from pathlib import Path

from forward_forward.data import PairData
from shared.cli import HouseCLI
from shared.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        HouseCLI(None, PairData, paper="forward_forward", root=Path(__file__).resolve().parent)
