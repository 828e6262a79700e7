"""Metrics fed in uneven batches equal one batch of everything, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from logsobolev_bounds.bounds import Facts, monte_carlo_risk, pac_bayes_mgf, seeger
from logsobolev_bounds.complexity import grid
from logsobolev_bounds.metrics import ExpectedCalibrationError, GradNorm, KLInverseCertificate, LSIBound
from logsobolev_bounds.mgf import log_c, lsi
from shared.errors import UserError

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
    bound = metric.bound(0.4, 12.0)
    assert bound.value == pytest.approx(float(pac_bayes_mgf(0.4, 12.0, expected.C, 25.0, 0.05)))
    assert (bound.name, bound.kind, bound.lam) == ("lsi", "estimate", 25.0)
    assert bound.ess == pytest.approx(float(expected.ess))
    assert bound.unreliable
    assert any("log-Sobolev inequality is assumed" in reason for reason in bound.reasons)


def test_certificate() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, y = torch.randn(30, 20, 5, generator=generator), torch.randint(5, (20,), generator=generator)
    metric = KLInverseCertificate(kl=3.0, draws=30)
    for a, b in zip(logits.split(PARTS, 1), y.split(PARTS)):
        metric.update(a, b)
    risk = (logits.argmax(2) != y).double().mean()
    expected = seeger(monte_carlo_risk(risk, 30, 0.01), 3.0, 20, 0.04)
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-12, atol=0)
    fixed = metric.bound(Facts(prior_fixed=True, preprocessing_free=True))
    assert (fixed.value, fixed.kind, fixed.reasons) == (float(expected), "certificate", ())
    assert fixed.terms == pytest.approx(
        {"risk": risk.item(), "risk after Monte Carlo": monte_carlo_risk(risk, 30, 0.01).item(), "KL/n": 3 / 20}
    )
    assert metric.bound().kind == "estimate"  # nothing is claimed by default


LOSS = torch.ones(3, 4)
LOGITS, LABELS = torch.zeros(3, 4, 5), torch.tensor([0, 1, 2, 4])


def lsi_of(*parts: torch.Tensor) -> LSIBound:
    metric = LSIBound(m=50, lam=25.0)
    for part in parts:
        metric.update(part, part)
    return metric


def certificate_of(logits: torch.Tensor, y: torch.Tensor) -> KLInverseCertificate:
    metric = KLInverseCertificate(kl=3.0, draws=3)
    metric.update(logits, y)
    return metric


WRONG = [
    (lambda: LSIBound(m=0, lam=25.0), "m is 0: at least one example is needed"),
    (lambda: LSIBound(m=50, lam=-1.0), "lambda is -1: it is positive and finite"),
    (lambda: LSIBound(m=50, lam=25.0, delta=1.5), "delta is 1.5: it is a probability of failure"),
    (lambda: LSIBound(m=50, lam=25.0, points=16), "T is 16"),
    (lambda: LSIBound(m=50, lam=25.0).update(LOSS, LOSS[:, :2]), "loss has shape [3, 4] and g [3, 2]"),
    (lambda: lsi_of(LOSS, LOSS[:2]), "2 draws in this batch, 3 in those before: use the same ones throughout"),
    (lambda: lsi_of().compute(), "LSIBound has seen no examples"),
    (lambda: lsi_of(LOSS[:, :0]).compute(), "LSIBound has seen no examples"),
    (lambda: KLInverseCertificate(kl=-1.0, draws=3), "KL is -1: it is at least 0"),
    (lambda: KLInverseCertificate(kl=1.0, draws=0), "draws is 0: at least one posterior draw is needed"),
    (lambda: KLInverseCertificate(kl=1.0, draws=3, delta=0.01), "0 < delta_mc < delta < 1"),
    (lambda: certificate_of(LOGITS[:2], LABELS), "2 draws in this batch, 3 were announced"),
    (lambda: certificate_of(LOGITS, LABELS + 1), "labels from 1 to 5: there are classes 0 to 4"),
    (lambda: certificate_of(LOGITS, LABELS[:, None]), "one label for each row of logits"),
    (lambda: certificate_of(LOGITS * math.nan, LABELS * 0), "a logit is nan: no class is the largest"),
]


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_input(call, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert isinstance(caught.value, UserError)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_calibration_error_by_hand() -> None:
    """Two bins: half right at 0.9, all right at 0.6."""
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    metric = fed(ExpectedCalibrationError(2), probabilities, torch.tensor([0, 1, 0, 1]), parts=(1, 3), dim=0)
    assert metric.compute().item() == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert math.isfinite(metric.compute())
