"""The Triton kernels in Triton's interpreter, on the CPU. `test_kernels.py` runs this file in a process of its own:
the interpreter has to be chosen before triton is imported. By hand: see `shared.kernels.interpreted`.
K3 has a file of its own, `allpairs_interpreted.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from rpgan_landscape.kernels.checks import CHECKS
from rpgan_landscape.kernels.enumerate_states import reference as states
from rpgan_landscape.kernels.enumerate_states import triton as states_triton
from rpgan_landscape.kernels.population_train import Recipe, population_train
from rpgan_landscape.population import WINDOW, draw, run
from shared.kernels.harness import TOLERANCE, Check, compare
from shared.kernels.harness import draw as operands
from torch import nn

OWN = [check for check in CHECKS if check.kernel != "allpairs_relativistic"]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN: a result that a kernel did not write, or a sum that starts from it, shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("check", OWN, ids=lambda check: check.name)
def test_against_the_definition(check: Check) -> None:
    for shape in check.small:
        errors = compare(check, operands(check, shape, "cpu", torch.float32))
        assert errors
        assert max(errors.values()) <= TOLERANCE[torch.float32], errors


def test_three_iterations_of_one_gan_are_those_of_autograd() -> None:
    """The specification's bound: 1e-6 after 60 steps, against modules, autograd and torch.optim."""
    recipe = Recipe("rs")
    ours = run(recipe, [5], 3)
    torch.manual_seed(5)
    x, z = draw([5]).x[0], draw([5]).z[0]
    torch.rand(300)  # the draws of x, z and z_test
    d = nn.Sequential(nn.Linear(1, 10), nn.Sigmoid(), nn.Linear(10, 10), nn.Sigmoid(), nn.Linear(10, 1))
    g = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 1))
    by_d, by_g = (torch.optim.SGD(net.parameters(), 1e-2, momentum=0.9) for net in (d, g))
    for _ in range(3):
        fake = g(z[:, None]).detach()
        for _ in range(10):
            by_d.zero_grad()
            nn.functional.softplus(d(fake) - d(x[:, None])).mean().backward()
            by_d.step()
        for _ in range(10):
            by_g.zero_grad()
            nn.functional.softplus(d(x[:, None]) - d(g(z[:, None]))).mean().backward()
            by_g.step()
    for row, net in ((ours.population.players.d[0], d), (ours.population.players.g[0], g)):
        assert (row - nn.utils.parameters_to_vector(net.parameters())).abs().max() <= 1e-6


def test_a_leg_goes_on_where_the_last_ended() -> None:
    """Shuffled pairings too: step numbers go on."""
    recipe, population = Recipe("rs", "shuffled", d_steps=2, g_steps=1), draw([1, 2], n=20)
    windows = torch.stack([population.centres + edge for edge in WINDOW], 2)
    rest = (
        population.x,
        population.z,
        windows,
        torch.full((2,), 0.1),
        torch.full((2,), 0.1),
        torch.tensor([1, 2]),
        recipe,
    )
    whole, losses, _ = population_train(population.players, *rest, 0, 3)
    half, first, _ = population_train(population.players, *rest, 0, 1)
    again, second, _ = population_train(half, *rest, 1, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole, again))
    assert torch.equal(losses, torch.cat([first, second], 1))


def test_what_one_program_cannot_hold_is_refused() -> None:
    population = draw([1], n=300)
    windows = torch.stack([population.centres + edge for edge in WINDOW], 2)
    rest = (population.x, population.z, windows, torch.ones(1), torch.ones(1), torch.tensor([1]), Recipe())
    with pytest.raises(ValueError, match="300 points and widths 10, 5: a program holds at most 256"):
        population_train(population.players, *rest, 0, 1)


def test_states_in_several_programs_the_last_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states_triton, "PROGRAMS", 3)
    anchor = torch.zeros(1, dtype=torch.int64)
    got, expected = states_triton.state_histograms(anchor, 5), states.state_histograms(anchor, 5)
    assert all(torch.equal(a, b) for a, b in zip(got, expected))
