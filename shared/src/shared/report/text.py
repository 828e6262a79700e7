"""How numbers, times and verdicts are written, in the page and in the READMEs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby

from shared.claims.ledger import Claim, Metric, Order, PaperValue, Ratio, Within
from shared.claims.results import Measured, Verdict

# A shape as well as a colour.
SHAPES: dict[Verdict, str] = {
    "reproduced": "●",
    "trend reproduced": "▲",
    "not reproduced": "✕",
    "not run": "○",
}


def number(value: float, decimals: int | None = None) -> str:
    """Four significant digits, or this many decimals; a true minus sign."""
    text = f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"
    return text.replace("-", "−") if text.strip("-0.") else text.lstrip("-")


def decimals(spread: float, value: float = 0.0) -> int | None:
    """As many as show two digits of the spread; None (significant digits) where there is none or it is tiny or vast."""
    if spread <= 0:
        return None
    places = 1 - math.floor(math.log10(spread))
    return max(places, 0) if places <= 6 and abs(value) < 1e6 else None


def mean(measured: Measured) -> str:
    return number(measured.mean, decimals(measured.sd, measured.mean))


def spread(measured: Measured) -> str:
    """The sample standard deviation; empty for one seed, which has none."""
    if measured.n < 2:
        return ""
    places = decimals(measured.sd, measured.mean)
    return number(measured.sd, places) if places is not None else f"{measured.sd:.2g}"


def ranges(numbers: Iterable[int]) -> str:
    """`0–3, 7`: whole numbers, runs of three or more by their ends."""
    parts: list[str] = []
    for _, group in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts += [f"{run[0]}–{run[-1]}"] if len(run) > 2 else [str(number) for number in run]
    return ", ".join(parts)


def seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"


def paper_number(value: PaperValue | None) -> str:
    if value is None:
        return "n/a"
    return number(value.value) + (f" ± {number(value.spread)}" if value.spread is not None else "")


def second_hand(claim: Claim) -> bool:
    """Whether the claim has a number of the paper that did not come to us from the paper itself."""
    return claim.secondary and any(value is not None for value in claim.paper.values())


def metric(shown: Metric) -> str:
    """`test error (%), lower is better`."""
    unit = f" ({shown.unit})" if shown.unit else ""
    direction = "" if shown.better == "none" else f", {shown.better} is better"
    return shown.name.replace("_", " ") + unit + direction


def rule(claim: Claim) -> str:
    """The rule of a claim as a sentence."""
    it = claim.rule
    if isinstance(it, Within):
        return f"our mean within {it.tolerance:g} of the paper's, at the paper's setting, {seeds(it.min_seeds)} or more"
    if isinstance(it, Order):
        margin = f"{it.margin_se:g} standard errors"
        return f"{it.smaller} below {it.larger} by more than {margin}, {seeds(it.min_seeds)} or more"
    if isinstance(it, Ratio):
        each = ", of every seed" if it.every_seed else " of means"
        return f"{it.numerator} / {it.denominator} at most {it.at_most:g}{each}, {seeds(it.min_seeds)} or more"
    bounds = [f"at least {it.at_least:g}"] if it.at_least is not None else []
    bounds += [f"at most {it.at_most:g}"] if it.at_most is not None else []
    return (
        f"{it.statistic} {' and '.join(bounds)}, by {it.margin_se:g} standard errors or more, "
        f"{seeds(it.min_seeds)} or more"
    )


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
