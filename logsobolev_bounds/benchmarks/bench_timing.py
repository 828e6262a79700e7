"""What the benchmarks of this folder share: medians of CPU time, verdicts, the JSON file."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LEAST, MOST = 200.0, 100  # milliseconds of each form, and calls


def medians(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each on this thread: `repeats` calls or more, up to 0.2 s, after one for warming up.

    One form after another and not in turn: a form that frees gigabytes makes the next one pay for new pages.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for name, function in functions.items():
        function()
        while len(times[name]) < repeats or (sum(times[name]) < LEAST and len(times[name]) < MOST):
            start = time.thread_time()
            function()
            times[name].append(1e3 * (time.thread_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def difference(got: Tensor, exact: Tensor) -> float:
    """Largest difference over the largest entry."""
    return ((got - exact).abs().max() / exact.abs().max()).item()


def row(
    what: str, times: Mapping[str, float], ours: str, against: str, target: float | None, off: float
) -> dict[str, Any]:
    """One comparison, printed and as an entry of the file."""
    ratio = times[against] / times[ours]
    verdict = "" if target is None else f" (target {target:g}x: {'met' if ratio >= target else 'MISSED'})"
    print(f"{what}: {ours} {ratio:.2f}x as fast as {against}{verdict}", end="; ")
    print(" ".join(f"{name} {value:.2f} ms" for name, value in times.items()), end="; ")
    print(f"same numbers to {off:.0e}", flush=True)
    return {
        "what": what, "ours": ours, "against": against, "ratio": ratio, "target": target,
        "milliseconds": dict(times), "relative_difference": off,
    }  # fmt: skip


def finish(path: Path, rows: list[dict[str, Any]], repeats: int, **more: Any) -> int:
    """Write the file; the exit status."""
    missed = [r["what"] for r in rows if r["target"] is not None and r["ratio"] < r["target"]]
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "torch": torch.__version__,
        "repeats": repeats,
        "rows": rows,
        **more,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print("all targets met" if not missed else "missed: " + "; ".join(missed))
    return 1 if missed else 0
