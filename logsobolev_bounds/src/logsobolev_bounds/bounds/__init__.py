"""The bounds, and what their values are worth (sections 3.1, 3.8 and 3.9).

kl          divergences, the two inverses of the binary one, the Monte-Carlo risk
classical   bounds for bounded losses, and the one that takes a log-MGF
result      value, terms, and certificate or estimate
"""

from logsobolev_bounds.bounds.classical import (
    Grid,
    alquier_bounded,
    alquier_optimal,
    best_t,
    catoni,
    complexity,
    elbo,
    lambda_bound,
    lambda_grid,
    maurer_pinsker,
    pac_bayes_mgf,
    quadratic,
    seeger,
    seeger_clipped,
)
from logsobolev_bounds.bounds.kl import (
    kl_bernoulli,
    kl_gaussian,
    kl_inverse_lower,
    kl_inverse_upper,
    monte_carlo_risk,
)
from logsobolev_bounds.bounds.result import BoundResult, Facts, assemble, assemble_mgf

__all__ = [
    "BoundResult",
    "Facts",
    "Grid",
    "alquier_bounded",
    "alquier_optimal",
    "assemble",
    "assemble_mgf",
    "best_t",
    "catoni",
    "complexity",
    "elbo",
    "kl_bernoulli",
    "kl_gaussian",
    "kl_inverse_lower",
    "kl_inverse_upper",
    "lambda_bound",
    "lambda_grid",
    "maurer_pinsker",
    "monte_carlo_risk",
    "pac_bayes_mgf",
    "quadratic",
    "seeger",
    "seeger_clipped",
]
