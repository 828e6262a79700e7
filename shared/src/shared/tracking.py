"""Weights & Biases for every run, and quiet for the runs nobody watches."""

from __future__ import annotations

import logging
import netrc
import os
import sys
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from pytorch_lightning.loggers import WandbLogger
from wandb.sdk.mailbox.mailbox_handle import ServerResponseError

LIGHTNING_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")


def wandb_key_configured() -> bool:
    """Whether W&B would find a key: WANDB_API_KEY, or an entry for its host in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or "api.wandb.ai"
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def house_logger(run_dir: Path, paper: str, experiment: str, tier: str, config: dict[str, Any]) -> WandbLogger:
    """The run's W&B logger, in `run_dir`/wandb: project = paper, group = experiment, job type = tier.

    Offline unless a key is configured (WANDB_MODE overrides); falls back to offline when the server does not answer.
    Everything that W&B collects about the machine is off: it costs seconds a run, and results.json says it already.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        init_timeout=20,
    )
    about: dict[str, Any] = {
        "project": paper,
        "group": experiment,
        "job_type": tier,
        "tags": [paper, tier],
        "name": f"{experiment}-seed{config.get('seed_everything', 0)}",
        "id": run_dir.name,  # a resumed run goes on under its own id
        "save_dir": str(run_dir),
        "config": config,
        "settings": settings,
    }
    chosen = os.environ.get("WANDB_MODE")
    if chosen not in ("offline", "dryrun") and (chosen is not None or wandb_key_configured()):
        try:
            return _started(about)
        except wandb.Error as error:  # no answer, a bad key, no such project: a run is worth more than its log
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"W&B does not answer ({first}): logging offline, see `make dashboard`", file=sys.stderr)
    return _started({**about, "mode": "offline"})


def finish(exit_code: int = 0) -> None:
    """End this process's W&B run, if it has one; when this returns, the log is whole on the disk.

    `wandb.finish` alone returns while W&B's own process still writes, and a run that is left open takes in the next.

    Args:
        exit_code: 0 for a run that ended well; another for one that W&B should show as failed.
    """
    wandb.finish(exit_code)
    wandb.teardown()


class _Logger(WandbLogger):
    """Lightning passes `anonymous`, which W&B has dropped and warns about."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._wandb_init.pop("anonymous", None)


def _started(about: dict[str, Any]) -> WandbLogger:
    """A logger whose run has begun: a failure can be answered here, and not at the first metric."""
    try:
        logger = _Logger(**about)
        _ = logger.experiment
    except ServerResponseError:  # W&B's service still holds the id for a process that was killed
        logger = _Logger(**{**about, "id": f"{about['id']}-{uuid.uuid4().hex[:6]}"})
        _ = logger.experiment
    return logger


@contextmanager
def silence() -> Iterator[None]:
    """Nothing from Lightning on the terminal: no tips, no device lines, no advice about loaders and intervals."""
    loggers = [logging.getLogger(name) for name in LIGHTNING_LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torchmetrics)\b")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
