"""Train from the command line: `python train.py fit --config configs/detector.yaml`; any setting can be added."""

from __future__ import annotations

from pathlib import Path

from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.trial import Trial
from shared.cli import HouseCLI
from shared.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        HouseCLI(Trial, SimulatedBBH, paper="mma_realtime", root=Path(__file__).resolve().parent)
