"""Train from the command line: `python train.py fit --config configs/circle.yaml`; any setting can be added."""

from __future__ import annotations

from pathlib import Path

from diffusion_fields.data import Fields
from diffusion_fields.module import DiffusionField
from shared.cli import HouseCLI
from shared.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        HouseCLI(DiffusionField, Fields, paper="diffusion_fields", root=Path(__file__).resolve().parent)
