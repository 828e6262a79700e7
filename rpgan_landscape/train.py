"""Train from the command line: `python train.py fit --config configs/gaussians.yaml`; any setting can be added."""

from __future__ import annotations

from pathlib import Path

from rpgan_landscape.data import GanData
from rpgan_landscape.module import RelativisticGAN
from shared.cli import HouseCLI
from shared.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        HouseCLI(RelativisticGAN, GanData, paper="rpgan_landscape", root=Path(__file__).resolve().parent)
