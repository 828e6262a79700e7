"""How many runs share this machine: one for each GPU where they train on one, else one for each core."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from typing import Any

from shared.runs.job import cores


def takes_gpu(config: Mapping[str, Any]) -> bool:
    """Whether a run takes a GPU where there is one: it has a trainer not kept on the CPU, or names a CUDA device."""
    trainer = config.get("trainer")
    return (trainer is not None and trainer.get("accelerator", "auto") != "cpu") or _names_cuda(config)


def _names_cuda(section: Mapping[str, Any]) -> bool:
    return any(
        _names_cuda(value) if isinstance(value, dict) else key == "device" and str(value).startswith("cuda")
        for key, value in section.items()
    )


def visible() -> list[str]:
    """The GPUs on which torch can train here, each as `CUDA_VISIBLE_DEVICES` names it."""
    try:
        ctypes.CDLL("libcuda.so.1")  # without a driver there is none, and torch takes seconds to load
    except OSError:
        return []
    import torch

    count = torch.cuda.device_count()
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if setting is None else (name.strip() for name in setting.split(","))
    return list(names)[:count]


def share(configs: Sequence[Mapping[str, Any]], asked: int | None, launcher: str) -> tuple[int, list[str]]:
    """How many runs of these configurations go on at a time, and the GPUs that are dealt out to their processes.

    A run on one GPU (the house's default) has it to itself unless more runs than GPUs are asked for. Where a run is on
    several (`trainer.devices`), none are dealt out: every process sees all of them, and there is one run at a time.

    Args:
        asked: `--jobs`; None takes the default.
        launcher: a cluster (`slurm`) deals out its own GPUs.
    """
    with_gpu = [config for config in configs if takes_gpu(config)]
    names = visible() if with_gpu and launcher == "local" else []
    if not names:
        return cores() if asked is None else asked, []
    if any(str((config.get("trainer") or {}).get("devices", 1)) != "1" for config in with_gpu):
        return 1 if asked is None else asked, []
    return len(names) if asked is None else asked, names
