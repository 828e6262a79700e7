"""The CPU's targets: clustering against k-means, a whole forward pass against plain gathers, in time and memory.

    python autofocusformer/benchmarks/bench.py        # or: make bench-autofocusformer

Writes cpu.json next to this file, and on a machine with a GPU gpu.json (by gpu.py); exit status 1 where a target was
missed. Both sides of each ratio are measured alternately in one run, on one thread; times are medians of the thread's
own clock.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import gather  # noqa: E402 (this folder is no package)
import gpu  # noqa: E402
from autofocusformer.backbone import VARIANTS, AutoFocusFormer  # noqa: E402
from autofocusformer.clustering import balance, balanced_clusters, cluster_of_point, kmeans_clusters  # noqa: E402
from autofocusformer.positions import canvas_positions  # noqa: E402

from autofocusformer import attention, merging, neighbourhood  # noqa: E402

TARGETS = {  # at most
    "clustering_over_kmeans": 1 / 10,
    "forward_time_over_gather": 1.0,
    "forward_memory_over_gather": 1 / 3,
}


def median_times(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of each, called in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            times[name].append(time.thread_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def clustering(repeats: int) -> list[dict[str, float]]:
    """Ours and 10 iterations of k-means on full canvases: time, and how balanced and compact the clusters are."""
    rows = []
    for side in (28, 56, 128):
        positions = canvas_positions(side, side)[None]
        n, count = side * side, -(-side * side // 8)

        def ours(positions: torch.Tensor = positions, side: int = side) -> torch.Tensor:
            return cluster_of_point(balanced_clusters(positions, 8, (side, side)))[0]

        def kmeans(positions: torch.Tensor = positions, count: int = count) -> torch.Tensor:
            return kmeans_clusters(positions[0], count)

        seconds = median_times({"ours": ours, "kmeans": kmeans}, repeats if side < 100 else 3)
        row: dict[str, float] = {"n": n}
        for name, call in (("ours", ours), ("kmeans", kmeans)):
            found = balance(positions[0], call(), count)
            row |= {f"{name}_{key}": value for key, value in found._asdict().items()} | {f"{name}_s": seconds[name]}
        rows.append(row)
    return rows


def use_gathers() -> None:
    """Puts the plain forms in the place of the kernels, for the rest of this process."""
    attention.cluster_attention = gather.cluster_attention  # type: ignore[assignment]
    merging.point_merge = gather.point_merge  # type: ignore[assignment]
    neighbourhood.nearest_clusters = gather.nearest_clusters


def status(field: str) -> int:
    """Bytes of one of the process's memory counters (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def forward(variant: str, size: int, batch: int, repeats: int, train: bool) -> dict[str, float]:
    """Median seconds of a pass, and the most bytes that it holds beyond what was there before it.

    Forward alone as in use; with `train`, forward and backward.
    """
    torch.manual_seed(0)
    model = AutoFocusFormer(VARIANTS[variant]).train(train)
    images = torch.randn(batch, 3, size, size)

    def once() -> None:
        with torch.set_grad_enabled(train):
            out = model(images)
            if train:
                out.square().mean().backward()
                model.zero_grad(set_to_none=True)

    model.eval()
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))  # libraries are loaded and threads started outside the measurement
    model.train(train)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = status("VmRSS")
    once()
    peak = status("VmHWM") - before
    return {"s": median_times({"pass": once}, repeats)["pass"], "bytes": peak}


def child(form: str, variant: str, size: int, batch: int, repeats: int, train: bool) -> dict[str, float]:
    """`forward` in a process of its own: its peak is nobody else's."""
    command = [sys.executable, __file__, "--form", form, "--variant", variant]
    command += ["--size", str(size), "--batch", str(batch), "--repeats", str(repeats), *(["--train"] if train else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(variant: str, size: int, batch: int, repeats: int, train: bool) -> dict[str, float]:
    """Ours and the gathers, in turn, three times each; medians of all."""
    found: dict[str, list[dict[str, float]]] = {"ours": [], "gather": []}
    for _ in range(3):
        for form, rows in found.items():
            rows.append(child(form, variant, size, batch, repeats, train))
    return {
        f"{form}_{key}": statistics.median(row[key] for row in rows)
        for form, rows in found.items()
        for key in ("s", "bytes")
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=("ours", "gather"), help="measure one form here and print it")
    parser.add_argument("--variant", default="mini")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--train", action="store_true", help="with the backward pass")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.form:
        if args.form == "gather":
            use_gathers()
        print(json.dumps(forward(args.variant, args.size, args.batch, args.repeats, args.train)))
        return 0
    record: dict[str, Any] = {"device": platform.processor() or platform.machine(), "torch": torch.__version__}
    record["clustering"] = clustering(args.repeats)
    for row in record["clustering"]:
        found = [
            f"{name} {row[f'{key}_s'] * 1e3:.2f} ms, sizes {row[f'{key}_smallest']}-{row[f'{key}_largest']}, "
            f"distance {row[f'{key}_distance']:.3f}"
            for name, key in (("ours", "ours"), ("k-means", "kmeans"))
        ]
        print(f"n {row['n']}: {'; '.join(found)}")
    for what, train in (("forward", False), ("training", True)):
        row = compare(args.variant, args.size, args.batch, args.repeats, train)
        record[what] = {"variant": args.variant, "size": args.size, "batch": args.batch, **row}
        print(
            f"{what} of {args.variant} at {args.size} px, batch {args.batch}: ours {row['ours_s'] * 1e3:.0f} ms and "
            f"{row['ours_bytes'] / 2**20:.0f} MiB, gathers {row['gather_s'] * 1e3:.0f} ms and "
            f"{row['gather_bytes'] / 2**20:.0f} MiB"
        )
    middle = next(row for row in record["clustering"] if row["n"] == 3136)
    ratios = {
        "clustering_over_kmeans": middle["ours_s"] / middle["kmeans_s"],
        "forward_time_over_gather": record["forward"]["ours_s"] / record["forward"]["gather_s"],
        "forward_memory_over_gather": record["forward"]["ours_bytes"] / record["forward"]["gather_bytes"],
    }
    record["ratios"] = {name: round(value, 4) for name, value in ratios.items()}
    missed = [name for name, most in TARGETS.items() if ratios[name] > most]
    for name, most in TARGETS.items():
        print(f"{name} {ratios[name]:.3f}, at most {most:.3f}: {'missed' if name in missed else 'met'}")
    (HERE / "cpu.json").write_text(json.dumps(record, indent=1) + "\n")
    return 1 if missed or gpu.main() == 1 else 0


if __name__ == "__main__":
    raise SystemExit(main())
