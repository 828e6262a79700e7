"""Train from the command line: `python train.py fit --config configs/mnist_small.yaml --model.init_args.gamma none`."""

from __future__ import annotations

import pytorch_lightning as L
from forward_forward.data import PairData
from shared.cli import HouseCLI
from shared.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        HouseCLI(L.LightningModule, PairData, paper="forward_forward", subclass_mode_model=True)
