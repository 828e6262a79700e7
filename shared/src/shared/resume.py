"""Checkpoints that a killed run goes on from, to the same bits as a run left alone.

The state is taken when an epoch is about to begin: the one before it is then complete (validation, learning-rate
schedules, end-of-epoch hooks), and Lightning's progress counters are rewritten to say just that, since Lightning itself
would take the first epoch after such a restart for a finished one and skip it.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch

from shared.errors import UserError, disk_error
from shared.runs.store import write_atomic


def random_state() -> dict[str, Any]:
    """The global generators of python, numpy and torch, as plain values (they load with `weights_only=True`)."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set what `random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


class ResumeCheckpoint(L.Callback):
    """Writes `path` after an epoch, when `every_seconds` have passed since the last time; the file is always whole.

    Args:
        path: the checkpoint, replaced by one rename.
        every_seconds: least time between two checkpoints; 0 saves after every epoch.
    """

    def __init__(self, path: Path, every_seconds: float = 20.0) -> None:
        self.path, self.every_seconds = Path(path), every_seconds
        self.last = time.monotonic()
        self.restored: dict[str, Any] | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.restored is not None:
            set_random_state(self.restored)
            self.restored = None
            # Lightning made the loader's iterator before this hook, with another random state; as in a run left
            # alone, it makes it after the hook when it does not think of itself as resuming.
            trainer.fit_loop._resuming_from_checkpoint = False
        elif trainer.current_epoch > 0:
            self.save_if_due(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.save_if_due(trainer)

    def save_if_due(self, trainer: L.Trainer) -> None:
        due = time.monotonic() - self.last >= self.every_seconds
        # One clock decides for all ranks: saving is a collective operation.
        if getattr(trainer, "fast_dev_run", False) or not trainer.strategy.broadcast(due):
            return
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise disk_error(error, self.path) or error from None
        self.last = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"random": random_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict["random"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        loop = checkpoint["loops"]["fit_loop"]
        done = loop["epoch_progress"]["current"]["processed"]
        for span in ("total", "current"):
            loop["epoch_progress"][span] = dict.fromkeys(loop["epoch_progress"][span], done)
        batches = loop["epoch_loop.batch_progress"]
        batches["current"] = dict.fromkeys(batches["current"], 0)
        batches["is_last_batch"] = False


def save_state(path: Path, made_with: dict[str, Any], state: dict[str, Any]) -> None:
    """Replace a checkpoint of one's own form by one rename: whenever the process dies, the file is whole.

    Args:
        made_with: what a run has to have in common with this one to go on from it; plain values.

    Raises:
        UserError: the disk is full.
    """
    content = io.BytesIO()
    torch.save({"made with": made_with, **state}, content)
    write_atomic(path, content.getvalue())


def load_state(path: Path, made_with: dict[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `save_state` saved, of a run made with the same.

    Raises:
        UserError: a damaged file, or another run's.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        saved = state.pop("made with")
    except (RuntimeError, EOFError, KeyError, AttributeError, TypeError, pickle.UnpicklingError):
        raise UserError(f"{path} is damaged: delete it and run the same command again") from None
    other = sorted(key for key in made_with if saved.get(key) != made_with[key])
    if other:
        raise UserError(f"{path} is of a run with other {', '.join(other)}: choose another directory, or delete it")
    return state


def check_readable(path: Path) -> None:
    """Raise `UserError` when the checkpoint cannot be one (cut short by a crash of the machine, or another file)."""
    if not zipfile.is_zipfile(io.BytesIO(path.read_bytes())):
        raise UserError(f"checkpoint {path} is damaged: delete it and run the same command again")
