"""Banks of waveforms on this machine: on a CPU against the definition in eager PyTorch, on a GPU against its floor.

    python mma_realtime/benchmarks/bench_waveform.py

Forms take turns in one process on one thread, in CPU time; a ratio is of medians. `bank` is all that makes a signal
bank from masses: coefficients, h(f) whitened, and the inverse FFT. On a GPU: time, share of the floor (section 11: 8 B
a point written, 300 FLOPs a point), and the ratio to the definition and to its `torch.compile`. Writes `waveform.json`
next to this file; exit status 1 where a target is missed.
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
from mma_realtime.gw.waveforms import phenomd_coefficients, taylorf2_coefficients
from mma_realtime.kernels.waveform import reference, waveform_fd
from shared.kernels.gpu_check import seconds
from torch import Tensor

BANDWIDTH, FLOPS = 3.35e12, 67e12  # one H100, float32
POINT_BYTES, POINT_FLOPS = 8, 300
BANK_SECONDS = 0.5  # for 1,000 systems of 4 s at 1024 Hz, h(f) alone; 1 s with all else
Row = dict[str, Any]


def masses(n: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    m = low + (high - low) * torch.rand(2, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return m[0], m[1].clamp(min=m[0] / 10)


def frequencies(duration: float, sample_rate: int) -> Tensor:
    """Hz, those of an FFT of `duration` seconds."""
    return torch.arange(int(duration * sample_rate) // 2 + 1, dtype=torch.float64) / duration


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


def whole_bank(m1: Tensor, m2: Tensor, f: Tensor, asd: Tensor) -> Tensor:
    return torch.fft.irfft(waveform_fd(phenomd_coefficients(m1, m2), f, asd))


def cpu_rows(repeats: int) -> list[Row]:
    rows = []
    cases = (
        ("PhenomD 5-75 solar masses, 1,000 x 4 s at 1024 Hz", phenomd_coefficients, (1000, 5.0, 75.0), 4.0, 1024),
        ("PhenomD 5-75 solar masses, 500 x 4 s at 2048 Hz", phenomd_coefficients, (500, 5.0, 75.0), 4.0, 2048),
        ("TaylorF2 1-3 solar masses, 100 x 16 s at 2048 Hz", taylorf2_coefficients, (100, 1.0, 3.0), 16.0, 2048),
    )
    for what, coefficients, (n, low, high), duration, sample_rate in cases:
        m1, m2 = masses(n, low, high)
        table, f = coefficients(m1, m2), frequencies(duration, sample_rate)
        asd = 1e-23 * (1 + (40 / f.clamp(min=10)) ** 4)
        forms: dict[str, Callable[[], object]] = {
            "ours": partial(waveform_fd, table, f, asd),
            "ours in complex128": partial(waveform_fd, table, f, asd, torch.complex128),
            "definition": partial(reference.waveform_fd, table, f, asd),
            "coefficients": partial(coefficients, m1, m2),
        }
        if coefficients is phenomd_coefficients:
            forms["bank"] = partial(whole_bank, m1, m2, f, asd)
        times = medians(forms, repeats)
        exact = reference.waveform_fd(table, f, asd)
        off = ((waveform_fd(table, f, asd) - exact).abs().amax(1) / exact.abs().amax(1)).max().item()
        points = n * len(f)
        limit = 1e3 * BANK_SECONDS * points / (1000 * 2049)
        met = times["ours"] <= limit and times["ours"] <= times["definition"] and times.get("bank", 0) <= 2 * limit
        ratio = times["definition"] / times["ours"]
        print(f"{what}: {ratio:.1f}x as fast as the definition, {1e6 * times['ours'] / points:.0f} ns a point", end=" ")
        print(f"(target {limit:.0f} ms: {'met' if met else 'MISSED'})", end="; ")
        print(", ".join(f"{name} {value:.1f} ms" for name, value in times.items()), f"; to {off:.0e}", flush=True)
        rows.append({"what": what, "points": points, "ratio": ratio, "met": met, "limit_ms": limit}
                    | {"milliseconds": times, "relative_difference": off})  # fmt: skip
    return rows


def gpu_rows() -> list[Row]:
    rows = []
    for n, duration, sample_rate in ((1000, 4.0, 1024), (20000, 4.0, 1024), (20000, 8.0, 2048)):
        f = frequencies(duration, sample_rate)
        points = n * len(f)
        floor = max(points * POINT_BYTES / BANDWIDTH, points * POINT_FLOPS / FLOPS)
        what = f"waveform_fd {n} systems x {len(f)} frequencies, one curve"
        if not torch.cuda.is_available():
            print(f"{what}: floor {1e6 * floor:.0f} us; not measured: no GPU", flush=True)
            rows.append({"what": what, "floor_us": 1e6 * floor, "us": None})
            continue
        table, f = phenomd_coefficients(*masses(n, 5.0, 75.0)).cuda(), f.cuda()
        asd = torch.ones_like(f, dtype=torch.float32)
        ours = seconds(partial(waveform_fd, table, f, asd))
        others: dict[str, float] = {}
        for name, form in (("definition", reference.waveform_fd), ("compiled", torch.compile(reference.waveform_fd))):
            try:
                others[f"{name}_us"] = 1e6 * seconds(partial(form, table, f, asd))
            except Exception as failure:  # float64 of 160 million points need not fit, complex numbers not compile
                print(f"  {name}: {type(failure).__name__}")
        print(f"{what}: {1e6 * ours:.0f} us, {100 * floor / ours:.0f} % of the floor", others, flush=True)
        rows.append({"what": what, "floor_us": 1e6 * floor, "us": 1e6 * ours} | others)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11, help="timed calls of each form (default 11)")
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
    Path(__file__).with_name("waveform.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    missed = [r["what"] for r in rows if not r["met"]]
    print("all targets met" if not missed else "missed: " + "; ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
