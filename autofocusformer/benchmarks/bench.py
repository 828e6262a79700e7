"""What a forward pass costs against its floor: replace it by what this paper is fast at.

Run it by `make bench-autofocusformer`.
"""

from __future__ import annotations

import statistics
import time

import torch
from autofocusformer.model import Net


def main() -> int:
    torch.set_num_threads(1)
    net, x, times = Net(64, 64, 10, 0.0).eval(), torch.rand(500, 64), []
    with torch.no_grad():
        for _ in range(30):
            start = time.thread_time()
            net(x)
            times.append(time.thread_time() - start)
    flops = 2 * 500 * (64 * 64 + 64 * 10)
    median = statistics.median(times)
    print(f"500 images: {median * 1e6:.0f} us, {flops / median / 1e9:.1f} GFLOP/s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
