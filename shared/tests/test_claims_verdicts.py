"""The rules for a verdict, each with an attempt to get past it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared.claims.ledger import Claim
from shared.claims.results import DataUsed, ExperimentResult, Results, RunResult
from shared.claims.schema import TIERS
from shared.claims.verdicts import judge, overall

ORDER = {"kind": "order", "smaller": "ours", "larger": "base", "margin_se": 2}
WITHIN = {"kind": "within", "role": "ours", "tolerance": 0.3}
AT_LEAST = {"kind": "shape", "role": "ours", "statistic": "gain", "at_least": 5}
RATIO = {"kind": "ratio", "numerator": "ours", "denominator": "base", "at_most": 0.8}
RULES = [ORDER, WITHIN, AT_LEAST, RATIO]
DATE = "2026-01-02T03:04:05+00:00"


def claim(rule: dict[str, Any], paper_setting: bool = False, **tier: Any) -> Claim:
    test = {"experiments": {"ours": "a", "base": "b"}, "setting": "s", "paper_setting": paper_setting, **tier}
    return Claim.model_validate(
        {
            "id": "c",
            "where": "Table 1",
            "says": "ours is lower",
            "metric": {"name": "error", "unit": "%", "better": "lower"},
            "paper": {"ours": 2.0, "base": 3.0},
            "rule": rule,
            "tiers": {"cpu": test},
        }
    )


def experiment(
    values: list[float], kind: str = "real", metrics: tuple[str, ...] = ("error", "gain"), failed: tuple[str, ...] = ()
) -> ExperimentResult:
    runs = [
        RunResult(
            seed=seed,
            key=f"key{seed}",
            metrics=dict.fromkeys(metrics, value),
            wall_seconds=1,
            device="CPU",
            date=DATE,
            commit="c0ffee",
            versions={},
        )
        for seed, value in enumerate(values)
    ]
    data = DataUsed.model_validate({"name": "d", "kind": kind, "fingerprint": "f", "detail": ""})
    return ExperimentResult(title="t", config={}, data=data, runs=runs, failed=list(failed))


def results(tier: str = "cpu", **experiments: ExperimentResult) -> Results:
    return Results.model_validate(
        {
            "paper": "p",
            "tier": tier,
            "created": DATE,
            "commit": "c0ffee",
            "dirty": False,
            "machine": "m",
            "versions": {},
            "wall_seconds": 1,
            "experiments": experiments,
        }
    )


def verdict(rule: dict[str, Any], ours: list[float], base: list[float] | None = None, **options: Any) -> str:
    kind = options.pop("kind", "real")
    found = results(a=experiment(ours, kind), b=experiment(base or [3.0, 3.0, 3.0], kind))
    return judge(claim(rule, **options), found, "cpu").verdict


# --- not run


@pytest.mark.parametrize("rule", RULES)
def test_without_results_or_experiment_a_claim_is_not_run(rule: dict[str, Any]) -> None:
    outcome = judge(claim(rule, True), None, "cpu")
    assert (outcome.verdict, outcome.why) == ("not run", "the cpu tier has not been run")
    assert outcome.ours == {"ours": None, "base": None}
    outcome = judge(claim(rule, True), results(b=experiment([3, 3, 3])), "cpu")
    assert (outcome.verdict, outcome.why) == ("not run", "a has not been run")
    outcome = judge(claim(rule, True), results(a=experiment([2, 2, 2])), "gpu")
    assert (outcome.verdict, outcome.why) == ("not run", "the gpu tier does not test it")


@pytest.mark.parametrize("rule", RULES)
def test_results_of_another_tier_do_not_count(rule: dict[str, Any]) -> None:
    good = [9.0, 9.0, 9.0] if rule is AT_LEAST else [2.0, 2.0, 2.0]
    outcome = judge(claim(rule, True), results("quick", a=experiment(good), b=experiment([3, 3, 3])), "cpu")
    assert (outcome.verdict, outcome.why) == ("not run", "the cpu tier has not been run")
    assert outcome.ours["ours"] is None


@pytest.mark.parametrize("rule", RULES)
def test_too_few_seeds_are_not_run(rule: dict[str, Any]) -> None:
    good = 9.0 if rule is AT_LEAST else 2.0
    assert verdict(rule, [good] * 3, paper_setting=True) == "reproduced"
    for n in (1, 2):
        found = results(a=experiment([good] * n), b=experiment([3, 3, 3]))
        outcome = judge(claim(rule, True), found, "cpu")
        assert (outcome.verdict, outcome.why) == ("not run", f"a has {n} of 3 seeds")
        assert outcome.ours["ours"] is not None  # the number is shown all the same
    found = results(a=experiment([good] * 4), b=experiment([3, 3, 3, 3]))
    assert judge(claim({**rule, "min_seeds": 5}, True), found, "cpu").verdict == "not run"


def test_both_sides_of_an_order_need_the_seeds() -> None:
    outcome = judge(claim(ORDER), results(a=experiment([2, 2, 2]), b=experiment([3, 3])), "cpu")
    assert (outcome.verdict, outcome.why) == ("not run", "b has 2 of 3 seeds")


def test_a_failed_seed_is_not_left_out_of_the_mean() -> None:
    """Four seeds of five converge: judging those four would choose the seeds by their outcome."""
    found = results(a=experiment([2, 2, 2, 2], failed=("seed 4: diverged",)), b=experiment([3, 3, 3]))
    outcome = judge(claim(ORDER), found, "cpu")
    assert (outcome.verdict, outcome.why) == ("not run", "a failed: seed 4: diverged")


def test_a_metric_that_one_run_does_not_report_is_not_run() -> None:
    whole = experiment([2, 2, 2])
    del whole.runs[1].metrics["error"]
    outcome = judge(claim(ORDER), results(a=whole, b=experiment([3, 3, 3])), "cpu")
    assert (outcome.verdict, outcome.why) == ("not run", "a does not report error")


def test_a_tier_that_says_not_run_is_not_run_until_it_has_been() -> None:
    it = claim(ORDER, True, not_run="needs eight GPUs")
    ours, base = experiment([2, 2, 2]), experiment([3, 3, 3])
    nothing = experiment([], failed=("the data are not here",))
    for found in (None, results(), results(a=ours), results(b=base), results(a=ours, b=nothing)):
        outcome = judge(it, found, "cpu")
        assert (outcome.verdict, outcome.why) == ("not run", "needs eight GPUs")
    assert judge(it, results(a=ours, b=base), "cpu").verdict == "reproduced"
    assert judge(it, results(a=base, b=ours), "cpu").verdict == "not reproduced"
    outcome = judge(it, results(a=experiment([2]), b=base), "cpu")
    assert (outcome.verdict, outcome.why) == ("not run", "a has 1 of 3 seeds")
    outcome = judge(it, results(a=experiment([2, 2], failed=("seed 2: diverged",)), b=base), "cpu")
    assert (outcome.verdict, outcome.why) == ("not run", "a failed: seed 2: diverged")


def test_a_tier_that_names_no_experiment_stays_not_run() -> None:
    it = claim(ORDER, True, not_run="needs eight GPUs", experiments={})
    outcome = judge(it, results(a=experiment([2, 2, 2]), b=experiment([3, 3, 3])), "cpu")
    assert (outcome.verdict, outcome.why) == ("not run", "needs eight GPUs")


# --- order


@pytest.mark.parametrize(
    ("ours", "base", "expected"),
    [
        ([2.0, 2.1, 2.2], [3.0, 3.1, 3.2], "trend reproduced"),
        ([3.0, 3.1, 3.2], [2.0, 2.1, 2.2], "not reproduced"),
        ([2.0, 2.5, 3.0], [2.4, 2.9, 3.4], "not reproduced"),  # holds, but by 0.98 standard errors
        ([2.0, 2.0, 2.0], [2.0, 2.0, 2.0], "not reproduced"),  # equal
        ([2.0, 2.0, 2.0], [2.1, 2.1, 2.1], "trend reproduced"),  # no spread, a difference
    ],
)
def test_order(ours: list[float], base: list[float], expected: str) -> None:
    assert verdict(ORDER, ours, base) == expected


def test_order_margin_is_in_standard_errors_of_the_difference() -> None:
    # sd 1 and 2, n 3: standard error sqrt(1/3 + 4/3) = 1.291; the difference of 2.6 is 2.014 of them.
    ours, base = [0.0, 1.0, 2.0], [1.6, 3.6, 5.6]
    assert verdict(ORDER, ours, base) == "trend reproduced"
    assert verdict({**ORDER, "margin_se": 2.02}, ours, base) == "not reproduced"
    outcome = judge(claim(ORDER), results(a=experiment(ours), b=experiment(base)), "cpu")
    assert outcome.why == "base − ours = 2.6 (2.0 standard errors); more than 2 needed"
    measured = outcome.ours["base"]
    assert measured is not None
    assert (measured.mean, measured.sd, measured.n, measured.values) == (3.6, pytest.approx(2.0), 3, base)


# --- within and shape


@pytest.mark.parametrize(
    ("ours", "base", "every", "expected"),
    [
        ([1, 1, 1], [2, 2, 2], False, "trend reproduced"),
        ([1, 1, 1], [2, 2, 1.9], False, "not reproduced"),
        ([2, 1, 1], [2, 4, 4], False, "not reproduced"),  # .4 of it, but by .7 standard errors only
        ([1.1, 1, 0.9], [4, 4, 3.9], False, "trend reproduced"),
        ([2, 1, 1], [2, 4, 4], True, "not reproduced"),
        ([1, 2, 2], [2, 4, 4], True, "trend reproduced"),
        ([1, 2, 2], [0, 4, 40], True, "not reproduced"),
        ([-1, -1, -1], [-4, -4, -4], False, "not reproduced"),
    ],
)
def test_ratio(ours: list[float], base: list[float], every: bool, expected: str) -> None:
    assert verdict({**RATIO, "at_most": 0.5, "every_seed": every}, ours, base) == expected


def test_ratio_of_every_seed_pairs_the_same_seeds() -> None:
    other = experiment([2.0, 2.0, 2.0])
    for run in other.runs:
        run.seed += 1
    rule = claim({**RATIO, "every_seed": True})
    found = judge(rule, results(a=experiment([1.0, 1.0, 1.0]), b=other), "cpu")
    assert (found.verdict, found.why) == ("not run", "a and b have other seeds")


def test_within_needs_the_papers_setting() -> None:
    assert verdict(WITHIN, [2.0, 2.0, 2.0]) == "not run"
    outcome = judge(claim(WITHIN), results(a=experiment([2.0, 2.0, 2.0])), "cpu")
    assert outcome.why == "the setting is not the paper's"
    assert verdict(WITHIN, [2.1, 2.2, 2.3], paper_setting=True) == "reproduced"
    assert verdict(WITHIN, [2.1, 2.3, 2.6], paper_setting=True) == "not reproduced"
    assert verdict(WITHIN, [1.5, 1.6, 1.7], paper_setting=True) == "not reproduced"  # better is not within


@pytest.mark.parametrize(
    ("bounds", "values", "expected"),
    [
        ({"at_least": 5}, [6.0, 6.1, 6.2], "trend reproduced"),
        ({"at_least": 5}, [4.8, 5.1, 5.4], "not reproduced"),  # above, but within its noise
        ({"at_least": 5}, [4.0, 4.1, 4.2], "not reproduced"),
        ({"at_most": 1}, [0.5, 0.6, 0.7], "trend reproduced"),
        ({"at_most": 1}, [1.5, 1.6, 1.7], "not reproduced"),
        ({"at_least": 1, "at_most": 2}, [1.5, 1.5, 1.5], "trend reproduced"),
        ({"at_least": 1, "at_most": 2}, [1.7, 1.9, 2.1], "not reproduced"),
        ({"at_least": 1, "at_most": 2}, [0.5, 0.5, 0.5], "not reproduced"),
    ],
)
def test_shape(bounds: dict[str, float], values: list[float], expected: str) -> None:
    rule = {"kind": "shape", "role": "ours", "statistic": "gain", **bounds}
    assert verdict(rule, values) == expected


# --- what reproduced may mean


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["embedded", "synthetic"])
def test_embedded_data_never_reproduce(rule: dict[str, Any], kind: str) -> None:
    good = [9.0, 9.0, 9.0] if rule is AT_LEAST else [2.0, 2.0, 2.0]
    assert verdict(rule, good, paper_setting=True) == "reproduced"
    expected = "not run" if rule is WITHIN else "trend reproduced"
    assert verdict(rule, good, paper_setting=True, kind=kind) == expected
    outcome = judge(claim(WITHIN, True), results(a=experiment(good, kind)), "cpu")
    assert outcome.why == f"the data are {kind}, not the paper's"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["recipe", "exact"])
def test_the_papers_own_recipe_and_enumerations_can_reproduce(rule: dict[str, Any], kind: str) -> None:
    good = [9.0, 9.0, 9.0] if rule is AT_LEAST else [2.0, 2.0, 2.0]
    assert verdict(rule, good, paper_setting=True, kind=kind) == "reproduced"
    assert verdict(rule, good, kind=kind) != "reproduced"  # not at another setting


def test_one_embedded_side_is_enough_to_refuse() -> None:
    for first, second in (("real", "embedded"), ("embedded", "real")):
        found = results(a=experiment([2, 2, 2], first), b=experiment([3, 3, 3], second))
        assert judge(claim(ORDER, True), found, "cpu").verdict == "trend reproduced"


# --- which tier's verdict stands


def test_the_highest_tier_that_ran_stands() -> None:
    tiers = {tier: {"experiments": {"ours": "a", "base": "b"}, "setting": tier} for tier in TIERS}
    it = claim(ORDER).model_copy(update={"tiers": Claim.model_validate({**DUMP, "tiers": tiers}).tiers})
    good = {"a": experiment([2, 2, 2]), "b": experiment([3, 3, 3])}
    bad = {"a": experiment([3, 3, 3]), "b": experiment([2, 2, 2])}
    few = {"a": experiment([2]), "b": experiment([3, 3, 3])}

    def stands(**by_tier: dict[str, ExperimentResult] | None) -> tuple[str, str]:
        outcomes = {
            tier: judge(it, results(tier, **found) if (found := by_tier.get(tier)) else None, tier) for tier in TIERS
        }
        tier, outcome = overall(it, outcomes)
        return tier, outcome.verdict

    assert stands() == ("quick", "not run")  # the one to run first
    assert stands(quick=good) == ("quick", "trend reproduced")
    assert stands(quick=good, cpu=bad) == ("cpu", "not reproduced")  # the better verdict of a smaller tier does not win
    assert stands(quick=good, cpu=bad, gpu=good) == ("gpu", "trend reproduced")
    assert stands(quick=bad, cpu=few) == ("quick", "not reproduced")
    assert stands(cpu=few) == ("cpu", "not run")  # nothing ran: the tier that has a number is shown


def test_where_nothing_ran_the_tier_to_run_is_shown() -> None:
    roles = {"experiments": {"ours": "a", "base": "b"}, "setting": "s"}
    blocked = {**roles, "not_run": "needs GPUs", "paper_setting": True}

    def shown(rule: dict[str, Any], **tiers: dict[str, Any]) -> str:
        it = Claim.model_validate({**DUMP, "rule": rule, "tiers": tiers})
        return overall(it, {tier: judge(it, None, tier) for tier in it.tiers})[0]

    assert shown(ORDER, cpu=roles, gpu=roles, paper=blocked) == "cpu"
    assert shown(WITHIN, cpu=roles, gpu={**roles, "paper_setting": True}, paper=blocked) == "gpu"  # cpu can't confirm
    assert shown(WITHIN, cpu=roles, paper=blocked) == "paper"
    assert shown(ORDER, gpu=blocked, paper=blocked) == "paper"


DUMP = {
    "id": "c", "where": "w", "says": "s", "metric": {"name": "error", "unit": "", "better": "lower"},
    "paper": {"ours": 2.0, "base": 3.0}, "rule": ORDER,
}  # fmt: skip

# --- properties

values = st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=6)
margins = st.floats(0, 10)
kinds = st.sampled_from(["real", "embedded", "synthetic"])
GOOD = ("reproduced", "trend reproduced")


@given(values, values, margins, st.booleans())
def test_an_order_and_its_opposite_never_both_hold(a: list[float], b: list[float], m: float, at_paper: bool) -> None:
    opposite = {"kind": "order", "smaller": "base", "larger": "ours", "margin_se": m}
    one = verdict({**ORDER, "margin_se": m}, a, b, paper_setting=at_paper)
    it = Claim.model_validate({**DUMP, "paper": {"ours": "n/a", "base": "n/a"}, "rule": opposite, "tiers": TIER_CPU})
    other = judge(it, results(a=experiment(a), b=experiment(b)), "cpu").verdict
    assert not (one in GOOD and other in GOOD)


TIER_CPU = {"cpu": {"experiments": {"ours": "a", "base": "b"}, "setting": "s"}}


@given(values, values, margins, st.floats(0, 10), st.sampled_from(["order", "at_least", "at_most"]))
def test_more_margin_never_helps(a: list[float], b: list[float], m: float, more: float, which: str) -> None:
    rule = ORDER if which == "order" else {"kind": "shape", "role": "ours", "statistic": "gain", which: 0.5}
    if verdict({**rule, "margin_se": m + more}, a, b) in GOOD:
        assert verdict({**rule, "margin_se": m}, a, b) in GOOD


@given(values, values, st.floats(0.01, 100), st.floats(0, 100))
def test_less_tolerance_never_helps(a: list[float], b: list[float], tolerance: float, more: float) -> None:
    if verdict({**WITHIN, "tolerance": tolerance}, a, b, paper_setting=True) == "reproduced":
        assert verdict({**WITHIN, "tolerance": tolerance + more}, a, b, paper_setting=True) == "reproduced"


@given(values, values, st.sampled_from(RULES), kinds, kinds, st.booleans(), st.integers(3, 6))
def test_reproduced_means_real_data_the_papers_setting_and_enough_seeds(
    a: list[float], b: list[float], rule: dict[str, Any], kind_a: str, kind_b: str, at_paper: bool, seeds: int
) -> None:
    found = results(a=experiment(a, kind_a), b=experiment(b, kind_b))
    outcome = judge(claim({**rule, "min_seeds": seeds}, at_paper), found, "cpu")
    used = [(a, kind_a), (b, kind_b)] if rule is ORDER else [(a, kind_a)]
    if min(len(v) for v, _ in used) < seeds:
        assert outcome.verdict == "not run"
    elif outcome.verdict == "reproduced":
        assert at_paper
        assert all(kind == "real" for _, kind in used)
    assert outcome.why


@given(values, values, st.floats(0.5, 50), st.sampled_from(["order", "at_least"]))
def test_a_larger_effect_never_hurts(a: list[float], b: list[float], shift: float, which: str) -> None:
    rule = ORDER if which == "order" else AT_LEAST
    better = [v - shift for v in a] if which == "order" else [v + shift for v in a]
    if verdict(rule, a, b) in GOOD and spread(better) <= spread(a):  # the shift may round the spread up
        assert verdict(rule, better, b) in GOOD


def spread(numbers: list[float]) -> float:
    mean = math.fsum(numbers) / len(numbers)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in numbers))


@given(st.permutations([2.0, 2.3, 2.9, 3.3]), st.sampled_from(RULES))
def test_the_order_of_the_seeds_does_not_matter(a: list[float], rule: dict[str, Any]) -> None:
    assert verdict(rule, a, paper_setting=True) == verdict(rule, sorted(a), paper_setting=True)
