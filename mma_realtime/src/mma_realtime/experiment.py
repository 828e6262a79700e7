"""One experiment, as the launcher calls it. The configuration says which kind: one of the sections

matched_filter     the yardstick: a template bank on the same windows, events and sets as the networks
glitch_classifier  GlitchNet, which names transients; `data` are then settings of its own windows (`GlitchWindows`)
denoiser           a denoiser; `data` are then settings of windows that come with their signals (`SignalWindows`)
model              networks, trained on simulated strain and measured as a search (E1 to E6); with a section `twin`
                   (model, data and trainer of its own) twins that begin as these follow, and are measured beside them
skymaps, joint, latency, recovery   E7 to E10 (`evaluation.alerting`)
"""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import UserError

if TYPE_CHECKING:
    import pytorch_lightning as L

TWIN = {"model", "data", "trainer"}
ALL = {"data", "trainer", "seed_everything"}
SEARCHES = {"matched_filter", "twin", "model"} | ALL
ALONE = ("glitch_classifier", "denoiser")  # networks that are no search
ALERTING = ("skymaps", "joint", "latency", "recovery")
SECTIONS = SEARCHES | set(ALONE) | set(ALERTING)


def alone(section: str) -> tuple[type[L.LightningModule], type[L.LightningDataModule]]:
    """How a network of `ALONE` is trained, and on what."""
    if section == "glitch_classifier":
        from mma_realtime.data.glitch_windows import GlitchWindows
        from mma_realtime.glitch_classifier import GlitchClassifier

        return GlitchClassifier, GlitchWindows
    from mma_realtime.denoising import Denoising, SignalWindows

    return Denoising, SignalWindows


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    """(hash, kind, what it is) of what `config` is measured on: a recipe, as windows and sets are simulated.

    Real strain under the data root is part of the hash, and told: it is what E4 is measured on, and nothing else.
    """
    from shared.data.root import data_root

    from mma_realtime.data.simulated import SimulatedBBH
    from mma_realtime.data.strain import EVENTS, event_files

    told = next((name for name in ALERTING if name in config), None)
    if told:
        from mma_realtime.evaluation.alerting import fingerprint

        return fingerprint(told, dict(config[told] or {}))
    settings = dict(config.get("data") or {})
    sections = [section for section in ALONE if section in config]
    windows: Any = alone(sections[0])[1] if sections else SimulatedBBH
    known = inspect.signature(windows).parameters
    for key in settings:
        if key not in known:
            raise UserError(f"configuration: unknown key 'data.{key}'; it has: {', '.join(sorted(known))}")
    data = windows(**settings)
    if sections:
        return data.fingerprint, "recipe", data.detail
    root = Path(settings["root"]) if settings.get("root") else data_root()
    digest, real = hashlib.sha256(data.fingerprint.encode()), []
    for name in EVENTS:
        files = event_files(name, root)
        for file in files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        real += [name] if files else []
    strain = f"E4: real strain of {' and '.join(real)}" if real else "E4: no real strain under the data root"
    return digest.hexdigest(), "recipe", f"{data.detail}; {strain}"


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "run", tier: str = "fit") -> dict[str, Any]:
    """Metrics by name, curves as lists. Training resumes from the run's last checkpoint."""
    section = next((name for name in (*ALONE, *ALERTING) if name in config), None)
    sections = {section} | ALL if section else SEARCHES
    for key in config:
        if key not in sections:
            more = "" if section else f"; or one of {', '.join((*ALONE, *ALERTING))}"
            raise UserError(f"configuration: unknown key '{key}'; there are: {', '.join(sorted(sections))}{more}")
    if "matched_filter" in config:
        from mma_realtime.evaluation.yardstick import yardstick

        dry = bool((config.get("trainer") or {}).get("fast_dev_run"))
        return yardstick(dict(config["matched_filter"]), dict(config.get("data") or {}), seed, dry)
    if section in ALERTING:
        from mma_realtime.evaluation.alerting import measured

        dry = bool((config.get("trainer") or {}).get("fast_dev_run"))
        return measured(section, dict(config[section] or {}), seed, dry)
    from shared.cli import train_and_test

    if section:
        settings = {key: value for key, value in config.items() if key != section}
        settings["model"] = dict(config[section] or {})
        return train_and_test(*alone(section), settings, seed, run_dir, "mma_realtime", experiment, tier)
    from mma_realtime.data.simulated import SimulatedBBH
    from mma_realtime.trial import FILE, Trial

    def train(settings: dict[str, Any], folder: Path, name: str) -> dict[str, Any]:
        return train_and_test(Trial, SimulatedBBH, settings, seed, folder, "mma_realtime", name, tier)

    twin = dict(config.get("twin") or {})
    for key in twin:
        if key not in TWIN:
            raise UserError(f"configuration: unknown key 'twin.{key}'; it has: {', '.join(sorted(TWIN))}")
    own = {key: value for key, value in config.items() if key != "twin"}
    out = train(own, run_dir, experiment)
    if "twin" in config:
        twin["model"] = {**twin.get("model", {}), "network": "twin", "start": str(run_dir / FILE)}
        twin["data"] = {**config["data"], **twin.get("data", {}), "detectors": 2}
        twin["trainer"] = {**config.get("trainer", {}), **twin.get("trainer", {})}
        found = train(twin, run_dir / "twin", f"{experiment}_twin")
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
