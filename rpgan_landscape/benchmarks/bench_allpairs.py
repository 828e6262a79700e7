"""All-pairs relativistic loss on a CPU: the public function against the definition, forward and backward (kernel K3).

    python rpgan_landscape/benchmarks/bench_allpairs.py

Both sides of a ratio are timed in turn in one process on one thread, in CPU time; a ratio is of medians. Peak memory is
that of a process of its own for each form. Writes `allpairs.json` next to this file; exit status 1 where a target is
missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rpgan_landscape.kernels.allpairs_relativistic import allpairs_relativistic, allpairs_sums, reference
from torch import Tensor

SIDES = (16, 128, 181, 256, 443, 512, 724, 1024, 2048, 4096, 8192)
LARGE = 8192
NEVER_SLOWER = 0.95  # the checks of the arguments, and noise
FASTER = {"logistic": 1.0, "hinge": 100.0, "ls": 100.0}  # at the large size
LESS_MEMORY = 5.0
FORMS: dict[str, Callable[..., Tensor]] = {
    "definition": reference.allpairs_relativistic,
    "ours": allpairs_relativistic,
}


def logits(side: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    real, fake = torch.randn(side, generator=g) + 1, torch.randn(side, generator=g) - 1
    return real.requires_grad_(), fake.requires_grad_()


def step(form: str, kind: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value and both gradients."""
    value = FORMS[form](a, b, kind)
    return value.detach(), *torch.autograd.grad(value, [a, b])


def medians(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each on this thread, called in turn, after three calls for warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(-3, repeats):
        for name, function in functions.items():
            start = time.thread_time()
            function()
            if i >= 0:
                seconds[name].append(time.thread_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def compare(kind: str, side: int, repeats: int) -> dict[str, Any]:
    a, b = logits(side)
    ours, exact = step("ours", kind, a, b), step("definition", kind, a, b)
    off = max(((x - y).abs().max() / y.abs().max()).item() for x, y in zip(ours, exact))
    t = medians({form: partial(step, form, kind, a, b) for form in FORMS}, repeats if side >= 1024 else 10 * repeats)
    return {
        "kind": kind,
        "side": side,
        "ratio": t["definition"] / t["ours"],
        "target": FASTER[kind] if side == LARGE else NEVER_SLOWER,
        "milliseconds": {form: 1e3 * value for form, value in t.items()},
        "relative_difference": off,
    }


def kilobytes(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(f"{key}:")).split()[1])


def peak(form: str, kind: str) -> float:
    """MiB that one step at the large size takes at most: this process's peak less what it held before.

    At least 1, about what the kernel's own count of pages is good for.
    """
    step(form, kind, *logits(16))
    allpairs_sums(*logits(16), "hinge")[0].backward()  # the first call of an operator loads parts of PyTorch
    a, b = logits(LARGE)
    before = kilobytes("VmRSS")
    step(form, kind, a, b)
    return max(1.0, (kilobytes("VmHWM") - before) / 1024)


def peak_elsewhere(form: str, kind: str) -> float:
    """`peak` in a process of its own."""
    command = [sys.executable, __file__, "--peak", form, kind]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def verdict(ratio: float, target: float) -> str:
    return f"target {target:g}x: {'met' if ratio >= target else 'MISSED'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats", type=int, default=20, help="timed calls of each side (default 20; small sizes 10x)"
    )
    parser.add_argument("--peak", nargs=2, metavar=("FORM", "KIND"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak:
        print(peak(*args.peak))
        return 0
    rows, missed = [], list[str]()
    for kind in reference.KINDS:
        for side in SIDES:
            row = compare(kind, side, args.repeats)
            rows.append(row)
            times = " ".join(f"{form} {value:.3f} ms" for form, value in row["milliseconds"].items())
            print(
                f"{kind:8} {side:5}^2  {row['ratio']:8.2f}x  ({verdict(row['ratio'], row['target'])})  {times}; ",
                end="",
            )
            print(f"same numbers to {row['relative_difference']:.0e}", flush=True)
            missed += [] if row["ratio"] >= row["target"] else [f"{kind} {side}"]
    memory = {kind: {form: peak_elsewhere(form, kind) for form in FORMS} for kind in reference.KINDS}
    for kind, sizes in memory.items():
        ratio = sizes["definition"] / sizes["ours"]
        print(f"{kind:8} {LARGE:5}^2  {ratio:7.0f}x less memory at the peak  ({verdict(ratio, LESS_MEMORY)})  ", end="")
        print(", ".join(f"{form} {size:.0f} MiB" for form, size in sizes.items()))
        missed += [] if ratio >= LESS_MEMORY else [f"memory of {kind}"]
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "torch": torch.__version__,
        "repeats": args.repeats,
        "rows": rows,
        "peak_mebibytes": memory,
    }
    Path(__file__).with_name("allpairs.json").write_text(json.dumps(document, indent=1) + "\n")
    print("all targets met" if not missed else "missed: " + ", ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
