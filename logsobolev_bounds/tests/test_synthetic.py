"""Recipes: what is drawn has the risk that is stated, and the moments that bounds assume."""

from __future__ import annotations

import math

import pytest
import torch
from logsobolev_bounds.data import Examples, covariance
from logsobolev_bounds.errors import BoundError
from logsobolev_bounds.mgf import class_corrected, lsi, psi
from logsobolev_bounds.streams import seed_for
from logsobolev_bounds.synthetic import FlatClasses, SyntheticLinReg, SyntheticLogistic

N = 200_000


def near(values: torch.Tensor, expected: float) -> bool:
    """Within 4 standard errors of the mean."""
    return abs(values.mean().item() - expected) < 4 * values.std().item() / math.sqrt(len(values))


def test_logistic_risks_are_those_of_its_examples() -> None:
    recipe = SyntheticLogistic()
    x, y = recipe.sample(N, 0)
    w = torch.tensor([[0.5, -0.2], [2.0, 1.0]])
    for one, risk in zip(w, recipe.risk(w).tolist()):
        assert near(torch.nn.functional.softplus(-(2 * y - 1) * (x @ one)).double(), risk)
    skewed = SyntheticLogistic((0.4, -1.0), ((2.0, 0.6), (0.6, 0.5)))
    x, y = skewed.sample(N, 4)
    within = covariance((2 * y - 1)[:, None] * x)
    torch.testing.assert_close(within, torch.tensor(skewed.Sigma, dtype=torch.float64), rtol=0.02, atol=0.01)
    for one, risk in zip(w, skewed.risk(w).tolist()):
        assert near(torch.nn.functional.softplus(-(2 * y - 1) * (x @ one)).double(), risk)
    data = Examples("synthetic_logistic", m=50, center="none", seed=3)
    data.setup()
    assert torch.equal(data.x, recipe.sample(50, seed_for(3, "examples"))[0])


def test_regression_risks_are_those_of_its_examples() -> None:
    recipe = SyntheticLinReg((0.3, -1.0, 0.2), noise=0.5)
    x, y = recipe.sample(N, 1)
    v = torch.tensor([[0.0, 0.0, 0.0], [0.3, -1.0, 0.2]], dtype=torch.float64)
    for one, risk in zip(v, recipe.risk(v, 0.7).tolist()):
        nll = (y - x @ one).square() / (2 * 0.49) + math.log(2 * math.pi * 0.49) / 2
        assert near(nll, risk)


def test_flat_classes_have_a_log_mgf_without_a_gradient() -> None:
    recipe = FlatClasses(0.3, (0.2, 1.5))
    loss, y = recipe.sample(N, 2)
    assert near(loss, recipe.risk())
    alphas = torch.linspace(0, 1, 17, dtype=torch.float64)
    loss, g = loss[None, :500], torch.zeros(1, 500, dtype=torch.float64)
    torch.testing.assert_close(class_corrected(loss, g, y[:500], alphas), psi(loss, alphas), rtol=1e-9, atol=1e-14)
    assert lsi(loss, g, alphas).max() == 0 < psi(loss, alphas)[0, -1]


def test_wrong_recipes() -> None:
    for call, says in (
        (lambda: SyntheticLogistic().sample(0, 0), "n is 0: at least one example is needed"),
        (lambda: SyntheticLogistic(Sigma=((1.0, 0.0),)).sample(5, 0), "Sigma has shape"),
        (lambda: SyntheticLogistic(Sigma=((1.0, 2.0), (2.0, 1.0))).sample(5, 0), "Sigma has the eigenvalue -1"),
        (lambda: SyntheticLinReg((1.0,), -1.0).sample(5, 0), "noise is -1: it is at least 0"),
        (lambda: SyntheticLinReg((1.0,)).risk(torch.ones(1, 1), 0.0), "sigma_lik is 0: it is positive"),
        (lambda: FlatClasses(1.5).sample(5, 0), "pi is 1.5: it lies in"),
    ):
        with pytest.raises(BoundError, match=says):
            call()
