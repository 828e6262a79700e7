"""What the networks cost: a training step, a stretch scored at once or by windows, one window, a hop of a stream.

    python mma_realtime/benchmarks/bench_network.py

On one thread, in CPU time; what is compared takes turns, so that a busy machine troubles all alike. `floor`: the
floating-point operations of the row at the rate of a product of 1024 x 1024 matrices in the same run. What limits a
training step is the largest of three shares of its CPU time: matrix work (the convolutions and matrix products in it),
launch (the same step on one window, where there is next to nothing to compute: an upper bound), and what is left, at
least so much memory traffic (pooling, activations, copies, the optimiser). Writes
`network.json` next to this file; exit status 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mma_realtime.models import (
    SMALL,
    CoherentResNet1d,
    DeepFilterDeep,
    DeepFilterShallow,
    SearchNetwork,
    WaveNet,
    WaveNetStream,
    keep_freed_memory,
)
from mma_realtime.models.deepfilter import DeepFilter
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

BATCH, RATE, PER_SECOND = 128, 1024, 16
STEP_TARGET = 1.5  # times as fast as the plain layers
DENSE_TARGET = 5.0  # times as fast as window by window
REAL_TIME_TARGET = 100.0  # two detectors, 16 windows a second
MATRIX_WORK = {"convolution", "convolution_backward", "mm", "addmm", "bmm"}  # aten operators, forward and backward


def in_turn(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(repeats + 2):
        for name, function in functions.items():
            start = time.thread_time()
            function()
            if number >= 2:
                times[name].append(1e3 * (time.thread_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def gemm_rate() -> float:
    """GFLOP/s."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2 * 1024**3 / in_turn({"product": lambda: a @ b}, 15)["product"] / 1e6


def multiplications(net: DeepFilter, samples: int) -> tuple[list[int], int]:
    """Of each convolution over so many samples, and of the linear layers for one window."""
    each, width = [], net.channels
    for stage in net.stages:
        samples = samples - stage.reach + 1
        each.append(samples * stage.width * width * stage.kernel)
        samples, width = samples // 4, stage.width
    return each, sum(layer.weight.numel() for layer in net.head if isinstance(layer, nn.Linear))


