"""Losses against PyTorch's; objectives are the bounds of the same name, with gradients."""

from __future__ import annotations

import math

import pytest
import torch
from logsobolev_bounds.errors import BoundError

from logsobolev_bounds import bounds, losses

LOGITS = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 8
Y = torch.tensor([0, 1, 2, 3, 4, 0, 1])


def test_losses_of_many_draws() -> None:
    for k in range(3):
        expected = torch.nn.functional.cross_entropy(LOGITS[k], Y, reduction="none")
        torch.testing.assert_close(losses.nll(LOGITS, Y)[k], expected)
        wrong = (LOGITS[k].argmax(1) != Y).double()
        assert losses.zero_one(LOGITS, Y)[k].tolist() == wrong.tolist()
    assert losses.zero_one(torch.zeros(2, 3), torch.tensor([0, 1])).tolist() == [0, 1]
    clipped = losses.clipped_nll(LOGITS, Y, 1e-4)
    p = torch.softmax(LOGITS, -1).gather(-1, Y.expand(3, 7)[..., None])[..., 0]
    torch.testing.assert_close(clipped, -p.clamp_min(1e-4).log())
    assert clipped.max() == pytest.approx(math.log(1e4))
    assert losses.nll(LOGITS, Y).max() > clipped.max()


def test_huge_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, 0.0], [0.0, 1e4]])
    assert losses.nll(logits, torch.tensor([1, 1])).tolist() == [1e4, 0]


@pytest.mark.parametrize("delta", [0.05, 0.01])
def test_objectives_are_the_bounds(delta: float) -> None:
    risk, kl, n = torch.tensor(0.3, dtype=torch.float64), torch.tensor(55.0, dtype=torch.float64), 1200
    for found, expected in (
        (losses.elbo(risk, kl, n), bounds.elbo(risk, kl, n)),
        (losses.elbo(risk, kl, n, lam=300.0), bounds.elbo(risk, kl, 300.0)),
        (losses.quadratic(risk, kl, n, delta), bounds.quadratic(risk, kl, n, delta)),
        (losses.lambda_(risk, kl, n, delta, 0.6), bounds.lambda_bound(risk, kl, n, delta, 0.6)),
        (losses.maurer(risk, kl, n, delta), bounds.maurer_pinsker(risk, kl, n, delta)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["elbo", "quadratic", "lambda_", "maurer"])
def test_objectives_have_gradients_and_take_unbounded_risks(name: str) -> None:
    objective = getattr(losses, name)
    values = tuple(torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (2.7, 40.0))
    assert torch.autograd.gradcheck(lambda risk, kl: objective(risk, kl, 500), values)
    assert all(g > 0 for g in torch.autograd.grad(objective(*values, 500), values))


WRONG = [
    (lambda: losses.nll(LOGITS, Y[:6]), "logits of shape [3, 7, 5], labels [6]"),
    (lambda: losses.zero_one(LOGITS, Y + 1), "labels from 1 to 5: there are classes 0 to 4"),
    (lambda: losses.zero_one(LOGITS.log(), Y), "a logit is nan: no class is the largest"),
    (lambda: losses.nll(LOGITS, Y - 1), "labels from -1 to 3: there are classes 0 to 4"),
    (lambda: losses.clipped_nll(LOGITS, Y, 0.0), "p_min is 0.0: it is a probability in (0, 1)"),
    (lambda: losses.maurer(torch.ones(()), torch.ones(()), 0), "n is 0: at least one example is needed"),
    (lambda: losses.quadratic(torch.ones(()), torch.ones(()), 5, 1.0), "delta is 1: it is a probability of failure"),
    (lambda: losses.lambda_(torch.ones(()), torch.ones(()), 5, t=2.0), "t is 2.0: it lies in (0, 2)"),
    (lambda: losses.elbo(torch.ones(()), torch.ones(()), 0), "lambda is 0: it is positive and finite"),
    (lambda: losses.elbo(torch.ones(()), torch.ones(()), 5, lam=0.0), "lambda is 0.0: it is positive and finite"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_input(call, message: str) -> None:
    with pytest.raises(BoundError) as caught:
        call()
    assert message in str(caught.value)
