"""A deterministic recurrence that checkpoints every step, and the ways in which a run can go wrong."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.runs.store import RunDir, write_atomic


def data_fingerprint(config: dict[str, Any]) -> tuple[str, str, str]:
    if "data" not in config:
        sections = ", ".join(sorted(config))
        return sections.encode().hex(), "exact", f"no data: {sections}"
    if config["data"]["dataset"] == "absent":
        raise UserError("the data set `absent` is not here: get it from nowhere")
    return "f" * 64, "synthetic", "random matrices"


def run(config: dict[str, Any], seed: int, run_dir: Path, experiment: str = "", tier: str = "") -> dict[str, Any]:
    import torch

    print(f"GPUs: {os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}", flush=True)  # SIGKILL may come next
    print(f"{experiment} ({tier})")
    model, steps = config["model"], config["trainer"]["max_epochs"]
    behave(model.get("behaviour", "well"), run_dir)
    checkpoint = RunDir(run_dir).checkpoint
    first, state, curve = 0, torch.zeros(64, 64), []
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        first, state, curve = saved["step"], saved["state"], saved["curve"]
    for step in range(first, 1 if config["trainer"].get("fast_dev_run") else steps):
        with (run_dir / "steps.txt").open("a") as log:
            log.write(f"{step}\n")
        noise = torch.Generator().manual_seed(1000 * seed + step)
        for _ in range(model["work"]):
            state = torch.tanh(state @ torch.randn(64, 64, generator=noise) * model["gain"] + 0.1)
        curve = [*curve, float(state.sum())]
        buffer = io.BytesIO()
        torch.save({"step": step + 1, "state": state, "curve": curve}, buffer)
        write_atomic(checkpoint, buffer.getvalue())
    return {"test/sum": float(state.double().sum()), "val/size": float(state.abs().mean()), "curve/sum": curve}


def run_together(
    config: dict[str, Any], seeds: list[int], run_dir: Path, experiment: str, tier: str
) -> dict[int, dict[str, Any]]:
    behave(config["model"].get("behaviour", "well"), run_dir)
    with (run_dir / "together.txt").open("a") as log:
        log.write(f"{seeds}\n")
    return {seed: {"test/sum": 10.0 * seed, "val/size": 1.0, "curve/sum": [0.0, seed]} for seed in seeds}


def behave(how: str, run_dir: Path) -> None:
    """`raise`: an error; `die`: SIGKILL, as from the kernel short of memory; `die once`; `hold`: until it is killed."""
    print(f"behaviour: {how}")
    mark = run_dir / "died"
    if how == "raise":
        raise ValueError("the toy is broken")
    if how == "die" or (how == "die once" and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hold" and not (run_dir / "go").exists():
        mark.write_text(str(os.getpid()))
        signal.pause()
