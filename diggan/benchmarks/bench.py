"""What DigGAN's penalty costs, against its targets; the operators; a whole step.

    python diggan/benchmarks/bench.py        # or: make bench-diggan

Writes cost.json next to this file; exit status 1 where a target was missed.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path

import torch

from diggan import bench, cost

TARGETS = {"d_ratio": 2.8, "g_ratio": 1.35} if not torch.cuda.is_available() else {"g_ratio": 1.25}


def main() -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    out = cost.measure(ch=16 if device == "cpu" else 64, batch=16 if device == "cpu" else 50, repeats=5, device=device)
    missed = {name: bound for name, bound in TARGETS.items() if out[name] > bound}
    for name, bound in TARGETS.items():
        print(f"{name} {out[name]:.2f}, at most {bound}: {'missed' if name in missed else 'met'}")
    where = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    record = {"device": where, "torch": torch.__version__, "threads": 1, **{k: round(v, 4) for k, v in out.items()}}
    (Path(__file__).with_name("cost.json")).write_text(json.dumps(record, indent=1) + "\n")
    for what in ("kernels", "step"):
        bench.main([what])
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
