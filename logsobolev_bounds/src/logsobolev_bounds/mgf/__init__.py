"""Log moment generating functions, exact and bounded through input-gradient norms (sections 2 to 3.8).

moments        psi, tilted moments, Herbst's identity
inequalities   T1, T2, the co-monotone, Lipschitz and class-corrected bounds
prior          from draws to C(lambda, p); the sub-gamma fit
"""

from logsobolev_bounds.mgf.inequalities import c_lipschitz, c_on_average, class_corrected, comonotone, lsi, on_average
from logsobolev_bounds.mgf.moments import herbst, psi, tilted
from logsobolev_bounds.mgf.prior import LogC, SubGamma, log_c, subgamma_fit

__all__ = [
    "LogC",
    "SubGamma",
    "c_lipschitz",
    "c_on_average",
    "class_corrected",
    "comonotone",
    "herbst",
    "log_c",
    "lsi",
    "on_average",
    "psi",
    "subgamma_fit",
    "tilted",
]
