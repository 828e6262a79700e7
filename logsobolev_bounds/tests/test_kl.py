"""Divergences: the inverses never err to the wrong side; Gaussian KL is a sum."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from logsobolev_bounds.bounds import kl_bernoulli, kl_gaussian, kl_inverse_lower, kl_inverse_upper, monte_carlo_risk
from logsobolev_bounds.errors import BoundError

POWERS = st.floats(-18, 0).map(lambda e: 10**e)
# Not below 1e-25: 1 - q has 80 digits in the reference.
SHARE = st.one_of(st.floats(0, 1).map(lambda q: q if q > 1e-25 else 0.0), POWERS, st.sampled_from([0.0, 1.0, 0.5]))
BUDGET = st.one_of(st.floats(0, 5), st.floats(-16, 2).map(lambda e: 10**e))


def exact(q: float, p: float) -> Decimal:
    """kl(q || p) of these very floats, to 80 digits."""
    a, b = Decimal(q), Decimal(p)
    left = a * (a / b).ln() if a else Decimal(0)
    right = (1 - a) * ((1 - a) / (1 - b)).ln() if a < 1 else Decimal(0)
    return left + right


@settings(max_examples=120, deadline=None)
@given(q=SHARE, c=BUDGET)
def test_the_inverses_err_outwards_and_little(q: float, c: float) -> None:
    upper, lower = float(kl_inverse_upper(q, c)), float(kl_inverse_lower(q, c))
    assert lower <= q <= upper
    with localcontext() as context:
        context.prec = 80
        for p, inwards in ((upper, -1), (lower, 1)):
            if 0 < p < 1:
                assert exact(q, p) >= Decimal(c)
                closer = p + inwards * 1e-12
                if (closer - q) * inwards < 0:
                    assert exact(q, closer) <= Decimal(c)
    if 1e-5 < upper < 1 - 1e-5:  # the slope of kl is 1 / (1 - p) towards 1
        assert c - 1e-9 <= float(kl_bernoulli(q, upper)) <= c + 1e-9


@settings(max_examples=100, deadline=None)
@given(q=SHARE, p=st.one_of(SHARE, st.floats(-1e-7, 1e-7).map(lambda d: 0.3 + d)))
def test_kl_has_all_its_digits(q: float, p: float) -> None:
    value = float(kl_bernoulli(q, p))
    if q == p:
        assert value == 0
    elif (p == 0 and q > 0) or (p == 1 and q < 1):
        assert value == math.inf
    elif 0 < p < 1:
        with localcontext() as context:
            context.prec = 80
            # 1 - q and 1 - p are rounded once, which costs an absolute 1e-16.
            assert value == pytest.approx(float(exact(q, p)), rel=1e-9, abs=1e-15)


def test_close_probabilities_do_not_cancel() -> None:
    """The textbook formula has no digit left here."""
    q, p = 0.3, 0.3 + 1e-9
    with localcontext() as context:
        context.prec = 80
        assert float(kl_bernoulli(q, p)) == pytest.approx(float(exact(q, p)), rel=1e-12)


def test_edges() -> None:
    for c in (1e-9, 0.1, 3.0):
        assert float(kl_inverse_upper(0.0, c)) == pytest.approx(-math.expm1(-c), rel=1e-12)
        assert float(kl_inverse_lower(1.0, c)) == pytest.approx(math.exp(-c), rel=1e-12)
        assert float(kl_inverse_upper(1.0, c)) == 1
        assert float(kl_inverse_lower(0.0, c)) == 0
    assert float(kl_inverse_upper(0.3, math.inf)) == 1
    assert float(kl_inverse_lower(0.3, math.inf)) == 0
    assert float(kl_inverse_upper(0.3, 0.0)) == pytest.approx(0.3, abs=1e-14)
    assert kl_inverse_upper(torch.tensor([[0.1], [0.2]]), torch.tensor([0.1, 0.2, 0.3])).shape == (2, 3)
    assert float(kl_bernoulli(0.0, 0.0)) == float(kl_bernoulli(1.0, 1.0)) == 0


def test_gaussian_kl_is_golden(golden) -> None:
    file = golden("kl_gauss.npz")
    mu_q, sigma_q, mu_p, sigma_p = (file[key] for key in ("mu_q", "sigma_q", "mu_p", "sigma_p"))
    each = [float(kl_gaussian(*(t[i : i + 1] for t in (mu_q, sigma_q, mu_p, sigma_p)))) for i in range(7)]
    assert each == pytest.approx(file["kl_per_dim"].tolist(), rel=1e-10)
    assert float(kl_gaussian(mu_q, sigma_q, mu_p, sigma_p)) == pytest.approx(float(file["kl_total"]), rel=1e-10)
    iso = kl_gaussian(mu_q, sigma_q, 0.0, float(file["iso_sigma_p"]))
    assert float(iso) == pytest.approx(float(file["kl_iso_total"]), rel=1e-10)


def test_gaussian_kl_is_a_sum_with_a_gradient() -> None:
    mu, rho = torch.randn(40, requires_grad=True), torch.randn(40, requires_grad=True)
    sigma = torch.nn.functional.softplus(rho)
    once = kl_gaussian(mu, sigma, 0.0, 0.3)
    assert once.detach().dtype == torch.float64
    twice = kl_gaussian(mu.repeat(2), sigma.repeat(2), 0.0, 0.3)
    assert float(twice.detach()) == pytest.approx(2 * float(once.detach()), rel=1e-12)
    by_mu, by_rho = torch.autograd.grad(once, [mu, rho])
    torch.testing.assert_close(by_mu, mu.detach() / 0.09)
    torch.testing.assert_close(by_rho, ((sigma / 0.09 - 1 / sigma) * torch.sigmoid(rho)).detach(), rtol=1e-4, atol=1e-4)
    assert float(kl_gaussian(torch.zeros(9), torch.full((9,), 0.25), 0.0, 0.25)) == 0


def test_monte_carlo_risk() -> None:
    """Digits of C4: 0.083 from 200 draws costs a few hundredths."""
    bound = float(monte_carlo_risk(0.083, 200, 0.01))
    assert float(kl_bernoulli(0.083, bound)) == pytest.approx(math.log(200) / 200, rel=1e-9)
    assert bound > float(monte_carlo_risk(0.083, 1000, 0.01)) > 0.083


WRONG = [
    (lambda: kl_bernoulli(0.1, 1.1), "p is 1.1: it lies in [0, 1]"),
    (lambda: kl_inverse_upper(-0.1, 1.0), "q is -0.1: it lies in [0, 1]"),
    (lambda: kl_inverse_upper(0.1, math.nan), "c is nan: it is at least 0"),
    (lambda: kl_inverse_lower(0.1, -2.0), "c is -2: it is at least 0"),
    (lambda: kl_gaussian(torch.zeros(2), torch.zeros(2), 0, 1), "sigma_q is 0: it is positive and finite"),
    (lambda: kl_gaussian(torch.zeros(2), torch.ones(3), 0, 1), "mu_q has shape [2], sigma_q [3]"),
    (lambda: kl_gaussian(torch.full((2,), math.nan), torch.ones(2), 0, 1), "mu_q is nan: every value is a finite"),
    (lambda: kl_gaussian(torch.zeros(2), torch.ones(2), 0, -1), "sigma_p is -1: it is positive and finite"),
    (lambda: monte_carlo_risk(0.1, 0), "K is 0: at least one posterior draw is needed"),
    (lambda: monte_carlo_risk(0.1, 10, 1.5), "delta' is 1.5: it is a probability of failure"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_inputs_without_a_divergence(call, message: str) -> None:
    with pytest.raises(BoundError) as caught:
        call()
    assert message in str(caught.value)
