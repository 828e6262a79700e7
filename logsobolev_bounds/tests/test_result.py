"""Certificate or estimate: every rule of section 3.8, each alone."""

from __future__ import annotations

import dataclasses
import math

import pytest
from logsobolev_bounds.bounds import Facts, assemble, assemble_mgf, pac_bayes_mgf
from logsobolev_bounds.bounds.result import CERTIFIABLE, ESTIMATES, FIXED_LAMBDA
from logsobolev_bounds.errors import BoundError

CLEAN = Facts(prior_fixed=True, lambda_fixed=True, preprocessing_free=True, risk="inverted", complexity_from="")


@pytest.mark.parametrize("name", CERTIFIABLE)
def test_clean_facts_make_a_certificate(name: str) -> None:
    for risk in ("inverted", "exact"):
        found = assemble(name, 0.4, dataclasses.replace(CLEAN, risk=risk))
        assert (found.kind, found.reasons, found.value) == ("certificate", (), 0.4)


@pytest.mark.parametrize("name", CERTIFIABLE)
@pytest.mark.parametrize(
    ("fact", "reason"),
    [
        ({"prior_fixed": False}, "the prior was not fixed before the sample was seen"),
        ({"preprocessing_free": False}, "the preprocessing uses the sample"),
        ({"risk": "plug_in"}, "the empirical risk is a plug-in mean of posterior draws, not inverted"),
        ({"selected_over": "seeds"}, "it is the least over seeds, without a union bound"),
        ({"lambda_fixed": False}, "lambda was not fixed before the sample was seen"),
    ],
)
def test_one_fact_makes_an_estimate(name: str, fact: dict, reason: str) -> None:
    found = assemble(name, 0.4, dataclasses.replace(CLEAN, **fact))
    if "lambda_fixed" in fact and name not in FIXED_LAMBDA:
        assert (found.kind, found.reasons) == ("certificate", ())
    else:
        assert (found.kind, found.reasons) == ("estimate", (reason,))


@pytest.mark.parametrize("name", ESTIMATES)
def test_what_is_never_a_certificate(name: str) -> None:
    found = assemble(name, 0.4, dataclasses.replace(CLEAN, risk="exact"), ess=1e6)
    assert found.kind == "estimate"
    assert found.reasons == (ESTIMATES[name],)


def test_nothing_is_claimed_by_default() -> None:
    found = assemble("catoni", 0.4, Facts())
    assert found.kind == "estimate"
    assert len(found.reasons) == 4


def test_few_draws_are_named() -> None:
    found = assemble("lsi", 1.1, CLEAN, ess=1.0)
    assert found.unreliable
    assert found.reasons[-1] == "unreliable: effective sample size 1.0 < 10, C is under-estimated"
    assert assemble("lsi", 1.1, CLEAN, ess=math.nan).unreliable
    assert not assemble("lsi", 1.1, CLEAN, ess=10.0).unreliable
    assert not assemble("lsi", 1.1, CLEAN).unreliable


def test_the_terms_make_the_value() -> None:
    found = assemble_mgf("lsi", 0.5, 392.0, 40.0, 1200.0, 0.05, CLEAN, ess=3.0)
    assert list(found.terms) == ["risk", "KL/lambda", "ln(1/delta)/lambda", "C/lambda"]
    assert sum(found.terms.values()) == pytest.approx(found.value, rel=1e-12)
    assert found.value == float(pac_bayes_mgf(0.5, 392.0, 40.0, 1200.0, 0.05))
    assert (found.name, found.kind, found.ess) == ("lsi", "estimate", 3.0)
    assert (found.lam, found.C) == (1200.0, pytest.approx(40.0, rel=1e-12))
    assert assemble("seeger", 0.4, CLEAN).C is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.kind = "certificate"  # type: ignore[misc]


def test_an_infinite_complexity_is_named() -> None:
    for name in ("lipschitz", "comonotone"):
        found = assemble_mgf(name, 0.5, 392.0, math.inf, 1200.0, 0.05, CLEAN)
        assert found.value == math.inf
        assert found.reasons[-1] == (
            "the value is infinite: C is, at this lambda; it is finite while lambda^2 sigma_p^2 max(kappa) < m: take a "
            "smaller lambda or sigma_p"
        )
    assert assemble_mgf("lsi", 0.5, 1.0, math.inf, 9.0, 0.05, CLEAN).reasons[-1].endswith("C is, at this lambda")
    assert not any("infinite" in reason for reason in assemble("lsi", 1.1, CLEAN).reasons)


def test_a_complexity_from_the_sample_is_named() -> None:
    """Trap 9: a certificate may not use S again for C."""
    of_sample = dataclasses.replace(CLEAN, complexity_from="150 of the sample's 200 examples")
    reason = "C and the assumed covariance are estimated on 150 of the sample's 200 examples"
    assert reason in assemble_mgf("lsi", 0.5, 392.0, 40.0, 1200.0, 0.05, of_sample).reasons
    assert reason not in assemble("seeger", 0.4, of_sample).reasons
    assert any("estimated on the sample" in reason for reason in assemble("lsi", 0.4, Facts()).reasons)


def test_inputs_without_a_result() -> None:
    for call, message in (
        (lambda: assemble("lsl", 0.4, CLEAN), "unknown bound 'lsl': there are maurer_pinsker, seeger, "),
        (lambda: assemble("seeger", math.nan, CLEAN), "the value of seeger is nan: check the loss"),
        (lambda: assemble_mgf("seeger", 0.1, 1.0, 1.0, 1.0, 0.05, CLEAN), "'seeger' has no log-MGF: there are lsi, "),
        (lambda: assemble_mgf("elbo", 0.1, 1.0, 1.0, 1.0, 0.05, CLEAN), "'elbo' has no log-MGF"),
        (lambda: Facts(risk="mean"), "risk is 'mean': it is exact, inverted, plug_in"),  # type: ignore[arg-type]
    ):
        with pytest.raises(BoundError) as caught:
            call()
        assert message in str(caught.value)
