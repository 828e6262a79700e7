"""What forward-forward and the backprop baselines share: data, evaluation, logging, results."""

from __future__ import annotations

import time
from typing import Any, Literal

import pytorch_lightning as L
import torch
from shared.errors import UserError
from torch import Tensor

from forward_forward.data import PairData

Decay = Literal["constant", "second_half"]


def gain(decay: Decay, epoch: int, epochs: int) -> float:
    """Step-size factor at `epoch` (from 0) of `epochs`: 1 up to half of them, then `(1 + 2 (E - e)) / E`."""
    if decay == "constant" or epoch < epochs / 2:
        return 1.0
    return min(1.0, (1 + 2 * (epochs - epoch)) / epochs)


def check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} is {value}: it has to be > 0")


class PairModule(L.LightningModule):
    """What forward-forward and the backprop baselines share: data, evaluation, logging, results."""

    def __init__(self, hidden: list[int], decay: Decay) -> None:
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise UserError(f"hidden is {hidden}: name the width of each layer, all at least 1")
        self.hidden, self.decay = hidden, decay
        self.automatic_optimization = False
        self.final: dict[str, float] = {}
        self.curves: dict[str, list[float]] = {}

    @property
    def pair_data(self) -> PairData:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def layer_epochs(self) -> int:
        return int(self.trainer.max_epochs or 1)

    def set_step_size(self, epoch: int, epochs: int) -> None:
        factor = gain(self.decay, epoch, epochs)
        for optimiser in self.all_optimisers():
            for group in optimiser.param_groups:
                rate = group.setdefault("base_lr", float(group["lr"])) * factor
                if isinstance(group["lr"], Tensor):  # a captured step reads it where it is
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def all_optimisers(self) -> list[Any]:
        optimisers = self.optimizers()
        return optimisers if isinstance(optimisers, list) else [optimisers]

    def on_fit_start(self) -> None:
        self.pair_data.to_device(self.device)

    def on_test_start(self) -> None:
        self.pair_data.to_device(self.device)

    def on_train_epoch_start(self) -> None:
        self._started = time.perf_counter()
        self.set_step_size(self.current_epoch, self.layer_epochs)

    def on_train_epoch_end(self) -> None:
        self.log("train/seconds_per_epoch", time.perf_counter() - self._started)

    def report(self, split: str, values: dict[str, Any], curve: bool) -> None:
        numbers = {f"{split}/{name}": float(value) for name, value in values.items()}
        if curve:
            for name, value in numbers.items():
                self.curves.setdefault(name, []).append(value)
        else:
            self.final.update(numbers)
        self.log_dict(numbers)

    def results(self) -> dict[str, Any]:
        """Final metrics by name, and a list over epochs for those that were followed."""
        return {**self.final, **{f"curve/{name}": values for name, values in self.curves.items()}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["curves"] = self.curves

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.curves = checkpoint["curves"]

    def sum_over_processes(self, value: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(value, reduce_op="sum") if self.trainer.world_size > 1 else value

    def split_names(self, test: bool) -> list[str]:
        return ["test", "val"] if test else [self.pair_data.validation_name]

    # Evaluation: the same steps for validation (followed over epochs) and test (once, at the end).
    def on_validation_epoch_start(self) -> None:
        self._metrics: dict[str, Any] = {}
        self._speed: dict[str, tuple[int, float]] = {}

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int, dataloader_idx: int = 0) -> None:
        self.timed_evaluation(batch, self.split_names(False)[dataloader_idx])

    def test_step(self, batch: tuple[Tensor, Tensor], index: int, dataloader_idx: int = 0) -> None:
        self.timed_evaluation(batch, self.split_names(True)[dataloader_idx])

    def timed_evaluation(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        started = time.perf_counter()
        self.evaluate(batch, split)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        images, seconds = self._speed.get(split, (0, 0.0))
        self._speed[split] = (images + len(batch[1]), seconds + time.perf_counter() - started)

    def evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        raise TypeError("a PairModule states how it evaluates a batch")

    def on_validation_epoch_end(self) -> None:
        for split, values in self.computed().items():
            self.report(split, values, curve=not self.trainer.sanity_checking)
        self.log_speed()

    def on_test_epoch_end(self) -> None:
        for split, values in self.computed().items():
            self.report(split, values, curve=False)
        self.log_speed()

    def log_speed(self) -> None:
        """Logged, not among the results: a run made twice has the same results."""
        for split, (images, seconds) in self._speed.items():
            self.log(f"{split}/images_per_second", images / seconds)

    def computed(self) -> dict[str, dict[str, Any]]:
        return {split: metric.compute() for split, metric in self._metrics.items()}
