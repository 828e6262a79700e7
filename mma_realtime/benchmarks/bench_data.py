"""What simulated data cost: signal bank, noise bank, a batch, and its share of a training step of the quick net.

    python mma_realtime/benchmarks/bench_data.py

On one thread, in CPU time, the timed functions taking turns so that a busy machine troubles all alike. `bank` is 1,000
whitened four-second waveforms at 1024 Hz (drawn, evaluated, whitened, transformed); `floor` is the inverse FFTs of such
a bank alone. `step` is a forward and backward pass of the quick net on 128 windows of one second, with the optimiser's
step. Writes `data.json` next to this file; exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import cProfile
import datetime
import json
import platform
import pstats
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mma_realtime.data.bank import make_noise_bank, make_signal_bank
from mma_realtime.data.simulated import SimulatedBBH
from mma_realtime.models.deepfilter import DeepFilterShallow

BANK_TARGET, SHARE_TARGET = 1.0, 0.2  # s for 1,000 waveforms; of a training step
NETWORKS = {1: {}, 2: {"channels": 2}}  # a coherent net of two detectors: the same one with two channels


def in_turn(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each, the functions taking turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(repeats + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if number:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def banks(repeats: int) -> list[dict[str, Any]]:
    spectrum = torch.randn(1000, 2305, dtype=torch.complex64)  # 4.5 s: four seconds and the stretch that fades in
    times = in_turn(
        {
            "bank": lambda: make_signal_bank(1000, 0, duration=4.0),
            "bank, two detectors": lambda: make_signal_bank(1000, 0, duration=4.0, detectors=("H1", "L1")),
            "floor": lambda: torch.fft.irfft(spectrum, 4608),
            "training": lambda: make_signal_bank(2000, 0, duration=1.28),
            "noise": lambda: make_noise_bank(1024.0, 0),
            "conditioned noise": lambda: make_noise_bank(128.0, 0, conditioned=True),
        },
        repeats,
    )
    met = times["bank"] <= BANK_TARGET
    print(
        f"bank of 1,000 four-second waveforms: {times['bank']:.3f} s (target {BANK_TARGET:g} s: {said(met)}),", end=" "
    )
    print(f"{times['bank'] / times['floor']:.1f}x its inverse FFTs; two detectors {times['bank, two detectors']:.3f} s")
    print(f"bank of 20,000 training signals: {10 * times['training']:.2f} s")
    print(f"noise: 1,000 s in {times['noise'] / 1.024:.4f} s, conditioned {times['conditioned noise'] / 0.128:.2f} s")
    return [
        {"what": "bank of 1,000 four-second waveforms, 1024 Hz", "seconds": times["bank"], "target": BANK_TARGET,
         "met": met, "over_floor": times["bank"] / times["floor"]},
        {"what": "the same for two detectors", "seconds": times["bank, two detectors"]},
        {"what": "bank of 20,000 training signals of 1.28 s (a tenth measured)", "seconds": 10 * times["training"]},
        {"what": "1,000 s of white noise in the band", "seconds": times["noise"] / 1.024},
        {"what": "1,000 s of conditioned noise", "seconds": times["conditioned noise"] / 0.128},
    ]  # fmt: skip


def share(detectors: int, glitches: float, repeats: int) -> dict[str, Any]:
    torch.manual_seed(0)
    data = SimulatedBBH(detectors=detectors, glitch_probability=glitches, bank_size=5000, steps=10**6, seed=0)
    data.setup("fit")
    net = DeepFilterShallow(1024, **NETWORKS[detectors])
    optimiser = torch.optim.Adam(net.parameters())
    given, numbers = data.batch(0), iter(range(10**6))

    def step() -> None:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(given.x), given.label.long()).backward()
        optimiser.step()

    times = in_turn({"batch": lambda: data.batch(next(numbers)), "step": step}, repeats)
    part = times["batch"] / (times["batch"] + times["step"])
    met = part <= SHARE_TARGET
    what = f"batch of 128 windows, {detectors} detector{'s' * (detectors > 1)}, {glitches:.0%} glitches"
    print(f"{what}: {1e3 * times['batch']:.2f} ms, step {1e3 * times['step']:.1f} ms:", end=" ")
    print(f"{part:.1%} of a training step (target {SHARE_TARGET:.0%}: {said(met)})")
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    for _ in range(50):
        data.batch(next(numbers))
    profiler.disable()
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    whole = sum(entry[2] for entry in stats.values())
    top = sorted(((entry[2] / whole, name[2]) for name, entry in stats.items()), reverse=True)[:8]
    for fraction, name in top:
        print(f"  {name:60s} {fraction:6.1%}")
    profile = [{"function": name, "share": fraction} for fraction, name in top]
    return {"what": what, "share": part, "target": SHARE_TARGET, "met": met,
            "milliseconds": {name: 1e3 * value for name, value in times.items()}, "profile": profile}  # fmt: skip


def said(met: bool) -> str:
    return "met" if met else "MISSED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30, help="timed batches and steps (default 30)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = banks(3)
    rows += [share(d, glitches, options.repeats) for d, glitches in ((1, 0.0), (1, 0.4), (2, 0.4))]
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "torch": torch.__version__,
        "rows": rows,
    }
    Path(__file__).with_name("data.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row.get("met", True) for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
