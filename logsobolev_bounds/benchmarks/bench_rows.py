"""Squared input gradients on a CPU: quadratic rows against the gradient itself, and whole passes (kernel K2).

    python logsobolev_bounds/benchmarks/bench_rows.py

All forms are timed in one process on one thread, in CPU time; a ratio is of medians. `rows` starts from the
gradient at the first pre-activation, W Sigma W' included; `whole` is a forward and backward pass of a network with two
hidden layers, against one autograd call for each draw. Writes `rows.json` next to this file; exit status 1 where a
target is missed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from bench_timing import difference, finish, medians, row
from logsobolev_bounds.gradnorm import MLPDraws, input_grad_sq
from logsobolev_bounds.gradnorm.inputs import squared
from logsobolev_bounds.kernels.quadratic_rows import gram_of_first_layer, quadratic_rows
from torch import Tensor
from torch.nn import functional as F

ROWS = ((1, 10_000, 784, 256, True, 5.0), (1, 10_000, 784, 256, False, 1.5), (1, 4_000, 3_072, 256, True, 10.0))
WHOLE = ((4, 512, 784, 256, False, 1.0), (4, 512, 784, 256, True, 1.0), (2, 512, 3_072, 256, False, 1.0))


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator) / shape[-1] ** 0.5


def covariance(generator: torch.Generator, d: int) -> Tensor:
    root = normal(generator, d, d)
    return root @ root.T


def function(draws: MLPDraws, k: int) -> Callable[[Tensor], Tensor]:
    def logits(x: Tensor) -> Tensor:
        for place, w in enumerate(draws.weights):
            x = F.linear(x.relu() if place else x, w[k])
        return x

    return logits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each form (default 5)")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    generator, rows = torch.Generator().manual_seed(0), []
    for K, N, d, h, weighted, target in ROWS:
        delta, W = normal(generator, K, N, h), normal(generator, K, h, d)
        Sigma = covariance(generator, d) if weighted else None
        gram = lambda delta=delta, W=W, Sigma=Sigma: quadratic_rows(delta, gram_of_first_layer(W, Sigma))  # noqa: E731
        direct = lambda delta=delta, W=W, Sigma=Sigma: squared(delta @ W, Sigma)  # noqa: E731
        times = medians({"ours": gram, "gradient": direct}, repeats)
        what = f"rows K={K} N={N} d={d} h={h}" + (" Sigma" if weighted else "")
        rows.append(row(what, times, "ours", "gradient", target, difference(gram(), direct())))
    for K, N, d, h, weighted, target in WHOLE:
        draws = MLPDraws([normal(generator, K, o, i) for i, o in ((d, h), (h, h), (h, 10))])
        x, y = torch.randn(N, d, generator=generator), torch.randint(10, (N,), generator=generator)
        Sigma = covariance(generator, d) if weighted else None
        functions = [function(draws, k) for k in range(K)]
        ours = lambda draws=draws, x=x, y=y, Sigma=Sigma: input_grad_sq(draws, x, y, Sigma)  # noqa: E731
        autograd = lambda draws=functions, x=x, y=y, Sigma=Sigma: input_grad_sq(draws, x, y, Sigma)  # noqa: E731
        times = medians({"ours": ours, "autograd": autograd}, repeats)
        what = f"whole K={K} N={N} d={d} h={h}" + (" Sigma" if weighted else "")
        rows.append(row(what, times, "ours", "autograd", target, difference(ours()[1], autograd()[1])))
    return finish(Path(__file__).with_name("rows.json"), rows, repeats)


if __name__ == "__main__":
    raise SystemExit(main())
