"""A small network that uses everything a resumed run can get wrong; `python toy_training.py DIR` dies in mid-epoch.

Two optimisers in manual optimisation, a schedule each, draws from the global generators of torch, numpy and python in
the step and in the epoch hook, and a loader that shuffles.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytorch_lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

CONFIG = {
    "trainer": {"max_epochs": 6, "accelerator": "cpu", "log_every_n_steps": 1},
    "model": {"width": 3},
    "data": {"rows": 20},
}


class TwoLayers(L.LightningModule):
    """Each layer has its own optimiser and schedule."""

    def __init__(self, width: int = 3, lr: float = 0.1, die_at: int | None = None) -> None:
        super().__init__()
        if lr <= 0:
            raise ValueError(f"lr is {lr}: it has to be positive")
        self.automatic_optimization = False
        self.layers = torch.nn.ModuleList([torch.nn.Linear(2, width), torch.nn.Linear(width, 1)])
        self.lr, self.die_at = lr, die_at
        self.shift = 0.0
        self.epochs_seen: list[int] = []

    def configure_optimizers(self) -> tuple[list, list]:
        optimisers = [torch.optim.Adam(layer.parameters(), lr=self.lr) for layer in self.layers]
        return optimisers, [torch.optim.lr_scheduler.StepLR(o, 2, 0.5) for o in optimisers]

    def on_train_epoch_start(self) -> None:
        self.epochs_seen.append(self.current_epoch)
        self.shift = float(torch.rand(())) + float(np.random.rand()) + random.random()  # noqa: NPY002

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        if self.die_at == self.global_step // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        (x,) = batch
        hidden = torch.nn.functional.dropout(self.layers[0](x).relu(), 0.2)
        loss = (self.layers[1](hidden) - self.shift).square().mean()
        for optimiser in self.optimizers():
            optimiser.zero_grad()
        self.manual_backward(loss)
        for optimiser in self.optimizers():
            optimiser.step()
        self.log("train/loss", loss)

    def on_train_epoch_end(self) -> None:
        for schedule in self.lr_schedulers():
            schedule.step()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.layers[1](self.layers[0](batch[0]).relu()).square().mean())

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test/loss", self.layers[1](self.layers[0](batch[0]).relu()).square().mean())

    def state(self) -> list[float]:
        """Every weight, then every learning rate."""
        weights = torch.cat([p.detach().flatten() for p in self.parameters()]).tolist()
        return weights + [group["lr"] for o in self.trainer.optimizers for group in o.param_groups]


class WithResults(TwoLayers):
    def results(self) -> dict[str, float | list[float]]:
        return {"state": self.state(), "epochs": [float(e) for e in self.epochs_seen]}


class Rows(L.LightningDataModule):
    def __init__(self, rows: int = 20) -> None:
        super().__init__()
        self.rows = TensorDataset(torch.linspace(-1, 1, 2 * rows).reshape(rows, 2))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.rows, batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.rows, batch_size=20)

    test_dataloader = val_dataloader


if __name__ == "__main__":
    from shared.cli import HouseCLI, train_and_test
    from shared.errors import one_line_errors

    if sys.argv[1] == "die":  # in the fourth epoch, at its third step
        config = {**CONFIG, "model": {"width": 3, "die_at": 17}}
        train_and_test(WithResults, Rows, config, 7, Path(sys.argv[2]), "toy", "killed", "quick", every_seconds=0)
    else:
        with one_line_errors():
            HouseCLI(WithResults, Rows, paper="toy", root=os.environ["TOY_ROOT"])
