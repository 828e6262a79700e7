"""K1: a population of two-cluster GANs trained to the end, each in one program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.kernels.backend import use_triton
from torch import Tensor

from . import reference
from .recipe import LOSSES, PAIRINGS, Players, Recipe, parameter_count, width_of

if TYPE_CHECKING:  # the kernels run where only torch and triton are installed
    from jaxtyping import Float, Int

__all__ = ["LOSSES", "PAIRINGS", "Players", "Recipe", "parameter_count", "population_train", "width_of"]


def population_train(
    players: Players,
    x: Float[Tensor, "S n"],
    z: Float[Tensor, "S n"],
    windows: Float[Tensor, "S 2 2"],
    lr_d: Float[Tensor, " S"],
    lr_g: Float[Tensor, " S"],
    seeds: Int[Tensor, " S"],
    recipe: Recipe,
    first: int,
    iterations: int,
) -> tuple[Players, Float[Tensor, "S iterations"], Int[Tensor, "S iterations 2"]]:
    """Train S GANs 1 - w - w - 1 (D sigmoid, G tanh) for some iterations of `d_steps` steps of D, `g_steps` of G.

    Full batch, gradients averaged over n, momentum as in `torch.optim.SGD`; the fakes are held fixed during the steps
    of D (section 8 of the specification). Nothing is random but the order of a shuffled pairing, a function of
    (seed, step, point).

    Args:
        players: weights and velocities; not changed.
        x, z: real points and latents; row i of one GAN is a pair.
        windows: of each of two clusters the lowest and the highest value that counts as hit.
        lr_d, lr_g: learning rates of each GAN.
        seeds: of the shuffled pairing (the lowest 32 bits are used).
        recipe: losses and schedule.
        first: number of the first iteration, where a run goes on.
        iterations: how many.

    Returns:
        The players afterwards; D's loss at its last step of every iteration, before the update; how many fakes (of
        `z`) lie in each window at the end of every iteration.

    Raises:
        ValueError: rows of parameters of no width; shuffled pairing of more than 4096 points; on a GPU, more than 256
            points or a width above 32 (what one program holds on chip: `KERNEL_BACKEND=reference` has no limit).

    For n = 100, widths 10 and 5, a GAN's 5000 iterations of 10 + 10 steps are 100,000 steps: 15 GFLOP, 1e9
    exponentials, 0.8 kB read and 60 kB written. Floor on one H100 (SXM data sheet: 67 TFLOP/s fp32; 132
    multiprocessors with 16 special functions a clock at 1.98 GHz): 0.22 ms and 0.24 ms a GAN, 0.5 s for 2048 GANs; one
    GAN alone is bound by the latency of 100,000 dependent steps, some 0.3 s.
    """
    args = (x, z, windows, lr_d, lr_g, seeds, recipe, first, iterations)
    if use_triton(x):
        from .triton import population_train as on_gpu

        return on_gpu(players, *args)
    return reference.population_train(players, *args)
