"""Populations against one GAN at a time in autograd; shuffled pairings; a run that is killed and goes on."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rpgan_landscape.kernels.population_train import parameter_count, population_train, reference, width_of
from rpgan_landscape.population import Recipe, discriminate, draw, generate, run
from shared.errors import UserError
from torch import Tensor, nn

from rpgan_landscape import population

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RECIPES = [
    *(Recipe(loss, halved=halved, generator="minimax" if halved else "nonsaturating")
      for loss in ("js", "ls", "hinge") for halved in (False, True)),
    Recipe("js", halved=True),
    *(Recipe(loss, pairing, generator=generator) for loss in ("rs", "rp_ls", "rp_hinge")
      for pairing in ("fixed", "shuffled", "all_pairs") for generator in ("nonsaturating", "minimax")),
]  # fmt: skip
every_recipe = pytest.mark.parametrize(
    "recipe", RECIPES, ids=lambda r: f"{r.loss}-{r.pairing}-{r.generator}{'-halved' * r.halved}"
)


def naive() -> Any:
    """The benchmark's one-at-a-time form: a training loop with autograd and `torch.optim.SGD`."""
    spec = importlib.util.spec_from_file_location("bench_population", BENCHMARKS / "bench_population.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


one_at_a_time = naive()


def largest(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    assert a.numel()
    return (a.double() - b.double()).abs().max().item()


def sgd_one(recipe: Recipe, seed: int, **options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d, g, losses, counts = one_at_a_time.train_one(recipe, seed, 3, **options)
    return d, g, torch.tensor(losses, dtype=torch.float64), torch.tensor(counts)


@every_recipe
def test_a_batched_gan_is_the_gan_that_autograd_trains(recipe: Recipe) -> None:
    """60 steps of `torch.optim.SGD` for seed 5 alone: to 1e-6 in float32, and to rounding in float64."""
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        ours = run(recipe, [3, 5, 8], 3, dtype=dtype)
        d, g, losses, counts = sgd_one(recipe, 5, dtype=dtype)
        players = ours.population.players
        assert players.d.dtype is dtype
        assert largest(players.d[1], d) <= tolerance
        assert largest(players.g[1], g) <= tolerance
        assert largest(ours.d_loss[1], losses) <= 5 * tolerance
        assert torch.equal(ours.counts[1].long(), counts)


def test_the_comparison_can_fail() -> None:
    """Its 60 steps move the weights, and other losses move them elsewhere.

    Not so Rp-hinge's pairings and generators: while no difference passes the margin, its cost is linear.
    """
    start, ours = draw([5]), run(Recipe("rs"), [5], 3)
    assert largest(start.players.d, ours.population.players.d) > 1e-2
    assert largest(start.players.g, ours.population.players.g) > 1e-2
    after = [run(r, [5], 3, dtype=torch.float64).population.players for r in RECIPES if r.loss != "rp_hinge"]
    results = [torch.cat([players.d, players.g], 1) for players in after]
    pairs = [(a, b) for i, a in enumerate(results) for b in results[:i]]
    assert min(largest(a, b) for a, b in pairs) > 1e-6


@pytest.mark.parametrize("recipe", [Recipe("js"), Recipe("rs", "shuffled"), Recipe("rs", "all_pairs")], ids=str)
def test_a_gan_does_not_depend_on_the_others(recipe: Recipe) -> None:
    together = run(recipe, range(20), 5)
    for seed in (0, 7, 19):
        alone = run(recipe, [seed], 5)
        for a, b in zip(together.population.players, alone.population.players):
            assert largest(a[seed], b[0]) <= 1e-6
        assert largest(together.d_loss[seed], alone.d_loss[0]) <= 1e-6


def test_learning_rates_centres_and_momentum_of_each() -> None:
    """Learning rates of D and G apart, one per GAN, against autograd with the same."""
    recipe = Recipe("js", momentum=0.5, d_steps=4, g_steps=3)
    ours = run(recipe, [5, 5], 3, lr_d=[0.02, 0.1], lr_g=[0.03, 0.05], dtype=torch.float64).population.players
    for row, lr in enumerate(((0.02, 0.03), (0.1, 0.05))):
        d, g, *_ = sgd_one(recipe, 5, dtype=torch.float64, lr=lr)
        assert largest(ours.d[row], d) <= 1e-13
        assert largest(ours.g[row], g) <= 1e-13
    apart = draw([1, 1], centres=[(0.0, 4.0), (-1.0, 2.5)])
    assert torch.allclose(apart.x[1] - apart.x[0], torch.tensor([-1.0, -1.5]).repeat(50), atol=1e-6)
    # windows move with the centres: fakes put onto the data hit them all
    on_data = replace(apart, players=apart.players)
    program = reference.Program(
        on_data.players, on_data.x, on_data.z, torch.stack([on_data.centres + e for e in population.WINDOW], 2),
        torch.ones(2), torch.ones(2), Recipe(),
    )  # fmt: skip
    program.y[:, 0] = on_data.x
    assert program.count().tolist() == [[50, 50], [50, 50]]
    program.y[:, 0] = on_data.x + 0.37
    assert program.count().tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("n", "d_width", "g_width"), [(7, 3, 4), (101, 17, 1)])
def test_other_sizes(n: int, d_width: int, g_width: int) -> None:
    """Odd numbers of points and other widths: the always-on units stay on, their weights stay out of the results."""
    ours = run(Recipe("rp_ls"), [2], 2, n=n, d_width=d_width, g_width=g_width, dtype=torch.float64)
    start = draw([2], n=n, d_width=d_width, g_width=g_width, dtype=torch.float64)
    d, g, v_d, v_g = (t.clone().requires_grad_() for t in start.players)
    for _ in range(2):
        y = generate(start_with(start, d, g), start.z).detach()
        for _ in range(10):
            f, r = (discriminate(start_with(start, d, g), p) for p in (y, start.x))
            v_d = 0.9 * v_d + torch.autograd.grad((1 + f - r).square().mean(), d)[0]
            d = (d - 0.01 * v_d).detach().requires_grad_()
        for _ in range(10):
            now = start_with(start, d, g)
            f, r = discriminate(now, generate(now, start.z)), discriminate(now, start.x)
            v_g = 0.9 * v_g + torch.autograd.grad((1 + r - f).square().mean(), g)[0]
            g = (g - 0.01 * v_g).detach().requires_grad_()
    after = ours.population.players
    for a, b in zip(after, (d, g, v_d, v_g)):
        assert largest(a, b) <= 1e-13


def start_with(start: population.Population, d: Tensor, g: Tensor) -> population.Population:
    return replace(start, players=start.players._replace(d=d, g=g))


def test_initial_weights_and_data_are_those_of_torch() -> None:
    """Bits of `nn.Linear`'s own initialisation after `torch.manual_seed`, in the stated order; networks of 5.1."""
    ours = draw([0, 11])
    torch.manual_seed(11)
    x = torch.tensor([0.0, 4.0]).repeat(50) + 0.3 * torch.rand(100)
    z, z_test = 10 * torch.rand(100) - 5, 10 * torch.rand(100) - 5
    d = nn.Sequential(nn.Linear(1, 10), nn.Sigmoid(), nn.Linear(10, 10), nn.Sigmoid(), nn.Linear(10, 1))
    g = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))
    assert torch.equal(ours.x[1], x)
    assert torch.equal(ours.z[1], z)
    assert torch.equal(ours.z_test[1], z_test)
    assert torch.equal(ours.players.d[1], nn.utils.parameters_to_vector(d.parameters()))
    assert torch.equal(ours.players.g[1], nn.utils.parameters_to_vector(g.parameters()))
    assert ours.players.d.shape == (2, 141)
    assert ours.players.g.shape == (2, 46)
    torch.testing.assert_close(discriminate(ours, ours.x)[1], d(x[:, None])[:, 0].detach())
    torch.testing.assert_close(generate(ours, ours.z)[1], g(z[:, None])[:, 0].detach())


