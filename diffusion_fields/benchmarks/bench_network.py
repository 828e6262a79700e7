"""The quick network's training step against its matrix products, and sampling against re-encoding for every chunk.

    python diffusion_fields/benchmarks/bench_network.py

On one thread, in CPU time. `step` is a forward and backward pass of the circle network of the quick tier (batch 64,
16 context and 48 query points); `products` replays every matrix product of that same step on its own operands; the
table says where the rest goes, each operation replayed alone. `sampling` takes 50 DDIM steps at 64 x 64 with a network
for 16 x 16 (256 context points), queries in chunks: latents once per step and coordinates once per run, against a
network that is called anew for every chunk. Writes `network.json` next to this file; exit status 1 where a target is
missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusion_fields.models import ScoreNetwork
from diffusion_fields.sampling import sample
from diffusion_fields.schedules import make_schedule
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
STEP_TARGET, SAMPLING_TARGET = 1.3, 3.0
CHUNK = 128


class Record(TorchDispatchMode):
    """Every operation below it, to be called again on the operands it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Callable[[], Any]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        like = [a.detach() if isinstance(a, Tensor) else a for a in args]
        name = function._overloadpacket.__name__
        self.calls.append((name, lambda: function(*like, **(kwargs or {}))))
        return out


def in_turn(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each, the functions taking turns so that a busy machine troubles all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(repeats + 2):
        for name, function in functions.items():
            start = time.thread_time()
            function()
            if number >= 2:
                times[name].append(1e3 * (time.thread_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def training_step(repeats: int) -> dict[str, Any]:
    torch.manual_seed(0)
    net = ScoreNetwork(2, 1, 2, 32, 12, 32, 2, 1, 4, signal_embedding="raw")
    grid, y, t, context = (
        torch.randn(48, 2),
        torch.randn(64, 48, 1),
        torch.randint(0, 1000, (64,)),
        torch.arange(16) * 3,
    )

    def step() -> None:
        net.zero_grad()
        (net(grid[context], y[:, context], t, grid, y) - y).square().mean().backward()

    with Record() as record:
        step()
    products = [call for name, call in record.calls if name in PRODUCTS]

    def replay() -> None:
        for call in products:
            call()

    times = in_turn({"step": step, "products": replay}, repeats)
    table: dict[str, list[float]] = defaultdict(list)
    with torch.no_grad():
        for name, call in record.calls:
            table[name].append(in_turn({name: call}, 5)[name])
    ratio = times["step"] / times["products"]
    verdict = "met" if ratio <= STEP_TARGET else "MISSED"
    print(f"training step {times['step']:.1f} ms, its {len(products)} products {times['products']:.1f} ms:", end=" ")
    print(f"{ratio:.2f}x (target {STEP_TARGET:g}x: {verdict}); {len(record.calls)} operations")
    profile = sorted(((sum(v), len(v), k) for k, v in table.items()), reverse=True)
    for total, count, name in profile[:16]:
        print(f"  {name:28s} {count:4d} calls {total:7.3f} ms")
    print(f"  all operations, each alone   {sum(p[0] for p in profile):7.3f} ms")
    rows = [{"operation": name, "calls": count, "milliseconds": total} for total, count, name in profile]
    return {
        "what": "training step, quick circle network", "ratio": ratio, "target": STEP_TARGET, "met": verdict == "met",
        "milliseconds": times, "operations": len(record.calls), "products": len(products), "profile": rows,
    }  # fmt: skip


def sampling(repeats: int, steps: int) -> dict[str, Any]:
    torch.manual_seed(0)
    net = ScoreNetwork(2, 1, 4, 64, 16, 64, 2, 1, 4).eval()
    axis = (2 * torch.arange(64) + 1) / 64 - 1
    grid = torch.cartesian_prod(axis, axis)
    index, schedule = torch.randperm(len(grid))[:256], make_schedule("cosine", 1000)

    def run(network: Any) -> Tensor:
        seeded = torch.Generator().manual_seed(0)
        return sample(network, grid, 1, 256, schedule, "ddim", steps, 0.0, 1.0, "v", seeded, CHUNK, index, signal_dim=1)

    def anew(cx: Tensor, cy: Tensor, t: Tensor, qx: Tensor, qy: Tensor) -> Tensor:
        out: Tensor = net(cx, cy, t, qx, qy)
        return out

    times = in_turn({"ours": lambda: run(net), "anew": lambda: run(anew)}, repeats)
    off = (run(net) - run(anew)).abs().max().item()
    ratio = times["anew"] / times["ours"]
    verdict = "met" if ratio >= SAMPLING_TARGET else "MISSED"
    print(f"sampling 64 x 64, {steps} steps, chunks of {CHUNK}: {times['ours']:.0f} ms, encoding anew", end=" ")
    print(f"{times['anew']:.0f} ms: {ratio:.2f}x (target {SAMPLING_TARGET:g}x: {verdict}); same numbers to {off:.0e}")
    return {
        "what": f"sampling 64 x 64, {steps} steps, chunks of {CHUNK}", "ratio": ratio, "target": SAMPLING_TARGET,
        "met": verdict == "met", "milliseconds": times, "difference": off,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=100, help="timed training steps (default 100)")
    parser.add_argument("--steps", type=int, default=50, help="sampling steps (default 50)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [training_step(options.repeats), sampling(3, options.steps)]
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "torch": torch.__version__,
        "rows": rows,
    }
    Path(__file__).with_name("network.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
