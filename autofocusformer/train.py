"""Train from the command line: `python train.py fit --config configs/synthetic.yaml`; any setting can be added."""

from __future__ import annotations

from pathlib import Path

from autofocusformer.data.module import Images
from shared.cli import HouseCLI
from shared.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        HouseCLI(None, Images, paper="autofocusformer", root=Path(__file__).resolve().parent)
