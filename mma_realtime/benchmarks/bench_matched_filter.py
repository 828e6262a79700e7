"""A template bank's throughput against PyCBC's, on the same strain, templates, segment (256 s at 2048 Hz) and machine.

    mma_realtime/benchmarks/pycbc_env.sh FOLDER
    python mma_realtime/benchmarks/bench_matched_filter.py --pycbc FOLDER/bin/python

One thread each, in CPU time per template and segment, the sides taking turns so that a busy machine troubles both
alike. Templates are made beforehand on both sides; all give the peaks above 4, ours one per 1/16 s.
Three of ours: `band`, the whole band 20 to 1000 Hz at the rate that holds it (1024 Hz of complex samples); `search`,
as the search runs, a rate per template that loses at most 1e-3 of its SNR^2; `full`, at 2048 Hz like PyCBC's. Two of
PyCBC's, see pycbc_peer.py: `engine` and `function`. Without --pycbc only ours is timed. Writes `matched_filter.json`
next to this file; exit status 1 where the target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import torch
from mma_realtime.gw.psd import design_curve
from mma_realtime.search.bank import Bank, draw_masses
from mma_realtime.search.matched_filter import BATCH, RATES, band, loud_bins, snr_series, template_series
from mma_realtime.search.template_triggers import HOP

SECONDS, RATE, F_LOW, F_HIGH = 256, 2048, 20.0, 1000.0
CURVE, BAND_LOSS, THRESHOLD = "aLIGOZeroDetHighPower", 1e-3, 4.0
TARGET = 3.0  # times PyCBC's throughput


def strain_and_bank(n: int) -> tuple[np.ndarray, np.ndarray, Bank]:
    """Spectrum of noise of a design curve (scaled, / Hz), its power density, and masses spread as a bank's are."""
    f = torch.arange(SECONDS * RATE // 2 + 1, dtype=torch.float64) / SECONDS
    psd = design_curve(CURVE).psd(f.clamp(10, 1024)).numpy() * 1e42
    rng = np.random.default_rng(1)
    normal = rng.standard_normal((2, len(psd)))
    m1, m2 = draw_masses(n, (10.0, 50.0), 5.0, torch.Generator().manual_seed(2))
    order = (m1 + m2).argsort()
    return np.sqrt(psd * SECONDS / 4) * (normal[0] + 1j * normal[1]), psd, Bank(m1[order], m2[order], F_LOW, F_HIGH)


class Ours:
    """All templates through one segment, in batches; buffers are made once."""

    def __init__(self, data: torch.Tensor, templates: torch.Tensor, sigma: torch.Tensor, rates: list[int]) -> None:
        self.data, self.parts = data, []
        for i in range(0, len(templates), BATCH):
            rate = max(rates[i : i + BATCH])
            width = min(rate * SECONDS, templates.shape[1])
            part = (templates[i : i + BATCH, :width] / sigma[i : i + BATCH, None]).contiguous()
            self.parts.append((rate, width, part))
        sizes = {rate for rate, _, _ in self.parts}
        self.rooms = {rate: torch.zeros(BATCH, rate * SECONDS, dtype=torch.complex64) for rate in sizes}
        self.threshold = torch.full((BATCH,), THRESHOLD)

    def __call__(self) -> np.ndarray:
        largest = []
        for rate, width, part in self.parts:
            z = snr_series(self.data[:width], part, self.rooms[rate][: len(part)])
            template, _, sample = loud_bins(z, round(rate * HOP), self.threshold[: len(part)])
            loud = z[template, sample].abs()
            largest.append(torch.zeros(len(part)).scatter_reduce(0, template, loud, "amax"))
        return torch.cat(largest).numpy()


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.thread_time()
    out = function()
    return time.thread_time() - start, out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pycbc", type=Path, help="the Python of an environment with PyCBC (pycbc_env.sh makes one)")
    parser.add_argument("--templates", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)

    strain, psd, bank = strain_and_bank(arguments.templates)
    first, last = band(SECONDS, F_LOW, F_HIGH)
    making, templates = timed(lambda: template_series(bank, slice(None), SECONDS, F_LOW, F_HIGH))
    response = torch.from_numpy(4 / SECONDS / psd[first:last]).float()
    data = (torch.from_numpy(strain[first:last]) * response).to(torch.complex64)
    cumulative = (templates.abs().square() * response).double().cumsum(1)
    sigma = cumulative[:, -1].sqrt().float()
    allowed = [r for r in RATES if r < F_HIGH - F_LOW] + [1024]
    lost = torch.stack([1 - cumulative[:, min(r * SECONDS, last - first) - 1] / cumulative[:, -1] for r in allowed])
    chosen = [allowed[int(i)] for i in (lost <= BAND_LOSS).to(torch.uint8).argmax(0)]
    ours = {
        "full": Ours(data, templates, sigma, [RATE] * len(bank)),
        "band": Ours(data, templates, sigma, [1024] * len(bank)),
        "search": Ours(data, templates, sigma, chosen),
    }
    times: dict[str, list[float]] = {name: [] for name in ours}
    values: dict[str, np.ndarray] = {}
    peer, version = None, {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.pycbc:
            np.savez(
                f"{folder}/data.npz",
                sample_rate=RATE, samples=SECONDS * RATE, f_low=F_LOW, f_high=F_HIGH, threshold=THRESHOLD, first=first,
                psd=psd, strain_fd=strain.astype(np.complex64), templates=templates.conj().resolve_conj().numpy(),
            )  # fmt: skip
            script = Path(__file__).with_name("pycbc_peer.py")
            peer = subprocess.Popen(
                [arguments.pycbc, script, f"{folder}/data.npz"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert peer.stdin
            assert peer.stdout
            version = json.loads(peer.stdout.readline())
            times |= {"engine": [], "function": []}
        for number in range(arguments.repeats + 1):
            for name, function in ours.items():
                spent, found = timed(function)
                values[name] = found
                if number:
                    times[name].append(1e3 * spent / len(bank))
            if peer and peer.stdin and peer.stdout:
                print("go", file=peer.stdin, flush=True)
                answer = json.loads(peer.stdout.readline())
                for name in ("engine", "function"):
                    values[name] = np.array(answer[f"{name}_snr"])
                    if number:
                        times[name].append(answer[f"{name}_ms"])
        if peer and peer.stdin:
            peer.stdin.close()
            peer.wait()
    medians = {name: statistics.median(each) for name, each in times.items()}
    print(f"{len(bank)} templates, {SECONDS} s, {RATE} Hz; ms of CPU per template (median of {arguments.repeats})")
    for name, value in medians.items():
        print(f"  {name:10s}{value:8.2f}   {1e3 * SECONDS / value:10,.0f} templates in real time")
    print(f"  making a template: {1e3 * making / len(bank):.2f} ms, once for all segments and detectors")
    report: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "peer": version,
        "templates": len(bank),
        "rates_of_search": {str(rate): chosen.count(rate) for rate in sorted(set(chosen))},
        "ms_per_template": medians,
        "ms_of_all": times,
        "ms_to_make_a_template": 1e3 * making / len(bank),
    }
    passed = True
    if peer:
        difference = float(np.abs(values["full"] / values["function"] - 1).max())
        ratios = {f"{a}/{b}": medians[a] / medians[b] for a in ("engine", "function") for b in ours}
        for name, ratio in ratios.items():
            print(f"  {name:18s}{ratio:6.2f}")
        print(f"  largest SNR, full against PyCBC's function: at most {difference:.1e} apart")
        met = {name: ratios[name] >= TARGET for name in ("engine/band", "function/band")}
        passed = all(met.values()) and difference < 1e-3
        report |= {"ratios": ratios, "target": TARGET, "met": met, "largest_relative_difference_of_snr": difference}
    report["passed"] = passed
    Path(__file__).with_name("matched_filter.json").write_text(json.dumps(report, indent=1) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
