"""One experiment run, as the launcher calls it: configuration and seed in, metrics out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from shared.data.root import data_root
from shared.errors import UserError


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    """(hash of the contents, kind, what it is) of the data that `config` trains on.

    Scenes are drawn by the code, which is in the run's key.
    """
    data = config["data"]
    name = data.get("dataset", "scenes")
    if name == "scenes":
        digest = hashlib.sha256(b"scenes").hexdigest()
        return digest, "synthetic", "scenes drawn from the seed: objects with text, and questions about them"
    root = Path(data["root"]) if data.get("root") else data_root()
    if name == "receipts":
        from spatial_textvqa.data import receipts

        return (
            receipts.fingerprint(root if data.get("root") else root / "sroie"),
            "real",
            "SROIE text boxes, 626 receipts",
        )
    from spatial_textvqa.data.textvqa import fingerprint

    found = [fingerprint(root / each, each) for each in name.split("+")]
    return hashlib.sha256("".join(found).encode()).hexdigest(), "real", f"{name}, features as given"


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "run", tier: str = "fit") -> dict[str, Any]:
    """Train and test; resumes from the run's last checkpoint."""
    from shared.cli import train_and_test

    from spatial_textvqa.data.module import TextVQAData
    from spatial_textvqa.module import SpatialTextVQA

    if set(config) - {"model", "data", "trainer"}:
        raise UserError(f"configuration: sections are model, data and trainer, found {', '.join(sorted(config))}")
    return train_and_test(
        SpatialTextVQA, TextVQAData, config, seed, run_dir, paper="spatial_textvqa", experiment=experiment, tier=tier
    )
