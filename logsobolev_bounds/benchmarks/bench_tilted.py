"""Tilted moments on a CPU: the public function against the materialised definition (kernel K1).

    python logsobolev_bounds/benchmarks/bench_tilted.py

All forms are timed in one process on one thread, in CPU time; a ratio is of medians. `one level` raises the power by
one for every alpha; the public function takes powers at two levels. Writes `tilted.json` next to this file; exit status
1 where a target is missed.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from bench_timing import difference, finish, medians, row
from logsobolev_bounds.kernels.tilted_moments import reference, tilted_moments
from torch import Tensor

SHAPES = (((50, 10_000, 65), 8.0), ((50, 10_000, 129), 8.0), ((200, 1_200, 65), 4.0), ((50, 2_000, 17), 1.0))


def one_level(loss: Tensor, g: Tensor, step: float, T: int) -> tuple[Tensor, Tensor]:
    """e^{-alpha_j s} = (e^{-step s})^j, a draw at a time."""
    low = loss.amin(1, keepdim=True)
    count, total = loss.new_empty(len(loss), T), loss.new_empty(len(loss), T)
    for k, values in enumerate(loss):
        factor = torch.exp((values - low[k]) * -step)
        power = torch.ones_like(factor)
        for j in range(T):
            count[k, j], total[k, j] = power.sum(), power.dot(g[k])
            power *= factor
    return (count / loss.shape[1]).log() - reference.alphas(step, T, loss) * low, total / count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each form (default 7)")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    rows = []
    for (K, N, T), target in SHAPES:
        generator = torch.Generator().manual_seed(0)
        loss, g = 8 * torch.rand(K, N, generator=generator), 3 * torch.rand(K, N, generator=generator)
        forms = {"ours": tilted_moments, "one level": one_level, "materialised": reference.tilted_moments}
        times = medians({name: partial(form, loss, g, 1 / (T - 1), T) for name, form in forms.items()}, repeats)
        exact = reference.tilted_moments(loss[:2].double(), g[:2].double(), 1 / (T - 1), T)
        got = tilted_moments(loss[:2], g[:2], 1 / (T - 1), T)
        off = max(difference(a.double(), b) for a, b in zip(got, exact))
        rows.append(row(f"K={K} N={N} T={T}", times, "ours", "materialised", target, off))
    return finish(Path(__file__).with_name("tilted.json"), rows, repeats)


if __name__ == "__main__":
    raise SystemExit(main())
