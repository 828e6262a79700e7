"""One experiment run, as the launcher calls it: configuration and seed in, metrics out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.data.images import load_images


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    """(hash of the contents, `real` or `embedded`, what it is) of the data that `config` trains on."""
    root = config["data"].get("root")
    data = load_images(config["data"]["dataset"], Path(root) if root else None)
    return data.fingerprint, data.kind, data.detail


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "run", tier: str = "fit") -> dict[str, Any]:
    """Train and test; resumes from the run's last checkpoint."""
    from shared.cli import train_and_test

    from autofocusformer.data import Images
    from autofocusformer.module import Classifier

    return train_and_test(
        Classifier, Images, config, seed, run_dir, paper="autofocusformer", experiment=experiment, tier=tier
    )
