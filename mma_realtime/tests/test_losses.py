"""Losses against their definitions written out."""

from __future__ import annotations

import math

import pytest
import torch

from mma_realtime import losses


def batch(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(n, 2, generator=generator)
    return outputs, (torch.rand(n, generator=generator) < 0.4).float()


def test_cross_entropy_of_two_logits_is_that_of_their_difference() -> None:
    outputs, label = batch()
    expected = sum(-math.log(torch.softmax(o, 0)[int(y)]) for o, y in zip(outputs, label)) / len(label)
    assert float(losses.cross_entropy(outputs, label)) == pytest.approx(expected, rel=1e-6)
    assert float(losses.binary_cross_entropy(outputs, label)) == pytest.approx(expected, rel=1e-6)
    one = outputs[:, 1:] - outputs[:, :1]
    assert float(losses.binary_cross_entropy(one, label)) == pytest.approx(expected, rel=1e-6)


def test_no_label_is_smoothed() -> None:
    """A window that is told right beyond doubt costs nothing."""
    outputs, label = torch.tensor([[0.0, 100.0], [100.0, 0.0]]), torch.tensor([1.0, 0.0])
    for name in ("cross_entropy", "bce", "focal", "partial_auc"):
        assert float(losses.LOSSES[name](outputs, label)) < 1e-6
        assert float(losses.LOSSES[name](outputs, 1 - label)) > 50


def test_focal() -> None:
    outputs, label = batch()
    p = torch.softmax(outputs, 1).gather(1, label.long()[:, None])[:, 0]
    torch.testing.assert_close(losses.focal(outputs, label, 2.0), (-((1 - p) ** 2) * p.log()).mean())
    torch.testing.assert_close(losses.focal(outputs, label, 0.0), losses.cross_entropy(outputs, label))


def test_pairs_of_signals_and_the_loudest_noise() -> None:
    outputs, label = batch()
    s = (outputs[:, 1] - outputs[:, 0]).tolist()
    noise = sorted((v for v, y in zip(s, label) if not y), reverse=True)
    hardest = noise[: round(0.2 * len(noise))]
    pairs = [math.log1p(math.exp(b - a)) for a, y in zip(s, label) if y for b in hardest]
    assert float(losses.partial_auc(outputs, label, 0.2)) == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
    assert len(hardest) > 1


def test_a_batch_of_one_kind_has_no_pairs() -> None:
    outputs = torch.randn(4, 2, requires_grad=True)
    loss = losses.partial_auc(outputs, torch.ones(4))
    loss.backward()
    assert float(loss) == 0
    assert torch.equal(outputs.grad, torch.zeros(4, 2))


def test_relative_mass_error() -> None:
    outputs, masses = torch.tensor([[0.0, 1.0], [2.0, -30.0]]), torch.tensor([[36.0, 29.0], [10.0, 5.0]])
    predicted = losses.masses_of(outputs)
    assert float(predicted[0, 0]) == pytest.approx(20 * math.log(2))
    assert float(predicted.min()) >= 0
    flat = zip(predicted.flatten().tolist(), masses.flatten().tolist())
    expected = sum(abs(p - m) / m for p, m in flat) / 4
    assert float(losses.relative_mass_error(outputs, masses)) == pytest.approx(expected, rel=1e-6)