class MatrixClock(TorchDispatchMode):
    """Adds up the CPU milliseconds of the operators in `MATRIX_WORK` that run under it, backward ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.milliseconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = time.thread_time()
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in MATRIX_WORK:
            self.milliseconds += 1e3 * (time.thread_time() - start)
        return out


def limit_of(step: Callable[[], Any], one_window: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """What limits a training step: shares of its CPU time, and the largest of them in words."""
    matrix: list[float] = []

    def clocked() -> None:
        with MatrixClock() as clock:
            step()
        matrix.append(clock.milliseconds)

    times = in_turn({"step": step, "one window": one_window, "clocked": clocked}, repeats)
    work, launch = statistics.median(matrix[2:]) / times["step"], times["one window"] / times["step"]
    shares = {"matrix work": work, "launch": launch, "memory traffic": max(0.0, 1 - work - launch)}
    limit = max(shares, key=lambda name: shares[name])
    print(
        f"training step, shallow network: limited by {limit}. Of its {times['step']:.3g} ms convolutions and matrix "
        f"products take {work:.0%}, launches at most {launch:.0%}, the rest is memory traffic"
    )
    return {"limited_by": limit, **shares}


def step_of(net: nn.Module, x: torch.Tensor, label: torch.Tensor, fused: bool) -> Callable[[], Any]:
    optimiser = torch.optim.Adam(net.parameters(), 1e-3, fused=fused)

    def step() -> None:
        optimiser.zero_grad()
        out = net(x)
        loss = F.cross_entropy(out, label) if out.shape[1] == 2 else F.cross_entropy(F.pad(out, (1, 0)), label)
        loss.backward()
        optimiser.step()

    return step


def row(what: str, times: dict[str, float], **more: Any) -> dict[str, Any]:
    words = "  ".join(f"{name} {value:.3g} ms" for name, value in times.items())
    print(
        f"{what}: {words}  "
        + "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in more.items())
    )
    return {"what": what, "milliseconds": times, **more}


def training(gflops: float, repeats: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    x, label = torch.randn(BATCH, 1, RATE), torch.randint(0, 2, (BATCH,))
    net = DeepFilterShallow(RATE)
    plain = nn.Sequential(*net.trunk, *net.head)
    times = in_turn({"ours": step_of(net, x, label, True), "plain layers": step_of(plain, x, label, False)}, repeats)
    (first, *others), head = multiplications(net, RATE)
    # Backward: the weights' and the inputs' gradients, but none for the strain itself.
    operations = 2 * BATCH * (2 * first + 3 * sum(others) + 3 * head)
    floor = operations / gflops / 1e6
    ratio = times["plain layers"] / times["ours"]
    alone = DeepFilterShallow(RATE)
    limit = limit_of(step_of(alone, x, label, True), step_of(alone, x[:1], label[:1], True), repeats)
    rows = [row(
        f"training step, shallow network, {BATCH} windows of {RATE} samples", times, ratio=ratio, target=STEP_TARGET,
        met=ratio >= STEP_TARGET, floor=floor, over_floor=times["ours"] / floor, **limit,
    )]  # fmt: skip
    two = torch.randn(BATCH, 2, RATE)
    residual = CoherentResNet1d(RATE, **SMALL)
    count = sum(p.numel() for p in residual.parameters())
    times = in_turn({"ours": step_of(residual, two, label, True)}, max(3, repeats // 5))
    rows.append(row(f"training step, residual network of {count} parameters, two detectors", times))
    return rows


@torch.no_grad()
def scoring(gflops: float, repeats: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    net, seconds, hop = DeepFilterShallow(RATE).eval(), 64, RATE // PER_SECOND
    x = torch.randn(2, seconds * RATE)

    def windows() -> torch.Tensor:
        return SearchNetwork.dense(net, x[:, None], hop)

    times = in_turn({"at once": lambda: net.statistic_series(x, hop), "windows": windows}, repeats)
    each, head = multiplications(net, seconds * RATE)
    floor = 2 * 2 * (sum(each) + head * ((seconds - 1) * PER_SECOND + 1)) / gflops / 1e6
    ratio, faster = times["windows"] / times["at once"], 1e3 * seconds / times["at once"]
    rows = [row(
        f"{seconds} s of two detectors at {PER_SECOND} windows a second, shallow network", times, ratio=ratio,
        target=DENSE_TARGET, real_time_factor=faster, floor=floor, over_floor=times["at once"] / floor,
        met=ratio >= DENSE_TARGET and faster >= REAL_TIME_TARGET,
    )]  # fmt: skip
    short = torch.randn(2, 2 * RATE)
    rows.append(row("one hop of 1 s of two detectors (17 windows each)", in_turn(
        {"ours": lambda: net.statistic_series(short, hop)}, 5 * repeats)))  # fmt: skip
    one = torch.randn(1, 1, RATE)
    rows.append(row("one window, shallow network at 1024 Hz", in_turn({"ours": lambda: net(one)}, 5 * repeats)))
    long = torch.randn(1, 1, 8192)
    for name, big, published in (
        ("shallow", DeepFilterShallow(8192).eval(), {"cpu": 6.7, "gpu": 0.106}),
        ("deep", DeepFilterDeep(8192).eval(), {}),
    ):
        times = in_turn({"ours": lambda big=big: big(long)}, repeats)  # type: ignore[misc]
        convolved, linear = multiplications(big, 8192)
        floor = 2 * (sum(convolved) + linear) / gflops / 1e6
        more = {"floor": floor, "over_floor": times["ours"] / floor, "published_milliseconds": published}
        rows.append(row(f"one window, {name} network at 8192 Hz", times, **more))
    return rows


@torch.no_grad()
def streaming(repeats: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    net = WaveNet(2048).eval()
    stream, x = WaveNetStream(net), torch.randn(2, 2048)
    last = torch.randn(1, 2, net.reach - 1 + 128)
    hop = x[:, :128]
    times = in_turn(
        {"hop of 1/16 s": lambda: stream.push(hop), "the same by windows": lambda: net.settled(last),
         "hop of 1 s": lambda: stream.push(x)}, repeats,
    )  # fmt: skip
    ratio = times["the same by windows"] / times["hop of 1/16 s"]
    return [row(
        "WaveNet of two detectors at 2048 Hz, streamed", times, ratio=ratio,
        real_time_factor=1e3 / times["hop of 1 s"], target=1.0, met=ratio > 1.0,
    )]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20, help="timed calls of each (default 20)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    gflops = gemm_rate()
    print(f"products of 1024 x 1024: {gflops:.0f} GFLOP/s")
    rows = [*training(gflops, options.repeats), *scoring(gflops, options.repeats), *streaming(options.repeats)]
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "torch": torch.__version__,
        "gflops": gflops,
        "rows": rows,
    }
    Path(__file__).with_name("network.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row.get("met", True) for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
