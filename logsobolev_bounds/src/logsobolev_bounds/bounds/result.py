"""What a bound says of itself: its value, what it is made of, and whether it is a certificate (section 3.8).

A certificate is a statement that holds with probability 1 - delta over the sample. It takes more than the formula: what
the theorem wants fixed has to have been fixed before the sample was seen. A value to which one of those facts is
missing, or that rests on an assumption about the data, is an estimate, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from logsobolev_bounds.bounds.classical import pac_bayes_mgf
from logsobolev_bounds.errors import BoundError, Number

Kind = Literal["certificate", "estimate"]
Risk = Literal["exact", "inverted", "plug_in"]

RELIABLE_ESS = 10.0
# Section 3.9: the bounds that assume nothing of the data but independence, and which of them have a lambda to fix.
CERTIFIABLE = ("maurer_pinsker", "seeger", "seeger_clipped", "quadratic", "lambda", "catoni", "alquier_bounded")
FIXED_LAMBDA = ("catoni", "alquier_bounded")
# Never certificates, whatever the facts, and why.
ESTIMATES = {
    "elbo": "the ELBO objective has no guarantee",
    "alquier_optimal": "the value is at the lambda that minimises it, which depends on the sample",
    "lsi": "the log-Sobolev inequality is assumed: inputs are taken as Gaussian and as all randomness of the loss",
    "class_corrected": "the log-Sobolev inequality is assumed: inputs are taken as Gaussian within each class",
    "comonotone": "the log-Sobolev inequality is assumed, and a gradient norm that grows with the loss",
    "on_average": "the log-Sobolev inequality is assumed, and bounds on mean loss and gradient under the prior",
    "lipschitz": "the log-Sobolev inequality is assumed, and a linear model of Gaussian inputs",
}
# Where C is finite, of the bounds of which that is known: both of a linear model with logistic loss (section 3.5).
FINITE = dict.fromkeys(
    ("comonotone", "lipschitz"),
    "; it is finite while lambda^2 sigma_p^2 max(kappa) < m: take a smaller lambda or sigma_p",
)
THROUGH_MGF = tuple(key for key in ESTIMATES if key not in ("elbo", "alquier_optimal"))


@dataclass(frozen=True)
class Facts:
    """How a bound's inputs came about. The defaults claim nothing.

    Args:
        prior_fixed: the prior, sigma_p included, was fixed before the sample was seen.
        lambda_fixed: lambda was, or a grid of which the union bound was taken.
        preprocessing_free: no statistic of the sample (such as its mean) enters the inputs.
        risk: the empirical Gibbs risk is `exact`, a Monte-Carlo mean that was `inverted` (`monte_carlo_risk`), or a
            `plug_in` mean.
        selected_over: what the value is the least of without a union bound, such as "seeds"; none: "".
        complexity_from: what C and the covariance in it are estimated on, if it is (part of) the sample; else "".
    """

    prior_fixed: bool = False
    lambda_fixed: bool = False
    preprocessing_free: bool = False
    risk: Risk = "plug_in"
    selected_over: str = ""
    complexity_from: str = "the sample"

    def __post_init__(self) -> None:
        if self.risk not in get_args(Risk):
            raise BoundError(f"risk is {self.risk!r}: it is {', '.join(get_args(Risk))}")


@dataclass(frozen=True)
class BoundResult:
    """A bound's value with what it is worth.

    `terms` are what the value is made of, by name; `reasons` say why it is an estimate, and warn. `ess` is the
    effective sample size behind C, `lam` the lambda, None for bounds without one.
    """

    name: str
    value: float
    kind: Kind
    terms: Mapping[str, float] = field(default_factory=dict)
    ess: float | None = None
    reasons: tuple[str, ...] = ()
    lam: float | None = None

    @property
    def C(self) -> float | None:
        """The complexity itself, in nats: `terms` hold it over lambda."""
        return None if self.lam is None or "C/lambda" not in self.terms else self.terms["C/lambda"] * self.lam

    @property
    def unreliable(self) -> bool:
        """Whether C rests on so few draws that it is more their maximum than their mean (section 3.8)."""
        return self.ess is not None and not self.ess >= RELIABLE_ESS


def assemble(
    name: str,
    value: Number,
    facts: Facts,
    terms: Mapping[str, Number] | None = None,
    ess: Number | None = None,
    lam: Number | None = None,
) -> BoundResult:
    """A BoundResult whose kind follows from the facts, by the rules of section 3.8.

    Args:
        name: of CERTIFIABLE or ESTIMATES. A bound through the log-Sobolev inequality is never a certificate.

    Raises:
        BoundError: an unknown name (the known are listed), or a value that is NaN.
    """
    if name not in (*CERTIFIABLE, *ESTIMATES):
        raise BoundError(f"unknown bound {name!r}: there are {', '.join((*CERTIFIABLE, *ESTIMATES))}")
    value = float(value)
    if value != value:
        raise BoundError(f"the value of {name} is nan: check the loss and the gradients that went into it")
    reasons = [ESTIMATES[name]] if name in ESTIMATES else []
    if name in THROUGH_MGF and facts.complexity_from:
        reasons.append(f"C and the assumed covariance are estimated on {facts.complexity_from}")
    if not facts.prior_fixed:
        reasons.append("the prior was not fixed before the sample was seen")
    if (name in FIXED_LAMBDA or name in ESTIMATES) and name != "alquier_optimal" and not facts.lambda_fixed:
        reasons.append("lambda was not fixed before the sample was seen")
    if not facts.preprocessing_free:
        reasons.append("the preprocessing uses the sample")
    if facts.risk == "plug_in":
        reasons.append("the empirical risk is a plug-in mean of posterior draws, not inverted")
    if facts.selected_over:
        reasons.append(f"it is the least over {facts.selected_over}, without a union bound")
    kind: Kind = "estimate" if reasons else "certificate"
    size = None if ess is None else float(ess)
    if size is not None and not size >= RELIABLE_ESS:
        reasons.append(f"unreliable: effective sample size {size:.1f} < {RELIABLE_ESS:.0f}, C is under-estimated")
    if value == float("inf"):
        reasons.append("the value is infinite: C is, at this lambda" + FINITE.get(name, ""))
    made_of = {key: float(term) for key, term in (terms or {}).items()}
    return BoundResult(name, value, kind, made_of, size, tuple(reasons), None if lam is None else float(lam))


def assemble_mgf(
    name: str, q: Number, kl: Number, C: Number, lam: Number, delta: Number, facts: Facts, ess: Number | None = None
) -> BoundResult:
    """`pac_bayes_mgf` as a BoundResult, with its four terms: risk, KL, confidence and C, the last three over lambda.

    Raises:
        BoundError: a name that is not of a bound through a log-MGF, or what `pac_bayes_mgf` and `assemble` refuse.
    """
    if name not in THROUGH_MGF:
        raise BoundError(f"{name!r} has no log-MGF: there are {', '.join(THROUGH_MGF)}")
    value = pac_bayes_mgf(q, kl, C, lam, delta)
    terms = {
        "risk": q,
        "KL/lambda": kl / lam,
        "ln(1/delta)/lambda": -torch.log(torch.as_tensor(delta, dtype=torch.float64)) / lam,
        "C/lambda": C / lam,
    }
    return assemble(name, value, facts, terms, ess, lam)
