"""Populations of two-cluster GANs on a CPU: one tensor program against one GAN at a time, and against `vmap`.

    python rpgan_landscape/benchmarks/bench_population.py

The naive form is the usual training loop, autograd and `torch.optim.SGD` for one GAN; the best alternative maps the
gradient of that GAN's loss over seeds with `torch.func.vmap`. All sides are timed in turn in one process on one thread,
in CPU time; a ratio is of medians. Writes `population.json` next to this file.
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
from rpgan_landscape.kernels.population_train.reference import shuffles
from rpgan_landscape.population import WINDOW, Recipe, draw, run
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, relu

TARGET = 10.0  # times the throughput of one GAN at a time, 32 in a batch
GANS = 32


def cost(loss: str, t: Tensor) -> Tensor:
    if loss in ("js", "rs"):
        return -logsigmoid(-t)  # softplus, exact also above 20
    return relu(1 + t) if loss.endswith("hinge") else (1 + t) ** 2


def difference(recipe: Recipe, high: Tensor, low: Tensor) -> Tensor:
    """`high_i - low_i`, of every pair in the all-pairs form."""
    return high[:, None] - low[None, :] if recipe.pairing == "all_pairs" else high - low


def d_loss(recipe: Recipe, real: Tensor, fake: Tensor) -> Tensor:
    """Section 7 for one GAN: logits of the reals and of the fakes, paired by index."""
    if recipe.relativistic:
        return cost(recipe.loss, difference(recipe, fake, real)).mean()
    fakes = fake**2 if recipe.loss == "ls" else cost(recipe.loss, fake)
    return (cost(recipe.loss, -real).mean() + fakes.mean()) * (0.5 if recipe.halved else 1.0)


def g_loss(recipe: Recipe, real: Tensor, fake: Tensor) -> Tensor:
    if recipe.generator == "minimax":
        if recipe.relativistic:
            return -cost(recipe.loss, difference(recipe, fake, real)).mean()
        return -(fake**2 if recipe.loss == "ls" else cost(recipe.loss, fake)).mean()
    if recipe.relativistic:
        return cost(recipe.loss, difference(recipe, real, fake)).mean()
    return -fake.mean() if recipe.loss == "hinge" else cost(recipe.loss, -fake).mean()


def train_one(
    recipe: Recipe,
    seed: int,
    iterations: int,
    dtype: torch.dtype = torch.float32,
    lr: tuple[float, float] = (0.01, 0.01),
) -> tuple[Tensor, Tensor, list[float], list[list[int]]]:
    """One GAN of the default sizes in the usual loop: its parameters (D, G), D losses and counts of fakes."""
    torch.manual_seed(seed)
    n, centres = 100, (0.0, 4.0)
    x = (torch.tensor(centres).repeat(n // 2) + 0.3 * torch.rand(n)).to(dtype)
    z = (10 * torch.rand(n) - 5).to(dtype)
    torch.rand(n)  # latents of the test
    d = nn.Sequential(nn.Linear(1, 10), nn.Sigmoid(), nn.Linear(10, 10), nn.Sigmoid(), nn.Linear(10, 1)).to(dtype)
    g = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)
    sgd_d = torch.optim.SGD(d.parameters(), lr=lr[0], momentum=recipe.momentum)
    sgd_g = torch.optim.SGD(g.parameters(), lr=lr[1], momentum=recipe.momentum)
    x, z = x[:, None], z[:, None]
    order, losses, counts = torch.arange(n), [], []
    for i in range(iterations):
        if recipe.pairing == "shuffled":
            orders = shuffles(torch.tensor([seed]), i * recipe.steps, recipe.steps, n)[0]
        with torch.no_grad():
            fakes = g(z)
        for k in range(recipe.d_steps):
            if recipe.pairing == "shuffled":
                order = orders[k]
            sgd_d.zero_grad()
            loss = d_loss(recipe, d(x)[:, 0], d(fakes)[order, 0])
            loss.backward()
            sgd_d.step()
        losses.append(loss.item())
        for k in range(recipe.d_steps, recipe.steps):
            if recipe.pairing == "shuffled":
                order = orders[k]
            sgd_g.zero_grad()
            g_loss(recipe, d(x)[:, 0], d(g(z))[order, 0]).backward()
            sgd_g.step()
        with torch.no_grad():
            y = g(z)
        counts.append([int(((y >= c + WINDOW[0]) & (y <= c + WINDOW[1])).sum()) for c in centres])
    return *(nn.utils.parameters_to_vector(net.parameters()).detach() for net in (d, g)), losses, counts


def critic(w: Tensor, x: Tensor, width: int, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """A network 1 - width - width - 1 from one row of parameters, at points [n]."""
    w1, b1, w2, b2, w3, b3 = w.split([width, width, width * width, width, width, 1])
    hidden = activation(torch.outer(x, w1) + b1)
    hidden = activation(hidden @ w2.view(width, width).T + b2)
    return hidden @ w3 + b3


def train_vmap(recipe: Recipe, seeds: range, iterations: int) -> tuple[Tensor, Tensor]:
    """The same GANs (pairing by index): the gradient of one GAN's loss, mapped over seeds."""
    population = draw(seeds)
    x, z, (d, g, v_d, v_g) = population.x, population.z, population.players

    def loss_of_d(d: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return d_loss(recipe, critic(d, x, 10, torch.sigmoid), critic(d, y, 10, torch.sigmoid))

    def loss_of_g(g: Tensor, d: Tensor, x: Tensor, z: Tensor) -> Tensor:
        y = critic(g, z, 5, torch.tanh)
        return g_loss(recipe, critic(d, x, 10, torch.sigmoid), critic(d, y, 10, torch.sigmoid))

    gradient_d, gradient_g = (torch.func.vmap(torch.func.grad(f)) for f in (loss_of_d, loss_of_g))
    fakes = torch.func.vmap(lambda g, z: critic(g, z, 5, torch.tanh))
    for _ in range(iterations):
        y = fakes(g, z)
        for _ in range(recipe.d_steps):
            v_d = recipe.momentum * v_d + gradient_d(d, x, y)
            d = d - 0.01 * v_d
        for _ in range(recipe.g_steps):
            v_g = recipe.momentum * v_g + gradient_g(g, d, x, z)
            g = g - 0.01 * v_g
    return d, g


JS = Recipe("js", halved=True)
VARIANTS = (JS, Recipe("rs"), Recipe("rs", "shuffled"), Recipe("rs", "all_pairs"), Recipe("rp_ls", "all_pairs"))


def per_step(sides: dict[str, Callable[[int], Any]], iterations: dict[str, int], repeats: int) -> dict[str, float]:
    """Median milliseconds of an inner step: CPU time of this thread, the sides in turn."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side(1)
    for _ in range(repeats):
        for name, side in sides.items():
            start = time.thread_time()
            side(iterations[name])
            times[name].append((time.thread_time() - start) * 1e3 / (iterations[name] * JS.steps))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each side (default 7)")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    sides: dict[str, Callable[[int], Any]] = {
        "one at a time": lambda k: train_one(JS, 0, k),
        "vmap": lambda k: train_vmap(JS, range(GANS), k),
        "batched": lambda k: run(JS, range(GANS), k),
    }
    times = per_step(sides, {"one at a time": 20, "vmap": 20, "batched": 40}, repeats)
    d, g = train_vmap(JS, range(GANS), 3)
    ours = run(JS, range(GANS), 3).population.players
    difference = max((d - ours.d).abs().max().item(), (g - ours.g).abs().max().item())
    alone, mapped, batched = times["one at a time"], times["vmap"] / GANS, times["batched"] / GANS
    for name, ms in (("one at a time", alone), (f"vmap, {GANS}", mapped), (f"batched, {GANS}", batched)):
        whole = 5000 * JS.steps * ms / 1e3
        print(f"{name:16} {ms * 1e3:8.2f} us a step and GAN   {alone / ms:6.1f}x   {whole:6.2f} s a GAN")
    print(f"batched over vmap {mapped / batched:.1f}x; the same weights after 60 steps to {difference:.0e}")
    rows = []
    for size in (1, 8, GANS, 128):
        for recipe in VARIANTS if size in (8, GANS) else VARIANTS[:1]:
            side = {"": lambda k, recipe=recipe, size=size: run(recipe, range(size), k)}
            ms = per_step(side, {"": 20}, repeats)[""]
            rows.append({"gans": size, "loss": recipe.loss, "pairing": recipe.pairing, "ms_per_step": ms})
            print(
                f"{size:4} GANs {recipe.loss:5} {recipe.pairing:9} {ms:6.3f} ms a step {ms / size * 1e3:7.2f} us a GAN"
            )
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "torch": torch.__version__,
        "repeats": repeats,
        "gans": GANS,
        "ms_per_step_and_gan": {"one_at_a_time": alone, "vmap": mapped, "batched": batched},
        "ratio_to_one_at_a_time": alone / batched,
        "ratio_to_vmap": mapped / batched,
        "target": TARGET,
        "largest_difference_after_60_steps": difference,
        "sizes": rows,
    }
    Path(__file__).with_name("population.json").write_text(json.dumps(document, indent=1) + "\n")
    met = alone / batched >= TARGET
    print(f"{alone / batched:.0f}x one GAN at a time, target {TARGET:.0f}x: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
