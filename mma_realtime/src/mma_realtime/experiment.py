"""One experiment, as the launcher calls it. The configuration says which kind: one of the sections

matched_filter   the yardstick: a template bank on the same windows, events and sets as the networks
model            networks, trained on simulated strain and measured as a search (E1 to E6)
"""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

from shared.errors import UserError

SECTIONS = {"matched_filter", "model", "data", "trainer", "seed_everything"}


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    """(hash, kind, what it is) of what `config` is measured on: a recipe, or with files under the data root real."""
    from shared.data.root import data_root

    from mma_realtime.data.simulated import SimulatedBBH
    from mma_realtime.data.strain import EVENTS, event_files

    settings = dict(config.get("data") or {})
    known = inspect.signature(SimulatedBBH).parameters
    for key in settings:
        if key not in known:
            raise UserError(f"configuration: unknown key 'data.{key}'; it has: {', '.join(sorted(known))}")
    data = SimulatedBBH(**settings)
    root = Path(settings["root"]) if settings.get("root") else data_root()
    digest, real = hashlib.sha256(data.fingerprint.encode()), []
    for name in EVENTS:
        files = event_files(name, root)
        for file in files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        real += [name] if files else []
    told = f"real strain of {' and '.join(real)}" if real else "no real strain under the data root"
    kind = "real" if real else "recipe"
    return digest.hexdigest(), kind, f"{data.detail}; {told}"


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "run", tier: str = "fit") -> dict[str, Any]:
    """Metrics by name, curves as lists. Training resumes from the run's last checkpoint."""
    for key in config:
        if key not in SECTIONS:
            raise UserError(f"configuration: unknown key '{key}'; there are: {', '.join(sorted(SECTIONS))}")
    if "matched_filter" in config:
        from mma_realtime.evaluation.yardstick import yardstick

        dry = bool((config.get("trainer") or {}).get("fast_dev_run"))
        return yardstick(dict(config["matched_filter"]), dict(config.get("data") or {}), seed, dry)
    from shared.cli import train_and_test

    from mma_realtime.data.simulated import SimulatedBBH
    from mma_realtime.trial import Trial

    return train_and_test(
        Trial, SimulatedBBH, config, seed, run_dir, paper="mma_realtime", experiment=experiment, tier=tier
    )
