"""Populations of two-cluster GANs: S seeds trained as one tensor program (sections 5.1, 6 and 8 of the specification).

    run = population.run(Recipe("rs"), seeds=range(32), iterations=5000)
    run.d_loss, run.counts          # [32, 5000], [32, 5000, 2]

A GAN of a population depends on its own seed alone: trained in another population, or by itself, it is the same GAN.
One step of 32 GANs costs little more than six steps of one, and less than one step of one GAN in a training loop with
autograd (`benchmarks/bench_population.py`). With a directory a run saves itself and, killed, goes on to the same bits.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from shared.errors import UserError, disk_error
from torch import Tensor, nn

from .kernels.population_train import Players, Recipe, population_train, width_of

WINDOW = (-0.06, 0.36)  # of a cluster with points in [c, c + 0.3): fakes in [c - 0.06, c + 0.36] have hit it
CENTRES = (0.0, 4.0)
SPREAD = 0.3
CHECKPOINT = "population.pt"

__all__ = ["Players", "Population", "Recipe", "Run", "discriminate", "draw", "generate", "run", "two_cluster"]


@dataclass(frozen=True)
class Population:
    """S GANs and the data that each is trained on.

    Args:
        seeds: what each was drawn from.
        centres: left ends c of the two clusters.
        x, z: real points and training latents, a pair by index; z_test: latents that are not trained on.
        players: weights (D, G) and velocities, one row per GAN.
    """

    seeds: tuple[int, ...]
    centres: Float[Tensor, "S 2"]
    x: Float[Tensor, "S n"]
    z: Float[Tensor, "S n"]
    z_test: Float[Tensor, "S n"]
    players: Players


@dataclass(frozen=True)
class Run:
    """What a population did.

    Args:
        d_loss: D's loss at its last step of each iteration, before the update.
        counts: fakes of the training latents in each cluster's window at the end of each iteration.
        population: the GANs after the last iteration.
    """

    d_loss: Float[Tensor, "S iterations"]
    counts: Int[Tensor, "S iterations 2"]
    population: Population


def two_cluster(
    generator: torch.Generator, n: int = 100, centres: tuple[float, float] = CENTRES
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Real points, latents and test latents of one GAN (section 6): x_i = c_(i mod 2) + U[0, 0.3), z_i = U(-5, 5)."""
    centre = torch.tensor(centres).repeat((n + 1) // 2)[:n]
    x = centre + SPREAD * torch.rand(n, generator=generator)
    z, z_test = (10 * torch.rand(n, generator=generator) - 5 for _ in range(2))
    return x, z, z_test


def initial_weights(generator: torch.Generator, width: int) -> Float[Tensor, " parameters"]:
    """Weights of a network 1 - width - width - 1 as `torch.nn.Linear` initialises them, layer by layer."""
    parts = []
    for inputs, outputs in ((1, width), (width, width), (width, 1)):
        weight, bias = torch.empty(outputs, inputs), torch.empty(outputs)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        bias.uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
        parts += [weight.flatten(), bias]
    return torch.cat(parts)


def draw(
    seeds: Sequence[int],
    *,
    n: int = 100,
    centres: tuple[float, float] | Sequence[tuple[float, float]] = CENTRES,
    d_width: int = 10,
    g_width: int = 5,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Population:
    """Data and initial weights of each seed: x, z, z_test, D layer by layer, G layer by layer.

    These are the draws that a program for one GAN makes after `torch.manual_seed(seed)` when it draws its data as
    `two_cluster` does and then builds D and G of `nn.Linear` layers. They are made in float32 whatever the dtype.

    Args:
        seeds: one for each GAN; the same seed may stand several times (with other centres or learning rates).
        n: points of each GAN.
        centres: left ends of the clusters, of all GANs or of each.
        d_width, g_width: widths of the hidden layers.

    Raises:
        UserError: no seeds, fewer than 2 points, a width below 1, or pairs of centres that are not one for each seed.
    """
    seeds = tuple(int(s) for s in seeds)
    if not seeds:
        raise UserError("no seeds: a population needs at least one")
    if n < 2:
        raise UserError(f"n = {n}: two clusters need at least 2 points")
    if d_width < 1 or g_width < 1:
        raise UserError(f"d_width = {d_width} and g_width = {g_width}: both have to be at least 1")
    table = torch.tensor(centres, dtype=torch.float32)
    if table.shape not in ((2,), (len(seeds), 2)):
        raise UserError(f"centres of shape {tuple(table.shape)}: give one pair, or one for each of {len(seeds)} GANs")
    table = table.expand(len(seeds), 2)
    rows = []
    for seed, pair in zip(seeds, table.tolist()):
        generator = torch.Generator().manual_seed(seed)
        data = two_cluster(generator, n, (pair[0], pair[1]))
        rows.append((*data, initial_weights(generator, d_width), initial_weights(generator, g_width)))
    x, z, z_test, d, g = (torch.stack(column).to(device, dtype) for column in zip(*rows))
    players = Players(d, g, torch.zeros_like(d), torch.zeros_like(g))
    return Population(seeds, table.to(device, dtype), x, z, z_test, players)


def network(
    parameters: Float[Tensor, "S parameters"], inputs: Float[Tensor, "S m"], activation: Callable[[Tensor], Tensor]
) -> Float[Tensor, "S m"]:
    width, hidden = width_of(parameters), inputs[:, None]
    shapes = [(width, 1), (width, 1), (width, width), (width, 1), (1, width), (1, 1)]
    parts = parameters.split([a * b for a, b in shapes], 1)
    w1, b1, w2, b2, w3, b3 = (p.reshape(-1, *shape) for p, shape in zip(parts, shapes))
    hidden = activation(torch.baddbmm(b1, w1, hidden))
    hidden = activation(torch.baddbmm(b2, w2, hidden))
    return torch.baddbmm(b3, w3, hidden)[:, 0]


def generate(population: Population, z: Float[Tensor, "S m"]) -> Float[Tensor, "S m"]:
    """G of each GAN at latents of its own: fakes."""
    return network(population.players.g, z, torch.tanh)


def discriminate(population: Population, points: Float[Tensor, "S m"]) -> Float[Tensor, "S m"]:
    """D of each GAN at points of its own: logits."""
    return network(population.players.d, points, torch.sigmoid)


def rates(name: str, lr: float | Sequence[float], size: int) -> list[float]:
    """A learning rate for each GAN.

    Raises:
        UserError: not one rate or one for each GAN, or a rate that is negative or not finite.
    """
    out = [float(lr)] * size if isinstance(lr, int | float) else [float(v) for v in lr]
    if len(out) != size:
        raise UserError(f"{name} has {len(out)} learning rates for {size} GANs: give one, or one for each")
    if not all(math.isfinite(v) and v >= 0 for v in out):
        raise UserError(f"{name} holds a learning rate that is negative or not finite")
    return out


def run(
    recipe: Recipe,
    seeds: Sequence[int],
    iterations: int,
    *,
    lr_d: float | Sequence[float] = 1e-2,
    lr_g: float | Sequence[float] = 1e-2,
    n: int = 100,
    centres: tuple[float, float] | Sequence[tuple[float, float]] = CENTRES,
    d_width: int = 10,
    g_width: int = 5,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    directory: Path | None = None,
    save_every: int = 500,
) -> Run:
    """Draw a GAN for each seed and train them together (section 8, reference two-cluster recipe).

    On a CPU use one thread (`torch.set_num_threads(1)`): the products are too small to be shared. On a GPU the kernel
    K1 trains each GAN in a program of its own.

    Args:
        recipe: losses and schedule.
        seeds, n, centres, d_width, g_width, dtype, device: as for `draw`.
        iterations: how many, from the start of training.
        lr_d, lr_g: learning rates, of all GANs or of each.
        directory: where the run is saved; if it holds a run with these settings, that run goes on.
        save_every: iterations between two saves.

    Raises:
        UserError: settings that mean nothing, a directory with another run, a longer run or a damaged file, a full
            disk.
    """
    if iterations < 1 or save_every < 1:
        raise UserError(f"iterations = {iterations} and save_every = {save_every}: both have to be at least 1")
    population = draw(seeds, n=n, centres=centres, d_width=d_width, g_width=g_width, dtype=dtype, device=device)
    by_d, by_g = (rates(k, v, len(population.seeds)) for k, v in (("lr_d", lr_d), ("lr_g", lr_g)))
    settings = {
        **asdict(recipe),
        "seeds": list(population.seeds),
        "lr_d": by_d,
        "lr_g": by_g,
        "n": n,
        "centres": population.centres.tolist(),
        "widths": [d_width, g_width],
        "dtype": str(dtype),
    }
    path = None if directory is None else Path(directory) / CHECKPOINT
    done = Run(population.x.new_empty(len(seeds), 0), torch.empty(len(seeds), 0, 2, dtype=torch.int32), population)
    if path is not None and path.exists():
        done = load(path, settings, done, iterations)
    rate_d, rate_g = (torch.tensor(r, dtype=dtype, device=device) for r in (by_d, by_g))
    while (first := done.d_loss.shape[1]) < iterations:
        leg = iterations - first if path is None else min(save_every - first % save_every, iterations - first)
        done = train(done, recipe, rate_d, rate_g, leg)
        if path is not None:
            save(path, settings, done)
    return done


def train(run: Run, recipe: Recipe, lr_d: Float[Tensor, " S"], lr_g: Float[Tensor, " S"], iterations: int) -> Run:
    """A run and some iterations more."""
    old = run.population
    windows = torch.stack([old.centres + edge for edge in WINDOW], 2)
    seeds = torch.tensor(old.seeds, device=old.x.device)
    first = run.d_loss.shape[1]
    players, d_loss, counts = population_train(
        old.players, old.x, old.z, windows, lr_d, lr_g, seeds, recipe, first, iterations
    )
    new = Population(old.seeds, old.centres, old.x, old.z, old.z_test, players)
    return Run(torch.cat([run.d_loss, d_loss.to(run.d_loss)], 1), torch.cat([run.counts, counts.cpu()], 1), new)


def save(path: Path, settings: dict[str, Any], run: Run) -> None:
    """Replace the checkpoint by one rename: whenever the process dies, the file is whole.

    Raises:
        UserError: no space left.
    """
    state = {"settings": settings, "players": list(run.population.players), "d_loss": run.d_loss, "counts": run.counts}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise disk_error(error, path) or error from None


def load(path: Path, settings: dict[str, Any], start: Run, iterations: int) -> Run:
    """The run saved in `path`, which has to be one with these settings.

    Raises:
        UserError: another run's settings, more iterations than are asked for, or a damaged file.
    """
    try:
        state = torch.load(path, map_location=start.population.x.device, weights_only=True)
        saved, players, done = state["settings"], Players(*state["players"]), state["d_loss"].shape[1]
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
        raise UserError(f"{path} is damaged: delete it and run the same command again") from None
    other = sorted(k for k in settings if saved.get(k) != settings[k])
    if other:
        raise UserError(f"{path} is of a run with other {', '.join(other)}: choose another directory, or delete it")
    if done > iterations:
        raise UserError(f"{path} has {done} iterations already, {iterations} are asked for: ask for as many, or more")
    old = start.population
    population = Population(old.seeds, old.centres, old.x, old.z, old.z_test, players)
    return Run(state["d_loss"], state["counts"].cpu(), population)
