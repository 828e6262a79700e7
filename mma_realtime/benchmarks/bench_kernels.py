"""The operators on this machine: on a CPU against their definitions, on a GPU against the floor of the roofline.

    python mma_realtime/benchmarks/bench_kernels.py

Forms take turns in one process on one thread, in CPU time; a ratio is of medians. On a CPU the target is to be no
slower than the definition at the shapes of the pipeline (`slides`: ten times as fast, section 11); beside them stand
what the pipeline compares with: the inverse FFT that a peak reduction follows, the training step that a batch of
windows feeds, the hour that slides cover. On a GPU: time, share of the floor (section 11), ratio to the definition and
to its `torch.compile`. Writes `kernels.json` next to this file; exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_network import step_of
from mma_realtime.kernels.checks import CHECKS
from mma_realtime.models import DeepFilterShallow
from shared.kernels.gpu_check import seconds
from shared.kernels.harness import Check, draw

BANDWIDTH, FLOPS = 3.35e12, 67e12  # of one H100: bytes/s, float32 FLOP/s
SHAPES: dict[str, list[tuple[dict[str, int], float]]] = {  # of the pipeline on a CPU, and the target against eager
    "inject": [
        ({"B": 128, "C": 1, "L": 65536, "S": 2048, "T": 1024, "G": 0}, 1.0),
        ({"B": 384, "C": 2, "L": 65536, "S": 4096, "T": 2048, "G": 2048}, 1.0),
    ],
    "peaks": [
        ({"M": 4, "T": 2**19, "size": 128, "threshold": 5}, 1.0),
        ({"M": 4, "T": 2**19, "size": 2048, "threshold": 5}, 1.0),
    ],
    "slides": [({"T": 57_600, "K": 100}, 10.0), ({"T": 512, "K": 300}, 1.0)],
    "coincidence": [({"n1": 400, "n2": 400, "K": 200}, 1.0), ({"n1": 10_000, "n2": 10_000, "K": 10}, 10.0)],
    "waveform": [({"B": 200, "F": 2049}, 1.0)],
}
Row = dict[str, Any]


def medians(forms: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds on this thread: forms in turn, after one call each for warming up."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(repeats + 1):
        for name, form in forms.items():
            start = time.thread_time()
            form()
            if repeat:
                times[name].append(1e3 * (time.thread_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def words(check: Check, shape: dict[str, int]) -> str:
    return f"{check.name} " + " ".join(f"{k}={v}" for k, v in shape.items())


def beside(check: Check, shape: dict[str, int], ms: float, repeats: int) -> dict[str, float]:
    """What the pipeline spends next to a call, by name."""
    if check.kernel == "inject" and shape["B"] == 128:
        torch.manual_seed(0)
        x, label = torch.randn(shape["B"], shape["C"], shape["T"]), torch.randint(0, 2, (shape["B"],))
        step = medians({"step": step_of(DeepFilterShallow(shape["T"]), x, label, fused=True)}, repeats)["step"]
        return {"milliseconds_of_a_training_step": step, "share_of_a_training_step": ms / step}
    if check.kernel == "peaks":
        spectrum = torch.randn(shape["M"], shape["T"], dtype=torch.complex64)
        fft = medians({"ifft": partial(torch.fft.ifft, spectrum)}, repeats)["ifft"]
        return {"milliseconds_of_inverse_ffts": fft, "share_of_inverse_ffts": ms / fft}
    if check.kernel == "slides":
        return {
            "microseconds_a_slide": 1e3 * ms / shape["K"],
            "slid_hours_a_second": shape["T"] / 57.6 * shape["K"] / ms,
        }
    if check.kernel == "waveform":
        return {"seconds_for_1000": ms / shape["B"]}
    return {}


def cpu_rows(repeats: int) -> list[Row]:
    rows = []
    for check in CHECKS:
        for shape, target in SHAPES[check.kernel]:
            operands = draw(check, shape, "cpu", torch.float32)
            forms = {"ours": partial(check.function, *operands), "definition": partial(check.definition, *operands)}
            with torch.no_grad():
                times = medians(forms, repeats)
            ratio, more = times["definition"] / times["ours"], beside(check, shape, times["ours"], repeats)
            met = ratio >= target
            print(f"{words(check, shape)}: {times['ours']:.3f} ms, {ratio:.1f}x as fast as the definition", end=" ")
            print(f"(target {target:g}x: {'met' if met else 'MISSED'})", end="")
            print("".join(f"; {name.replace('_', ' ')} {value:.3g}" for name, value in more.items()), flush=True)
            row = {"what": words(check, shape), "ratio": ratio, "target": target, "met": met, "milliseconds": times}
            rows.append(row | more)
    return rows


def gpu_rows() -> list[Row]:
    """Every timed shape of the checks in float32."""
    rows = []
    for check in CHECKS:
        for shape in check.timed:
            flops, entries = check.cost(**shape)
            floor = 1e6 * max(flops / FLOPS, 4 * entries / BANDWIDTH)
            what = words(check, shape)
            if not torch.cuda.is_available():
                print(f"{what}: floor {floor:.1f} us ({flops / 1e9:.2f} GFLOP, {4 * entries / 1e6:.1f} MB); ", end="")
                print("not measured: no GPU", flush=True)
                rows.append({"what": what, "floor_us": floor, "us": None})
                continue
            operands = draw(check, shape, "cuda", torch.float32)
            others: dict[str, Callable[..., object]] = {"definition": check.definition}
            if check.compiled:
                others["compiled"] = torch.compile(check.definition, dynamic=False)
            with torch.no_grad():
                ours = 1e6 * seconds(partial(check.function, *operands))
                times = {f"{name}_us": 1e6 * seconds(partial(form, *operands)) for name, form in others.items()}
            print(f"{what}: {ours:.1f} us, {100 * floor / ours:.0f} % of the floor; ", end="")
            print(", ".join(f"{t / ours:.2f}x as fast as {name[:-3]}" for name, t in times.items()), flush=True)
            rows.append({"what": what, "floor_us": floor, "us": ours} | times)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each form (default 7)")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    rows = cpu_rows(repeats)
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "torch": torch.__version__,
        "repeats": repeats,
        "cpu": rows,
        "gpu": gpu_rows(),
        "gpu_name": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    Path(__file__).with_name("kernels.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    missed = [r["what"] for r in rows if not r["met"]]
    print("all targets met" if not missed else "missed: " + "; ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
