"""One experiment run, as the launcher calls it: configuration and seed in, metrics out."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from shared.data.images import load_images


@lru_cache(maxsize=4)
def _described(dataset: str, root: str | None) -> tuple[str, str, str]:
    data = load_images(dataset, Path(root) if root else None)
    return data.fingerprint, data.kind, data.detail


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    """(hash of the contents, `real` or `embedded`, what it is) of the data that `config` trains on."""
    return _described(config["data"]["dataset"], config["data"].get("root"))


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "run", tier: str = "fit") -> dict[str, Any]:
    """Train and test; resumes from the run's last checkpoint. Metrics by name, curves as lists over epochs."""
    from shared.cli import train_and_test

    from forward_forward.data import PairData

    return train_and_test(
        None, PairData, config, seed, run_dir, paper="forward_forward", experiment=experiment, tier=tier
    )
