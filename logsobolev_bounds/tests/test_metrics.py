"""Metrics fed in uneven batches equal one batch of everything, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from logsobolev_bounds.bounds import monte_carlo_risk, pac_bayes_mgf, seeger
from logsobolev_bounds.complexity import grid
from logsobolev_bounds.metrics import ExpectedCalibrationError, GradNorm, KLInverseCertificate, LSIBound
from logsobolev_bounds.mgf import log_c, lsi

PARTS = (7, 1, 12)


@pytest.fixture
def examples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 20, generator=generator) * 3, torch.rand(4, 20, generator=generator)


def fed(metric, *values, parts=PARTS, dim=1):
    for part in zip(*(v.split(parts, dim) for v in values)):
        metric.update(*part)
    return metric


def test_gradient_norm(examples) -> None:
    _, g = examples
    assert fed(GradNorm(), g).compute().item() == pytest.approx(g.double().mean().item(), rel=1e-14)
    with pytest.raises(ValueError, match="has seen no examples"):
        GradNorm().compute()


def test_lsi_bound(examples) -> None:
    loss, g = examples
    metric = fed(LSIBound(m=50, lam=25.0), loss, g)
    whole = LSIBound(m=50, lam=25.0)
    whole.update(loss, g)
    assert torch.equal(metric.compute()["C"], whole.compute()["C"])
    expected = log_c(50 * lsi(loss.double(), g.double(), grid(0.5))[:, -1])
    # Summed in another order, as the examples lie in another one in memory.
    torch.testing.assert_close(metric.compute()["C"], expected.C, rtol=1e-12, atol=0)
    torch.testing.assert_close(metric.compute()["ess"], expected.ess, rtol=1e-12, atol=0)
    assert metric.bound(0.4, 12.0) == pytest.approx(float(pac_bayes_mgf(0.4, 12.0, expected.C, 25.0, 0.05)))
    with pytest.raises(ValueError, match="T is 16"):
        LSIBound(m=50, lam=25.0, points=16)
    with pytest.raises(ValueError, match=r"loss has shape \[4, 20\] and g \[4, 7\]"):
        LSIBound(m=50, lam=25.0).update(loss, g[:, :7])


def test_certificate() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, y = torch.randn(30, 20, 5, generator=generator), torch.randint(5, (20,), generator=generator)
    metric = KLInverseCertificate(kl=3.0, draws=30)
    for a, b in zip(logits.split(PARTS, 1), y.split(PARTS)):
        metric.update(a, b)
    risk = (logits.argmax(2) != y).double().mean()
    expected = seeger(monte_carlo_risk(risk, 30, 0.01), 3.0, 20, 0.04)
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="29 draws in this batch, 30 were announced"):
        metric.update(logits[:29], y)
    with pytest.raises(ValueError, match="0 < delta_mc < delta < 1"):
        KLInverseCertificate(kl=3.0, draws=30, delta=0.01)


def test_calibration_error_by_hand() -> None:
    """Two bins: half right at 0.9, all right at 0.6."""
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    metric = fed(ExpectedCalibrationError(2), probabilities, torch.tensor([0, 1, 0, 1]), parts=(1, 3), dim=0)
    assert metric.compute().item() == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert math.isfinite(metric.compute())
