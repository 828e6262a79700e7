"""E7 to E10 as experiments: sky maps, joint false-alarm rates, latency and recovery, each by its own measurement."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.errors import UserError

SECTIONS = ("skymaps", "joint", "latency", "recovery")
LEAST: dict[str, dict[str, Any]] = {
    "skymaps": {"injections": 1},
    "joint": {},
    "latency": {"duration": 140, "packets": 500},
    "recovery": {"duration": 70, "kills": 1},
}  # of a dry run


def skymaps(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """E7; arguments of `skymaps.Settings`."""
    from mma_realtime.evaluation.skymaps import Settings, measure

    return measure(Settings(**settings), seed)


def joint(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """E8."""
    from mma_realtime.evaluation.joint import gw170817_like

    return gw170817_like(seed, **settings)


def latency(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """E9: from strain to notice beside a survey, and how many of a survey's alerts are filtered. Numbers that exist."""
    from mma_realtime.evaluation.latency import measure_alone
    from mma_realtime.evaluation.survey import filter_rate

    count = {"count": settings["packets"]} if "packets" in settings else {}
    own = {key: value for key, value in settings.items() if key != "packets"}
    with tempfile.TemporaryDirectory(prefix="mma_realtime_") as folder:
        out = filter_rate(Path(folder), **count)  # 800 MB of packets, gone before the hour begins
    with tempfile.TemporaryDirectory(prefix="mma_realtime_") as folder:
        found = measure_alone(Path(folder), seed, **own)
    out |= {key: value for key, value in found.as_dict().items() if math.isfinite(value)}
    return out | {
        "curve/latency/total": [float(s) for s in found.total],
        "curve/latency/memory_s": [float(s) for s, _ in found.memory],
        "curve/latency/memory_mb": [bytes_ / 1e6 for _, bytes_ in found.memory],
    }


def recovery(settings: dict[str, Any], seed: int, checkpoint: Path | None = None) -> dict[str, Any]:
    """E10: what a killed replay told, beside one that was left alone.

    Args:
        checkpoint: of the search; the published one where none is given.
    """
    from mma_realtime.evaluation.recovery import measure_recovery

    with tempfile.TemporaryDirectory(prefix="mma_realtime_") as folder:
        found = measure_recovery(Path(folder), seed, checkpoint=checkpoint, **settings)
    out: dict[str, Any] = {f"recovery/{key}": float(value) for key, value in found.as_dict().items()}
    out |= {f"curve/recovery/{key}": value for key, value in found.curves().items()}
    wrong = found.missing + found.extra + (found.alerted - found.alerted_once)
    whole = found.contiguous and found.same_order
    return out | {"recovery/lost_or_doubled": float(wrong + (not whole))}


MEASURES: dict[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {
    "skymaps": skymaps, "joint": joint, "latency": latency, "recovery": recovery,
}  # fmt: skip


def measured(section: str, settings: dict[str, Any], seed: int, dry: bool) -> dict[str, Any]:
    """Metrics by name, curves as lists.

    Raises:
        UserError: a key that the measurement does not have.
    """
    known = arguments(section)
    for key in settings:
        if key not in known:
            raise UserError(
                f"configuration: unknown key '{section}.{key}'; it has: {', '.join(sorted(known)) or 'none'}"
            )
    return MEASURES[section](settings | (LEAST[section] if dry else {}), seed)


def arguments(section: str) -> set[str]:
    """Keys of a section."""
    if section == "skymaps":
        from mma_realtime.evaluation.skymaps import Settings

        return set(inspect.signature(Settings).parameters)
    if section == "joint":
        from mma_realtime.evaluation.joint import gw170817_like

        return set(inspect.signature(gw170817_like).parameters) - {"seed"}
    return {"duration", "survey", "packets"} if section == "latency" else {"duration", "kills"}


def fingerprint(section: str, settings: dict[str, Any]) -> tuple[str, str, str]:
    """(hash, kind, what it is): all is drawn by recipes; what searches is of the published search too."""
    from mma_realtime.search.model_file import DEFAULT

    digest = hashlib.sha256(json.dumps([section, settings], sort_keys=True).encode())
    if section in ("latency", "recovery"):
        digest.update(DEFAULT.read_bytes() if DEFAULT.is_file() else b"")
    told = {
        "skymaps": "SNR series of simulated signals in noise of design curves",
        "joint": "a simulated three-detector map for the place and time of GW170817, and its burst as reported",
        "latency": "simulated strain with injections, searched by the networks of the cpu tier; made-up survey alerts",
        "recovery": "simulated strain with injections, searched by the networks of the cpu tier",
    }
    return digest.hexdigest(), "recipe", told[section]