def test_shuffled_pairings_are_permutations_that_look_random() -> None:
    """Uniform over all 24 orders of 4 points and over the places of 100, by chi-square; different at every step."""
    orders = reference.shuffles(torch.arange(60), 7, 400, 4)
    assert torch.equal(orders.sort().values, torch.arange(4).expand(60, 400, 4))
    codes = (orders * torch.tensor([64, 16, 4, 1])).sum(2).flatten()
    seen = codes.unique(return_counts=True)[1].double()
    expected = codes.numel() / 24
    assert len(seen) == 24
    assert ((seen - expected) ** 2 / expected).sum() < 60  # 23 degrees of freedom: exceeded once in 30,000
    places = reference.shuffles(torch.arange(20), 0, 500, 100)[:, :, 0].flatten().bincount(minlength=100).double()
    assert ((places - 100) ** 2 / 100).sum() < 170  # 99 degrees of freedom: once in 90,000
    many = reference.shuffles(torch.arange(5), 0, 50, 100).flatten(0, 1)
    assert len(many.unique(dim=0)) == 250


def test_a_shuffled_pairing_is_a_function_of_seed_and_step() -> None:
    orders = reference.shuffles(torch.tensor([4, 2**31 + 9]), 1000, 20, 33)
    later = reference.shuffles(torch.tensor([4, 2**31 + 9]), 1010, 10, 33)
    assert torch.equal(orders[:, 10:], later)
    assert torch.equal(reference.shuffles(torch.tensor([2**31 + 9]), 1000, 20, 33)[0], orders[1])
    with pytest.raises(ValueError, match="at most 4096"):
        run(Recipe("rs", "shuffled"), [0], 1, n=4098)


def test_the_integer_mixer_is_the_published_one() -> None:
    """lowbias32 in Python integers."""

    def lowbias32(x: int) -> int:
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
        return x ^ (x >> 16)

    words = [0, 1, 2, 12345, 2**31 - 1, 2**31, 2**32 - 1, 3735928559]
    ours = reference.mix(torch.tensor([reference.word(w) for w in words], dtype=torch.int32))
    assert [int(w) % 2**32 for w in ours] == [lowbias32(w) for w in words]


