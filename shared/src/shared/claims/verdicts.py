"""From what was measured to a verdict. The rules are few, and each has a test that tries to get past it.

reproduced        the rule holds, on the paper's data (real, drawn by its recipe, or none), at the paper's setting
trend reproduced  the rule holds (order, shape) in a setting of ours
not reproduced    it was measured with enough seeds, and the rule does not hold
not run           no result (the ledger's `not_run` says why), a failed run, too few seeds, or a rule that needs the
                  paper's setting
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from shared.claims.ledger import Claim, Order, Ratio, Shape, Within
from shared.claims.results import THE_PAPERS, ClaimOutcome, ExperimentResult, Measured, Results, Verdict
from shared.claims.schema import TIERS, Tier


def measure(experiment: ExperimentResult, metric: str) -> Measured | None:
    """Mean, sample standard deviation and values over seeds; None where a run does not report the metric."""
    values = [run.metrics.get(metric) for run in experiment.runs]
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return None
    spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return Measured(mean=statistics.fmean(numbers), sd=spread, n=len(numbers), values=numbers)


def judge(claim: Claim, results: Results | None, tier: Tier) -> ClaimOutcome:
    """The verdict on `claim` by what `results` hold for `tier`."""
    test = claim.tiers.get(tier)
    ours: dict[str, Measured | None] = dict.fromkeys(claim.paper)
    if test is None:
        return ClaimOutcome(verdict="not run", why=f"the {tier} tier does not test it", ours=ours)
    experiments = results.experiments if results is not None and results.tier == tier else {}
    used = {role: experiments[name] for role, name in test.experiments.items() if name in experiments}
    metric = claim.measured_by(tier)
    ours.update({role: measure(experiment, metric) for role, experiment in used.items()})

    reason = _missing(claim, results, tier, used, ours)
    if reason:
        return ClaimOutcome(verdict="not run", why=reason, ours=ours)
    own = all(used[role].data.kind in THE_PAPERS for role in claim.rule.roles)
    verdict, why = _apply(claim, ours, at_paper_setting=test.paper_setting and own)
    if verdict == "not run" and test.paper_setting:
        kinds = sorted({used[role].data.kind for role in claim.rule.roles} - set(THE_PAPERS))
        why = f"the data are {' and '.join(kinds)}, not the paper's"
    return ClaimOutcome(verdict=verdict, why=why, ours=ours)


def _missing(
    claim: Claim,
    results: Results | None,
    tier: Tier,
    used: Mapping[str, ExperimentResult],
    ours: Mapping[str, Measured | None],
) -> str:
    """Why there is nothing to judge; empty where there is."""
    test, rule = claim.tiers[tier], claim.rule
    # The ledger's reason holds until what the claim names was run; then its rule is applied, whatever is written there.
    named = {*rule.roles, *test.experiments}
    if test.not_run is not None and not all(role in used and used[role].runs for role in named):
        return test.not_run
    if results is None or results.tier != tier:
        return f"the {tier} tier has not been run"
    for role in rule.roles:
        name = test.experiments[role]
        if role not in used:
            return f"{name} has not been run"
        # Judging the seeds that survived would choose the seeds by their outcome.
        if used[role].failed:
            return f"{name} failed: {used[role].failed[0]}"
        n = len(used[role].runs)
        if n < rule.min_seeds:
            return f"{name} has {n} of {rule.min_seeds} seeds"
        if ours[role] is None:
            return f"{name} does not report {claim.measured_by(tier)}"
    if isinstance(rule, Ratio) and rule.every_seed:
        top, bottom = ([run.seed for run in used[role].runs] for role in rule.roles)
        if top != bottom:
            return f"{' and '.join(test.experiments[role] for role in rule.roles)} have other seeds"
    return ""


def standard_error(*measured: Measured) -> float:
    """Of a mean, or of the difference of two independent means."""
    return math.sqrt(sum(m.sd**2 / m.n for m in measured))


def _apply(claim: Claim, ours: Mapping[str, Measured | None], at_paper_setting: bool) -> tuple[Verdict, str]:
    rule = claim.rule
    values = {role: m for role, m in ours.items() if m is not None}
    good: Verdict = "reproduced" if at_paper_setting else "trend reproduced"
    if isinstance(rule, Within):
        paper = claim.paper[rule.role]
        assert paper is not None  # the ledger refuses a within rule without the paper's number
        distance = abs(values[rule.role].mean - paper.value)
        if not at_paper_setting:
            return "not run", "the setting is not the paper's"
        holds = distance <= rule.tolerance
        return ("reproduced" if holds else "not reproduced"), (
            f"{distance:.3g} from the paper's value, tolerance {rule.tolerance:g}"
        )
    if isinstance(rule, Order):
        low, high = values[rule.smaller], values[rule.larger]
        difference, error = high.mean - low.mean, standard_error(low, high)
        holds = difference > rule.margin_se * error  # neither factor is negative: equal means do not hold
        return (good if holds else "not reproduced"), (
            f"{rule.larger} − {rule.smaller} = {_in_errors(difference, error)}; more than {rule.margin_se:g} needed"
        )
    if isinstance(rule, Ratio):
        return _ratio(rule, values[rule.numerator], values[rule.denominator], good)
    return _shape(rule, values[rule.role], good)


def _ratio(rule: Ratio, top: Measured, bottom: Measured, good: Verdict) -> tuple[Verdict, str]:
    pairs = list(zip(top.values, bottom.values)) if rule.every_seed else [(top.mean, bottom.mean)]
    if any(low <= 0 for _, low in pairs):
        return "not reproduced", f"{rule.denominator} is not positive: no ratio"
    worst = max(high / low for high, low in pairs)
    if rule.every_seed:
        holding = sum(high / low <= rule.at_most for high, low in pairs)
        words, holds = f"{holding} of {len(pairs)} seeds, the largest {worst:.3g}", holding == len(pairs)
        return (good if holds else "not reproduced"), f"{words}; at most {rule.at_most:g} needed"
    # top <= at_most * bottom, both means uncertain: the difference, in its own standard errors
    slack = rule.at_most * bottom.mean - top.mean
    error = math.sqrt(top.sd**2 / top.n + (rule.at_most * bottom.sd) ** 2 / bottom.n)
    holds = slack >= 0 and slack >= rule.margin_se * error
    errors = f" by {slack / error:.1f} standard errors ({rule.margin_se:g} needed)" if error and slack >= 0 else ""
    return (good if holds else "not reproduced"), f"{worst:.3g}; at most {rule.at_most:g} needed{errors}"


def _shape(rule: Shape, m: Measured, good: Verdict) -> tuple[Verdict, str]:
    error = standard_error(m)
    slacks = []
    if rule.at_least is not None:
        slacks.append((m.mean - rule.at_least, f"at least {rule.at_least:g}"))
    if rule.at_most is not None:
        slacks.append((rule.at_most - m.mean, f"at most {rule.at_most:g}"))
    slack, bound = min(slacks)
    holds = slack >= 0 and slack >= rule.margin_se * error
    how = "holds" if slack >= 0 else "is missed"
    needed = f"; {rule.margin_se:g} needed" if slack >= 0 and error else ""
    return (good if holds else "not reproduced"), f"{bound} {how} by {_in_errors(abs(slack), error)}{needed}"


def _in_errors(difference: float, error: float) -> str:
    spread = f"{difference / error:.1f} standard errors" if error else "no spread over seeds"
    return f"{difference:.3g} ({spread})".replace("-", "−")


def overall(claim: Claim, outcomes: Mapping[Tier, ClaimOutcome]) -> tuple[Tier, ClaimOutcome]:
    """The verdict that stands for the claim: that of the highest tier which ran, with the tier.

    Where none ran: the highest tier with a number of ours; else the smallest that could give a verdict, as that is
    the one to run; else the highest that the claim names.
    """
    tiers = [tier for tier in reversed(TIERS) if tier in outcomes]
    for tier in tiers:
        if outcomes[tier].verdict != "not run":
            return tier, outcomes[tier]
    for tier in tiers:
        if any(outcomes[tier].ours[role] is not None for role in claim.rule.roles):
            return tier, outcomes[tier]
    for tier in reversed(tiers):
        test = claim.tiers[tier]
        if test.not_run is None and (test.paper_setting or not isinstance(claim.rule, Within)):
            return tier, outcomes[tier]
    return tiers[0], outcomes[tiers[0]]
