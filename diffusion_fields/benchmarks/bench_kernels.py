"""The operators on this machine: on a CPU against cdist and the definition, on a GPU against the floor of its bytes.

    python diffusion_fields/benchmarks/bench_kernels.py

Forms take turns in one process on one thread, in CPU time; a ratio is of medians. `bytes` is the largest working memory
of a call: distances of a pair for cdist, features of all points for the definition (`fourier` compares chunks with it,
which is what a CPU runs where features are too many). On a GPU: time, bytes, share of the floor
(section 8: 4.3 TB/s, 600 TFLOP/s in bf16, 60 in float32), and the ratio to the definition, to its `torch.compile`, and
to attention unsplit. Writes `kernels.json` next to this file; exit status 1 where a target is missed.
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
from diffusion_fields.kernels import chamfer_allpairs, fourier_linear, reference
from diffusion_fields.kernels.chamfer import reference as chamfer_reference
from diffusion_fields.kernels.checks import CHECKS
from diffusion_fields.kernels.fourier import linear
from diffusion_fields.kernels.fourier import reference as fourier_reference
from shared.kernels.gpu_check import seconds
from shared.kernels.harness import draw
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

BANDWIDTH, FLOPS = 4.3e12, {"fp32": 60e12, "bf16": 600e12}
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


def row(
    what: str, times: dict[str, float], against: str, memory: dict[str, int], slower: float, smaller: float, off: float
) -> Row:
    """One comparison; the targets are ratios of time (0: none) and of bytes."""
    ratio, saved = times[against] / times["ours"], memory[against] / memory["ours"]
    met = ratio >= slower and saved >= smaller
    print(f"{what}: {ratio:.2f}x as fast as {against} and {saved:.1f}x less memory", end=" ")
    print(f"(targets {slower:g}x, {smaller:g}x: {'met' if met else 'MISSED'})", end="; ")
    print(
        " ".join(f"{name} {value:.3f} ms" for name, value in times.items()), f"; same numbers to {off:.0e}", flush=True
    )
    return {
        "what": what, "against": against, "ratio": ratio, "memory_ratio": saved, "met": met, "milliseconds": times,
        "bytes": memory, "relative_difference": off,
    }  # fmt: skip


def surfaces(generator: torch.Generator, clouds: int, points: int) -> Tensor:
    x = torch.randn(clouds, points, 3, generator=generator)
    size = 0.3 + torch.rand(clouds, 1, 3, generator=generator)
    return size * x / x.norm(dim=-1, keepdim=True)


def by_cdist(G: Tensor, R: Tensor) -> Tensor:
    """What everyone writes: a matrix of distances for each pair."""
    out = G.new_empty(len(G), len(R))
    for i, g in enumerate(G):
        for j, r in enumerate(R):
            distances = torch.cdist(g, r).square_()
            out[i, j] = distances.amin(0).mean() + distances.amin(1).mean()
    return out


def chamfer_rows(repeats: int) -> list[Row]:
    rows = []
    for n, points, slower in ((12, 128, 1.0), (8, 512, 1.0), (4, 1024, 1.0), (4, 2048, 2.0)):
        generator = torch.Generator().manual_seed(0)
        G, R = surfaces(generator, n, points), surfaces(generator, n, points)
        times = medians({"ours": partial(chamfer_allpairs, G, R), "cdist": partial(by_cdist, G, R)}, repeats)
        trees = points**2 >= chamfer_reference.WORTHWHILE
        # Trees: an answer of a distance and an index, and two copies of the points in float64.
        held = 16 * min(n * points, chamfer_reference.BUDGET) + 4 * 24 * n * points
        ours = held if trees else 8 * chamfer_reference.most_held(points, points)
        exact = reference.chamfer_allpairs(G[:1].double(), R[:2].double())
        off = ((chamfer_allpairs(G[:1], R[:2]) - exact).abs().max() / exact.max()).item()
        memory = {"ours": ours, "cdist": 4 * points**2}
        rows.append(row(f"chamfer n=m={n} M=K={points}", times, "cdist", memory, slower, 3.0, off))
    return rows


def fourier_rows(repeats: int) -> list[Row]:
    rows = []
    for N, c, F, P in ((16384, 3, 10, 63), (65536, 3, 10, 128), (65536, 2, 4, 64)):
        p, generator = c * (1 + 2 * F), torch.Generator().manual_seed(0)
        x = 2 * torch.rand(N, c, generator=generator) - 1
        W, b = (torch.randn(*s, generator=generator).requires_grad_() for s in ((P, p), (P,)))
        for backward in (False, True):

            def call(form: Callable[..., Tensor], backward: bool = backward, layer: Any = (x, W, b)) -> None:
                with torch.set_grad_enabled(backward):
                    y = form(*layer, 1.0)
                if backward:
                    torch.autograd.grad(y.sum(), layer[1:])

            forms = {"ours": partial(call, linear), "definition": partial(call, reference.fourier_linear)}
            times = medians(forms, repeats)
            memory = {"ours": 4 * min(N, fourier_reference.CHUNK) * p, "definition": 4 * N * p}
            exact = reference.fourier_linear(x[:999].double(), W.double(), b.double())
            off = ((fourier_linear(x, W, b)[:999] - exact).abs().max() / exact.abs().max()).item()
            what = f"fourier N={N} c={c} F={F} P={P}" + (" with backward" if backward else "")
            rows.append(row(what, times, "definition", memory, 0.0, 3.0, off))
    return rows


def gpu_rows() -> list[Row]:
    """Every timed shape of the checks, values only."""
    rows = []
    if not torch.cuda.is_available():
        for check in CHECKS:
            for shape in check.timed:
                flops, entries = check.cost(**shape)
                mode = "fp32" if check.kernel == "chamfer" else "bf16"
                size = 4 if mode == "fp32" else 2
                floor = max(flops / FLOPS[mode], entries * size / BANDWIDTH)
                where = " ".join(f"{k}={v}" for k, v in shape.items())
                print(f"{check.name} {where} {mode}: floor {1e6 * floor:.0f} us ", end="")
                print(f"({flops / 1e9:.1f} GFLOP, {entries * size / 1e6:.1f} MB); not measured: no GPU", flush=True)
                rows.append({"what": f"{check.name} {where} {mode}", "floor_us": 1e6 * floor, "us": None})
        return rows
    for check in CHECKS:
        mode, dtype = ("fp32", torch.float32) if check.kernel == "chamfer" else ("bf16", torch.bfloat16)
        for shape in check.timed:
            operands = draw(check, shape, "cuda", dtype)
            flops, entries = check.cost(**shape)
            floor = max(flops / FLOPS[mode], entries * dtype.itemsize / BANDWIDTH)
            others: dict[str, Callable[..., object]] = {"definition": check.definition}
            if check.compiled:
                others["compiled"] = torch.compile(check.definition, dynamic=False)
            if check.kernel == "split_kv":
                others["SDPA"] = scaled_dot_product_attention
            if check.kernel == "chamfer":
                others["cdist"] = by_cdist
            with torch.no_grad():
                ours = seconds(partial(check.function, *operands))
                times = {name: seconds(partial(form, *operands)) for name, form in others.items()}
            where = " ".join(f"{k}={v}" for k, v in shape.items())
            print(
                f"{check.name} {where} {mode}: {1e6 * ours:.1f} us, {entries * dtype.itemsize / 1e6:.1f} MB", end=", "
            )
            print(f"{100 * floor / ours:.0f} % of the floor", end="; ")
            print(", ".join(f"{t / ours:.2f}x as fast as {name}" for name, t in times.items()), flush=True)
            rows.append(
                {"what": f"{check.name} {where} {mode}", "floor_us": 1e6 * floor, "us": 1e6 * ours}
                | {f"{name}_us": 1e6 * t for name, t in times.items()}
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11, help="timed calls of each form (default 11)")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    rows = chamfer_rows(repeats) + fourier_rows(repeats)
    print("split_kv on a CPU is scaled_dot_product_attention itself: nothing to compare")
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
