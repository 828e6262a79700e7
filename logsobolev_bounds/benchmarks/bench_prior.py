"""C of a prior on a CPU, from weights to the number: 100 draws on 1,200 digits, in fewer than 3 seconds.

    python logsobolev_bounds/benchmarks/bench_prior.py

In CPU time on one thread: losses and gradients of every draw and example, T1 at 65 alphas, C at lambda = m; against one
autograd call for each draw and materialised exponentials. Writes `prior.json` next to this file; exit status 1 where a
case takes longer than its target.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from bench_timing import finish, medians, row
from logsobolev_bounds.complexity import Mode, grid, per_draw
from logsobolev_bounds.data import Examples, covariance
from logsobolev_bounds.gradnorm import input_grad_sq
from logsobolev_bounds.kernels.tilted_moments import reference
from logsobolev_bounds.layers import Weights
from logsobolev_bounds.models import BayesNet, build, one
from torch import Tensor

DRAWS, POINTS, TARGET = 100, 65, 3000.0  # milliseconds
CASES: tuple[tuple[str, int, Mode], ...] = (
    ("linear", 0, "identity"), ("linear", 0, "total"), ("mlp", 1, "total"), ("mlp", 2, "total"),
)  # fmt: skip


def ours(net: BayesNet, stacked: list[Weights], x: Tensor, y: Tensor, mode: Mode) -> float:
    return per_draw(net, stacked, x, y, grid(1.0, POINTS), mode).complexity(float(len(y)), len(y))[0]


def naive(net: BayesNet, stacked: list[Weights], x: Tensor, y: Tensor, mode: Mode) -> float:
    sigma = covariance(x).to(x) if mode == "total" else None
    loss, g = input_grad_sq([partial(net.at, one(stacked, k)) for k in range(DRAWS)], x, y, sigma)
    _, G = reference.tilted_moments(loss.double(), g.double(), 1 / (POINTS - 1), POINTS)
    H = len(y) / 2 * torch.trapezoid(G, dx=1 / (POINTS - 1), dim=1)
    return float(torch.logsumexp(H, 0)) - torch.tensor(float(DRAWS)).log().item()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each form (default 3)")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    data, rows = Examples(), []
    data.setup()
    for name, depth, mode in CASES:
        net = build(name, data.inputs, data.classes, 0.1, depth)  # type: ignore[arg-type]
        stacked = net.draws(DRAWS, torch.Generator().manual_seed(0), prior=True)
        forms = {
            "ours": partial(ours, net, stacked, data.x, data.y, mode),
            "autograd": partial(naive, net, stacked, data.x, data.y, mode),
        }
        times = medians(forms, repeats)
        got, exact = (form() for form in forms.values())
        what = f"C of {name} depth={depth}, {DRAWS} draws, {data.m} digits, {mode}"
        rows.append(row(what, times, "ours", "autograd", None, abs(got / exact - 1)))
        # The target is a time: as a ratio, how many times the case fits into it.
        fits = {"what": f"{what}: within {TARGET / 1e3:g} s", "target": 1.0, "ratio": TARGET / times["ours"]}
        print(f"  {times['ours'] / 1e3:.2f} s of {TARGET / 1e3:g}: {'met' if fits['ratio'] >= 1 else 'MISSED'}")
        rows.append({**rows[-1], **fits})
    return finish(Path(__file__).with_name("prior.json"), rows, repeats)


if __name__ == "__main__":
    raise SystemExit(main())