@pytest.mark.parametrize("recipe", [Recipe("js", halved=True), Recipe("rs", "shuffled")], ids=lambda r: r.loss)
def test_killed_and_resumed_is_the_same_run(recipe: Recipe, tmp_path: Path) -> None:
    """SIGKILL as soon as a checkpoint is there: the rest of the run ends with the bits of a run left alone."""
    code = (
        "import sys, os, signal, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from rpgan_landscape import population\n"
        "keep = population.save\n"
        "def save(path, settings, run):\n"
        "    keep(path, settings, run)\n"
        "    if run.d_loss.shape[1] >= 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "population.save = save\n"
        f"population.run(population.{recipe!r}, [1, 2], 9, directory=Path(sys.argv[1]), save_every=2)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, env={**os.environ})
    assert killed.returncode == -signal.SIGKILL
    half = torch.load(tmp_path / population.CHECKPOINT, weights_only=True)
    assert half["d_loss"].shape == (2, 4)
    resumed, alone = run(recipe, [1, 2], 9, directory=tmp_path, save_every=2), run(recipe, [1, 2], 9)
    for a, b in zip(resumed.population.players, alone.population.players):
        assert torch.equal(a, b)
    assert torch.equal(resumed.d_loss, alone.d_loss)
    assert torch.equal(resumed.counts, alone.counts)
    assert [p.name for p in tmp_path.iterdir()] == [population.CHECKPOINT]


def test_a_finished_run_is_read_and_a_longer_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Recipe(), [1], 2, directory=tmp_path)
    longer, alone = run(Recipe(), [1], 4, directory=tmp_path), run(Recipe(), [1], 4)
    assert torch.equal(longer.population.players.d, alone.population.players.d)
    monkeypatch.setattr(population, "population_train", None)
    again = run(Recipe(), [1], 4, directory=tmp_path)
    assert torch.equal(again.d_loss, alone.d_loss)


def test_a_directory_with_another_run_or_a_damaged_file(tmp_path: Path) -> None:
    run(Recipe(), [1], 2, directory=tmp_path)
    path = tmp_path / population.CHECKPOINT
    with pytest.raises(UserError, match="other loss, seeds: choose another directory"):
        run(Recipe("rp_ls"), [2], 2, directory=tmp_path)
    with pytest.raises(UserError, match="2 iterations already, 1 are asked for"):
        run(Recipe(), [1], 1, directory=tmp_path)
    for damaged in (path.read_bytes()[:500], b"", b"not a checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged: delete it"):
            run(Recipe(), [1], 2, directory=tmp_path)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"seeds": []}, "no seeds"),
    ({"iterations": 0}, "iterations = 0"),
    ({"save_every": 0}, "save_every = 0"),
    ({"n": 1}, "n = 1: two clusters need at least 2 points"),
    ({"d_width": 0}, "d_width = 0"),
    ({"centres": [(0.0, 1.0)] * 3}, r"centres of shape \(3, 2\): give one pair, or one for each of 2 GANs"),
    ({"lr_d": [0.1]}, "lr_d has 1 learning rates for 2 GANs"),
    ({"lr_g": -0.1}, "lr_g holds a learning rate that is negative or not finite"),
    ({"lr_g": [0.1, math.nan]}, "lr_g holds a learning rate that is negative or not finite"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[m for _, m in BAD])
def test_settings_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"seeds": [0, 1], "iterations": 1, **options}
    with pytest.raises(UserError, match=message):
        run(Recipe(), **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "wgan"}, "unknown loss 'wgan': use one of js, ls, hinge, rs, rp_ls, rp_hinge"),
        ({"pairing": "random"}, "unknown pairing 'random': use one of fixed, shuffled, all_pairs"),
        ({"generator": "max"}, "unknown generator 'max'"),
        ({"loss": "rs", "halved": True}, "not to rs"),
        ({"loss": "js", "pairing": "shuffled"}, "loss js does not pair points"),
        ({"d_steps": 0}, "d_steps = 0"),
    ],
)
def test_recipes_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe(**options)


def test_widths_are_told_from_rows() -> None:
    assert [width_of(torch.empty(1, parameter_count(w))) for w in (1, 5, 10, 32)] == [1, 5, 10, 32]
    with pytest.raises(ValueError, match="140 parameters are not those of a network"):
        width_of(torch.empty(3, 140))


def test_operands_are_left_alone() -> None:
    start = draw([1, 2])
    before = [t.clone() for t in start.players]
    windows = torch.stack([start.centres + e for e in population.WINDOW], 2)
    lr = torch.full((2,), 0.01)
    population_train(start.players, start.x, start.z, windows, lr, lr, torch.tensor([1, 2]), Recipe(), 0, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, start.players))


def test_a_gan_that_diverges_leaves_the_others_alone() -> None:
    recipe = Recipe("rp_ls", "all_pairs")
    both, alone = run(recipe, [1, 2], 20, lr_d=[1e6, 0.01]), run(recipe, [2], 20)
    assert not both.d_loss[0].isfinite().all() or both.d_loss[0].max() > 1e3
    assert largest(both.population.players.d[1], alone.population.players.d[0]) <= 1e-5
