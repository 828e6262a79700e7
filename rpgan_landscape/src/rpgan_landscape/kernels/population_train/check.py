"""What is checked of K1 in the interpreter and on a GPU: weights, velocities, losses and counts of a short training."""

from __future__ import annotations

from typing import Any

import torch
from shared.kernels.harness import Check
from torch import Tensor

from . import population_train, reference
from .recipe import Players, Recipe, parameter_count


def operands(generator: torch.Generator, S: int, n: int, iterations: int) -> tuple[Any, ...]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    d, g = (draw(S, parameter_count(width)) * 0.5 for width in (10, 5))
    x = 4.0 * (torch.arange(n) % 2) + 0.3 * torch.rand(S, n, generator=generator, dtype=torch.float64)
    z = 10 * torch.rand(S, n, generator=generator, dtype=torch.float64) - 5
    windows = torch.tensor([[-0.06, 0.36], [3.94, 4.36]], dtype=torch.float64).expand(S, 2, 2).contiguous()
    rates = torch.full((S,), 1e-2, dtype=torch.float64)
    return (
        d,
        g,
        0.1 * draw(*d.shape),
        0.1 * draw(*g.shape),
        x,
        z,
        windows,
        rates,
        2 * rates,
        torch.arange(S),
        iterations,
    )


def _with(train: Any, recipe: Recipe) -> Any:
    def run(d: Tensor, g: Tensor, dv: Tensor, gv: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        *tensors, iterations = rest
        players, losses, counts = train(Players(d, g, dv, gv), *tensors, recipe, 3, iterations)
        return (*players, losses, counts)

    return run


def cost(S: int, n: int, iterations: int) -> tuple[float, float]:
    """FLOPs of the products (special functions in the time of 16 each), and the entries read and written."""
    step = n * (10 * 10 * 6 * 2 + 5 * 5 * 6 + 16.0 * (20 * 2 + 20 + 10))
    return S * iterations * 20 * step, S * (4.0 * 187 + 2 * n + 3 * iterations)


def check(recipe: Recipe, timed: list[dict[str, int]]) -> Check:
    return Check(
        "population_train",
        _with(population_train, recipe),
        _with(reference.population_train, recipe),
        operands,
        small=[{"S": 2, "n": 37, "iterations": 2}, {"S": 1, "n": 16, "iterations": 1}],
        timed=timed,
        cost=cost,
        part=f"{recipe.loss} {recipe.pairing}{' minimax' if recipe.generator == 'minimax' else ''}",
        gradients=False,
        modes=("fp32",),
        compiled=False,
    )


TIMED = [{"S": 2048, "n": 100, "iterations": 20}]
CHECKS = [
    check(Recipe("js", halved=True), TIMED),
    check(Recipe("rs"), TIMED),
    check(Recipe("rs", "shuffled"), TIMED),
    check(Recipe("rs", "all_pairs"), TIMED),
    check(Recipe("ls"), []),
    check(Recipe("hinge"), []),
    check(Recipe("rp_ls", "shuffled"), []),
    check(Recipe("rp_hinge", "all_pairs", generator="minimax"), []),
    check(Recipe("js", generator="minimax"), []),
    check(Recipe("ls", generator="minimax"), []),
]
