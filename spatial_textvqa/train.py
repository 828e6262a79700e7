"""Train from the command line: `python train.py fit --config configs/quick.yaml`; any setting can be added."""

from __future__ import annotations

from pathlib import Path

from shared.cli import HouseCLI
from shared.errors import one_line_errors
from spatial_textvqa.data.module import TextVQAData
from spatial_textvqa.module import SpatialTextVQA

if __name__ == "__main__":
    with one_line_errors():
        HouseCLI(SpatialTextVQA, TextVQAData, paper="spatial_textvqa", root=Path(__file__).resolve().parent)
