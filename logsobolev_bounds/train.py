"""Train from the command line: `python train.py fit --config configs/digits_linear.yaml`; any setting can be added.

`--config configs/bound.yaml` behind another configuration logs a bound beside the loss.
"""

from __future__ import annotations

from pathlib import Path

from logsobolev_bounds.data import Examples
from logsobolev_bounds.module import BayesClassifier
from shared.cli import HouseCLI
from shared.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        HouseCLI(BayesClassifier, Examples, paper="logsobolev_bounds", root=Path(__file__).resolve().parent)
