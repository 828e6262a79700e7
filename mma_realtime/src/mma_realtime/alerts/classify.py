"""What kind of source it is, by simple rules that are stated here and read nothing but masses and false-alarm rate.

- BNS: both components are lighter than 3 solar masses; NSBH: only the lighter one; BBH: neither.
- p_astro = R / (R + FAR), with R the rate of signals that the search is assumed to find, one a week: an assumption, no
  measurement. Terrestrial = 1 - p_astro; where the false-alarm rate is an upper bound, p_astro is a lower one.
- HasNS: the lighter component is lighter than 3. HasMassGap: a component of 3 to 5. HasRemnant: both lighter than 3;
  matter that a black hole without spin leaves outside is neglected.
- The masses are those of the loudest template at the event, from the sky map on: as the detectors see them (heavier
  than at the source by 1 + z), and no smaller or larger than the bank holds.
- Before, they are not known. Then the properties are not known either, and BBH is all that p_astro can be given to:
  black holes are what the networks are trained on. `basis_of` says which of the two it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mma_realtime.alerts.superevent import Candidate
from mma_realtime.errors import AlertError
from mma_realtime.gw.units import Hertz

HEAVIEST_NS, HEAVIEST_IN_GAP = 3.0, 5.0  # solar masses
SIGNALS: Hertz = 1 / (7 * 86400)  # R
SIGNIFICANT: Hertz = 1 / (30 * 86400)  # of a false-alarm rate: at most one a month
TOLERANCE = 1e-6


def check_probability(name: str, value: float) -> None:
    """Raises:
    AlertError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise AlertError(f"{name} is {value!r}: a probability from 0 to 1 is expected")


@dataclass(frozen=True)
class Classification:
    """Probabilities that add up to 1.

    Raises:
        AlertError: they do not, or one is none.
    """

    BNS: float
    NSBH: float
    BBH: float
    Terrestrial: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_probability(f"classification.{name}", value)
        total = self.BNS + self.NSBH + self.BBH + self.Terrestrial
        if abs(total - 1) > TOLERANCE:
            raise AlertError(f"the classification adds up to {total:.7g}, not to 1")

    @property
    def p_astro(self) -> float:
        return self.BNS + self.NSBH + self.BBH


@dataclass(frozen=True)
class Properties:
    """Probabilities, given that it is a signal.

    Raises:
        AlertError: one is none.
    """

    HasNS: float
    HasRemnant: float
    HasMassGap: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_probability(f"properties.{name}", value)


def p_astro(far: Hertz) -> float:
    """R / (R + FAR)."""
    return SIGNALS / (SIGNALS + far)


def basis_of(candidate: Candidate) -> Literal["masses", "assumed"]:
    """What its classification rests on."""
    return "masses" if candidate.masses else "assumed"


def classify(candidate: Candidate) -> tuple[Classification, Properties | None]:
    """By the rules above; no properties: not known."""
    astro = p_astro(candidate.far)
    if candidate.masses is None:
        return Classification(0.0, 0.0, astro, Terrestrial=1 - astro), None
    m1, m2 = candidate.masses
    kind = "BNS" if m1 < HEAVIEST_NS else "NSBH" if m2 < HEAVIEST_NS else "BBH"
    shares = {name: astro if name == kind else 0.0 for name in ("BNS", "NSBH", "BBH")}
    gap = any(HEAVIEST_NS <= mass <= HEAVIEST_IN_GAP for mass in (m1, m2))
    properties = Properties(float(m2 < HEAVIEST_NS), float(m1 < HEAVIEST_NS), float(gap))
    return Classification(**shares, Terrestrial=1 - astro), properties
