"""One experiment, as the launcher calls it. The configuration says which kind: one of the sections

matched_filter   the yardstick: a template bank on the same windows, events and sets as the networks
model            networks, trained on simulated strain and measured as a search (E1 to E6); with a section `twin`
                 (model, data and trainer of its own) twins that begin as these follow, and are measured beside them
"""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

from shared.errors import UserError

TWIN = {"model", "data", "trainer"}
SECTIONS = {"matched_filter", "twin", "model", "data", "trainer", "seed_everything"}


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
    from mma_realtime.trial import FILE, Trial

    def train(settings: dict[str, Any], folder: Path, name: str) -> dict[str, Any]:
        return train_and_test(Trial, SimulatedBBH, settings, seed, folder, "mma_realtime", name, tier)

    section = dict(config.get("twin") or {})
    for key in section:
        if key not in TWIN:
            raise UserError(f"configuration: unknown key 'twin.{key}'; it has: {', '.join(sorted(TWIN))}")
    own = {key: value for key, value in config.items() if key != "twin"}
    out = train(own, run_dir, experiment)
    if "twin" in config:
        section["model"] = {**section.get("model", {}), "network": "twin", "start": str(run_dir / FILE)}
        section["data"] = {**config["data"], **section.get("data", {}), "detectors": 2}
        section["trainer"] = {**config.get("trainer", {}), **section.get("trainer", {})}
        found = train(section, run_dir / "twin", f"{experiment}_twin")
        out |= {
            f"twin_{key}" if not key.startswith("curve/") else f"curve/twin_{key[6:]}": v for key, v in found.items()
        }
        out |= gains(out)
    return out


def gains(found: dict[str, Any]) -> dict[str, float]:
    """`gain/<metric>`: of the twins over the sum of the single networks' statistics, for sensitive distances."""
    return {
        f"gain/{key}": (found[f"twin_{key}"] - value) / value
        for key, value in found.items()
        if key.startswith("distance") and f"twin_{key}" in found and value
    }
