"""Train from the command line: `python train.py fit --config configs/digits_linear.yaml`; any setting can be added.

`--config configs/bound.yaml` behind another configuration logs a bound beside the loss.
"""

from __future__ import annotations

import sys
from pathlib import Path

from logsobolev_bounds.data import Examples
from logsobolev_bounds.experiment import refuse_what_does_not_train
from logsobolev_bounds.module import BayesClassifier
from shared.cli import HouseCLI
from shared.errors import one_line_errors

if __name__ == "__main__":
    root = Path(__file__).resolve().parent
    with one_line_errors():
        refuse_what_does_not_train(sys.argv[1:], root)
        HouseCLI(BayesClassifier, Examples, paper="logsobolev_bounds", root=root)
